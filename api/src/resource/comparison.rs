//! `/scenario/{id}/comparison`: what two scenarios said of the same frames.
//!
//! Invariants: nothing is stored; a request walks the rows of both side by side and holds one read of each.
//! Frames behind the last one of a scenario that still runs are not missing, they have not come yet.

use std::{collections::VecDeque, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use framehook_core::{
    compare::{Comparison, FrameDifference, Said, compare},
    error_code::ErrorCode,
    ids::ScenarioId,
    prediction::{Position, Prediction},
    recorded::Replay,
};
use framehook_infra::store::{Limit, PredictionQuery, Rows, ScenarioRecord, Scenarios, StoredPrediction};
use futures::stream;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    SharedApp,
    http::{
        extract::{BY_ACCEPT, NDJSON, Query, ScenarioPath, check_takes_json, wants_ndjson},
        page,
        problem::{AnyProblem, Problem},
    },
    resource::scenario::not_found,
};

/// One read of one side: 500 rows of twenty detections are about 2 MB.
const READ: Limit = Limit { rows: 500, bytes: 2 << 20 };
/// Frames that one page looks at: reading and comparing that many takes some 100 ms. Where more are equal,
/// the page ends with a cursor.
const MAX_FRAMES: u64 = 5_000;
/// Bytes of JSON of one frame's differences: some fifty objects.
const MAX_DIFFERENCE: usize = 16 << 10;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Parameters {
    /// The scenario to compare with; absent: the one that this is a replay of.
    with: Option<ScenarioId>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Frames that differ: 1 to 1000; without it a page has 100, and a stream all.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// One of two scenarios.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[schema(as = ComparisonSide)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    Before,
    After,
}

/// A frame on which something differs.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ComparedFrame)]
pub(crate) struct Difference {
    #[serde(flatten)]
    difference: FrameDifference,
    /// Only this one has a prediction of the frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    only: Option<Side>,
}

/// Frames, added up.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
#[schema(as = ComparisonSummary)]
pub(crate) struct Summary {
    /// The frames that both have.
    #[serde(flatten)]
    both: Comparison,
    /// Frames that only one of them has.
    only_before: u64,
    only_after: u64,
}

/// What differs between two scenarios.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ComparisonView {
    /// The original of a replay, or what it is compared with.
    before: ScenarioId,
    after: ScenarioId,
    /// Counts the frames of this page, those that are equal included: add up those of all pages.
    summary: Summary,
    /// Frames on which something differs, in their order.
    items: Vec<Difference>,
    /// Give it back as `cursor` for the next page; null: this was the last.
    next_cursor: Option<String>,
}

/// What a replay says otherwise than its original
///
/// Frames are compared by their times. Detections are matched where their boxes overlap by half or more
/// (intersection over union), those with equal labels first; `added`, `missing` and `changed` say what became
/// of them. Tracks' numbers are not compared, and of events only their kind and phase. `with` compares any
/// two scenarios on the same source.
///
/// A page looks at 5,000 frames at most. With `Accept: application/x-ndjson` the answer is all frames that
/// differ, one JSON object a line, and at the end a line with the `summary` of all.
///
/// While one of the two still runs, this goes as far as both have come.
#[utoipa::path(get, path = "/scenario/{id}/comparison", tag = "/scenario", operation_id = "get_comparison",
    params(("id" = ScenarioId, Path), Parameters),
    responses((status = 200, description = "A page of differences", body = ComparisonView), AnyProblem))]
pub(crate) async fn get(
    State(app): State<SharedApp>,
    ScenarioPath(id): ScenarioPath,
    Query(Parameters { with, cursor, limit }): Query<Parameters>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let as_lines = wants_ndjson(&headers);
    if !as_lines {
        check_takes_json(&headers)?;
    }
    let after_us = page::parse_prediction_cursor(id, cursor.as_deref())?;
    let of_page = page::limit(limit)?;
    let most = limit.map_or(usize::MAX, |limit| limit as usize);
    let replay = app.store.scenario(id).await?.ok_or_else(|| not_found(id))?;
    let original = with.or(replay.resolved.replay.as_ref().map(|Replay { of, .. }| *of)).ok_or_else(|| {
        let detail = format!("scenario {id} is no replay; name the scenario to compare it with");
        Problem::new(ErrorCode::InvalidParameter, detail).field("with").expected("the id of a scenario")
    })?;
    let before = app.store.scenario(original).await?.ok_or_else(|| not_found(original))?;
    let side = |record: &ScenarioRecord| Rest::new(app.store.clone(), record.id, after_us, record.state.is_ended());
    let mut walk = Walk { before: side(&before), after: side(&replay), seen: after_us, summary: Summary::default() };
    if as_lines {
        return Ok((BY_ACCEPT, NDJSON, stream_lines(app, walk, most)).into_response());
    }
    let _turn = app.page_turns.acquire().await;
    let (mut items, mut bytes) = (Vec::new(), 0);
    let room = app.config.limits.page_bytes;
    let mut has_more = true;
    while has_more && items.len() < of_page as usize && bytes < room && walk.frames() < MAX_FRAMES {
        match walk.next().await? {
            Some(Some(item)) => {
                bytes += MAX_DIFFERENCE as u64;
                items.push(item);
            }
            Some(None) => {}
            None => has_more = false,
        }
    }
    let next_cursor = walk.seen.filter(|_| has_more).map(|seen| page::prediction_cursor(id, seen));
    let view = ComparisonView { before: original, after: id, summary: walk.summary, items, next_cursor };
    Ok((BY_ACCEPT, axum::Json(view)).into_response())
}

/// The predictions of one side that were not looked at.
struct Rest {
    store: Arc<dyn Scenarios>,
    id: ScenarioId,
    query: PredictionQuery,
    rows: VecDeque<Prediction>,
    is_read: bool,
    /// No more will come.
    is_whole: bool,
}

impl Rest {
    fn new(store: Arc<dyn Scenarios>, id: ScenarioId, after_pts_us: Option<i64>, is_whole: bool) -> Self {
        let query = PredictionQuery { after_pts_us, from_pts_us: None, until_pts_us: None, limit: READ };
        Self { store, id, query, rows: VecDeque::new(), is_read: false, is_whole }
    }

    /// The time of the next one; `None`: there is none.
    async fn peek(&mut self) -> Result<Option<i64>, Problem> {
        if self.rows.is_empty() && !self.is_read {
            let found = self.store.predictions(self.id, self.query.clone()).await?;
            let Rows { rows, has_more } = found.ok_or_else(|| not_found(self.id))?;
            self.is_read = !has_more;
            self.query.after_pts_us = rows.last().map(|row| row.pts_us).or(self.query.after_pts_us);
            self.rows = rows.iter().map(StoredPrediction::read).collect::<Result<_, _>>()?;
        }
        Ok(self.rows.front().map(|row| row.pts_us))
    }
}

/// The rows of both, side by side.
struct Walk {
    before: Rest,
    after: Rest,
    /// The last frame that was looked at.
    seen: Option<i64>,
    summary: Summary,
}

impl Walk {
    fn frames(&self) -> u64 {
        self.summary.both.compared + self.summary.only_before + self.summary.only_after
    }

    /// The next frame, with what differs on it; `None`: there is no more.
    async fn next(&mut self) -> Result<Option<Option<Difference>>, Problem> {
        let (before_us, after_us) = (self.before.peek().await?, self.after.peek().await?);
        let Some(pts_us) = before_us.into_iter().chain(after_us).min() else { return Ok(None) };
        // The other one has not come so far.
        if (before_us.is_none() && !self.before.is_whole) || (after_us.is_none() && !self.after.is_whole) {
            return Ok(None);
        }
        self.seen = Some(pts_us);
        let take = |rest: &mut Rest, at: Option<i64>| rest.rows.pop_front_if(|_| at == Some(pts_us));
        let pair = (take(&mut self.before, before_us), take(&mut self.after, after_us));
        Ok(Some(match pair {
            (Some(before), Some(after)) => {
                let at = Position { pts_us, frame: before.frame };
                let difference = compare(at, said(&before), said(&after));
                self.summary.both.count(difference.as_ref());
                difference.map(|difference| Difference { difference: difference.within(MAX_DIFFERENCE), only: None })
            }
            (Some(before), None) => {
                self.summary.only_before += 1;
                Some(alone(&before, Side::Before))
            }
            (None, after) => {
                self.summary.only_after += 1;
                after.map(|after| alone(&after, Side::After))
            }
        }))
    }
}

fn said(prediction: &Prediction) -> Said<'_> {
    let Prediction { detections, events, skipped, hook_failures, .. } = prediction;
    Said { detections, events, skipped: skipped.as_ref(), failures: hook_failures }
}

fn alone(prediction: &Prediction, side: Side) -> Difference {
    let difference =
        FrameDifference { pts_us: prediction.pts_us, frame: prediction.frame, ..FrameDifference::default() };
    Difference { difference, only: Some(side) }
}

#[derive(Serialize)]
struct Last {
    summary: Summary,
}

/// What differs, as lines; then the summary. An error midway cuts the connection.
fn stream_lines(app: SharedApp, walk: Walk, most: usize) -> Body {
    Body::from_stream(stream::try_unfold(Some((app, walk, most)), async |state| {
        let Some((app, mut walk, mut left)) = state else { return Ok(None) };
        let turn = app.page_turns.acquire().await;
        let (mut lines, until) = (Vec::new(), walk.frames() + MAX_FRAMES);
        let gone = |problem: Problem| std::io::Error::other(problem.detail);
        while lines.is_empty() || (walk.frames() < until && (lines.len() as u64) < READ.bytes) {
            match walk.next().await.map_err(gone)? {
                Some(Some(item)) if left > 0 => {
                    left -= 1;
                    line(&mut lines, &item)?;
                }
                Some(_) => {}
                None => {
                    line(&mut lines, &Last { summary: walk.summary })?;
                    return Ok::<_, std::io::Error>(Some((Bytes::from(lines), None)));
                }
            }
        }
        drop(turn);
        Ok(Some((Bytes::from(lines), Some((app, walk, left)))))
    }))
}

fn line(lines: &mut Vec<u8>, item: &impl Serialize) -> std::io::Result<()> {
    serde_json::to_writer(&mut *lines, item)?;
    lines.push(b'\n');
    Ok(())
}
