//! `/prediction`: what Framehook found, a page at a time or all of it as a stream.
//!
//! Invariant: whatever the length of a scenario and the size of its rows, a request holds at most
//! the items of one page and the rows of one read.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use framehook_core::{ids::ScenarioId, prediction::Prediction};
use framehook_infra::store::{Limit, PredictionQuery, Rows, Scenarios, StoredPrediction};
use futures::stream;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    SharedApp,
    http::{
        extract::{BY_ACCEPT, NDJSON, Query, ScenarioPath, check_takes_json, wants_ndjson},
        page::{self, Page},
        problem::{AnyProblem, Problem},
    },
    resource::scenario::not_found,
};

/// One read: 500 rows of twenty detections are about 2 MB.
const READ: Limit = Limit { rows: 500, bytes: 2 << 20 };
/// Reads of one page of filtered predictions, before it gives a cursor instead of going on: 20,000
/// rows, or 80 MiB, in some 100 ms.
const MAX_READS: usize = 40;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Parameters {
    /// Only frames at or after this `pts_us`.
    from_us: Option<i64>,
    /// Only frames before this `pts_us`, which is not before `from_us`.
    until_us: Option<i64>,
    /// Only detections with this label, and frames that have one; a detection without a label is called by
    /// its class id.
    label: Option<String>,
    /// Only detections with at least this score, and frames that have one: 0 to 1.
    #[param(minimum = 0, maximum = 1)]
    min_score: Option<f32>,
    /// Only frames with an event of this kind, such as `line_crossed`.
    event: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// 1 to 1000; without it a page has 100, and a stream all.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

type PredictionPage = Page<Prediction>;

/// Predictions in the order of the frames
///
/// A page may have fewer items than `limit`, because its bytes are limited too (8 MiB by default); only
/// `next_cursor` says whether there are more. Where the installation has a cache, a page may be up
/// to one second old.
///
/// Filters narrow together. A frame is in the answer if it has a detection that `label` and
/// `min_score`, where they are given, both take, and an event of the kind `event`, where that is
/// given. Of a frame in the answer only those detections are shown, and every event: one of another
/// kind too, and one whose `subjects` are not shown. So `label` alone leaves out the events of frames
/// without such a detection; ask for events with `event` alone.
///
/// With `Accept: application/x-ndjson` the answer is that of `GET /prediction/{id}/export`.
#[utoipa::path(get, path = "/prediction/{id}", tag = "/prediction", operation_id = "get_predictions", params(("id" = ScenarioId, Path), Parameters),
    responses(
        (status = 200, description = "A page of predictions", body = PredictionPage,
            headers(("Age" = Option<u32>, description = "Seconds since it was read, of a page from the cache: 0 or 1"))),
        AnyProblem))]
pub(crate) async fn get(
    State(app): State<SharedApp>,
    ScenarioPath(id): ScenarioPath,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if wants_ndjson(&headers) {
        return Ok((BY_ACCEPT, lines(app, id, parameters).await?).into_response());
    }
    check_takes_json(&headers)?;
    let limit = page::limit(parameters.limit)?;
    let key = format!("{parameters:?}");
    let mut reader = Reader::new(app.store.clone(), id, parameters)?;
    let room = app.config.limits.page_bytes;
    let read = async {
        let _turn = app.page_turns.acquire().await;
        reader.page(limit, room).await
    };
    let page = app.response_cache.answer(id, "prediction", &key, read).await?;
    Ok((BY_ACCEPT, page).into_response())
}

/// All predictions that match, one JSON object a line (NDJSON)
///
/// Each line is a `Prediction`; the filters are those of `GET /prediction/{id}`. The lines are sent as
/// they are read, whatever `Accept` says, and compressed on request (`Accept-Encoding: gzip`).
#[utoipa::path(get, path = "/prediction/{id}/export", tag = "/prediction", operation_id = "export_predictions",
    params(("id" = ScenarioId, Path), Parameters),
    responses(
        (status = 200, description = "A `Prediction` a line", body = String, content_type = "application/x-ndjson"),
        AnyProblem))]
pub(crate) async fn export(
    State(app): State<SharedApp>,
    ScenarioPath(id): ScenarioPath,
    Query(parameters): Query<Parameters>,
) -> Result<Response, Problem> {
    lines(app, id, parameters).await
}

async fn lines(app: SharedApp, id: ScenarioId, parameters: Parameters) -> Result<Response, Problem> {
    let limit = page::limit(parameters.limit)?;
    let left = parameters.limit.map_or(usize::MAX, |_| limit as usize);
    let reader = Reader::new(app.store.clone(), id, parameters)?;
    // A stream that has begun can give no problem any more.
    app.store.scenario(id).await?.ok_or_else(|| not_found(id))?;
    let lines = stream_lines(app, reader, left);
    Ok((NDJSON, lines).into_response())
}

/// Which detections and events, and so which frames.
struct Filter {
    label: Option<String>,
    min_score: Option<f32>,
    event: Option<String>,
}

impl Filter {
    fn takes_all(&self) -> bool {
        self.takes_all_detections() && self.event.is_none()
    }

    fn takes_all_detections(&self) -> bool {
        self.label.is_none() && self.min_score.is_none()
    }

    /// The stored prediction, as it is or with its matching detections only; `None` if it does not match.
    fn apply(&self, stored: StoredPrediction) -> Result<Option<String>, Problem> {
        if self.takes_all() {
            return Ok(Some(stored.json));
        }
        self.matching(stored.read()?)
            .map(|matching| serde_json::to_string(&matching).map_err(Problem::internal))
            .transpose()
    }

    fn matching(&self, mut prediction: Prediction) -> Option<Prediction> {
        if self.event.as_ref().is_some_and(|kind| prediction.events.iter().all(|event| event.kind != *kind)) {
            return None;
        }
        if self.takes_all_detections() {
            return Some(prediction);
        }
        let mut renumbered = Vec::with_capacity(prediction.detections.len());
        let mut kept = 0u32;
        prediction.detections.retain(|detection| {
            let label = detection.label.clone().unwrap_or_else(|| detection.class_id.to_string());
            let matches = self.label.as_ref().is_none_or(|wanted| *wanted == label)
                && self.min_score.is_none_or(|min| detection.score >= min);
            renumbered.push(matches.then_some(kept));
            kept += u32::from(matches);
            matches
        });
        // An event names detections by their place in the list.
        for event in &mut prediction.events {
            let place = |subject: &u32| renumbered.get(*subject as usize).copied().flatten();
            event.subjects = event.subjects.iter().filter_map(place).collect();
        }
        (kept > 0).then_some(prediction)
    }
}

/// Reads a scenario's predictions from front to back.
struct Reader {
    store: Arc<dyn Scenarios>,
    id: ScenarioId,
    query: PredictionQuery,
    filter: Filter,
    ended: bool,
}

impl Reader {
    fn new(store: Arc<dyn Scenarios>, id: ScenarioId, parameters: Parameters) -> Result<Self, Problem> {
        let Parameters { from_us, until_us, label, min_score, event, cursor, limit: _ } = parameters;
        if min_score.is_some_and(|score| !(0.0..=1.0).contains(&score)) {
            let detail = format!("`min_score` is {}; expected 0 to 1", min_score.unwrap_or_default());
            return Err(Problem::parameter("min_score", detail).expected("0 to 1"));
        }
        if let (Some(from), Some(until)) = (from_us, until_us)
            && from > until
        {
            let detail = format!("`until_us` is {until}, before `from_us`, which is {from}");
            return Err(Problem::parameter("until_us", detail).expected("`from_us` or later"));
        }
        let query = PredictionQuery {
            after_pts_us: page::parse_prediction_cursor(id, cursor.as_deref())?,
            from_pts_us: from_us,
            until_pts_us: until_us,
            limit: READ,
        };
        Ok(Self { store, id, query, filter: Filter { label, min_score, event }, ended: false })
    }

    /// The next rows, unfiltered.
    async fn rows(&mut self) -> Result<Vec<StoredPrediction>, Problem> {
        let found = self.store.predictions(self.id, self.query.clone()).await?;
        let Rows { rows, has_more } = found.ok_or_else(|| not_found(self.id))?;
        self.ended = !has_more;
        if let Some(last) = rows.last() {
            self.query.after_pts_us = Some(last.pts_us);
        }
        Ok(rows)
    }

    /// The JSON of a page: at most `limit` items of `room` bytes together; the first one comes
    /// whatever its size.
    async fn page(&mut self, limit: u32, room: u64) -> Result<Vec<u8>, Problem> {
        if self.filter.takes_all() {
            // The row behind a page says whether there is more; a filter may have to look at any number.
            self.query.limit.rows = READ.rows.min(limit + 1);
        }
        let mut items: Vec<String> = Vec::new();
        let mut left = room;
        let mut seen = self.query.after_pts_us;
        let mut reads = 0;
        while !self.ended && reads < MAX_READS {
            reads += 1;
            for row in self.rows().await? {
                let pts_us = row.pts_us;
                if let Some(item) = self.filter.apply(row)? {
                    let size = item.len() as u64;
                    if items.len() == limit as usize || (size > left && !items.is_empty()) {
                        return Ok(self.page_of(&items, seen));
                    }
                    left = left.saturating_sub(size);
                    items.push(item);
                }
                seen = Some(pts_us);
            }
        }
        Ok(self.page_of(&items, seen.filter(|_| !self.ended)))
    }

    /// The next rows that match, a line each, of at most `left` more.
    async fn lines(&mut self, left: &mut usize) -> Result<String, Problem> {
        let mut lines = String::new();
        for row in self.rows().await? {
            if let Some(line) = self.filter.apply(row)?.filter(|_| *left > 0) {
                lines.push_str(&line);
                lines.push('\n');
                *left -= 1;
            }
        }
        Ok(lines)
    }

    /// A [`Page`] of items that are JSON already; there are more behind `seen`, if it is given.
    fn page_of(&self, items: &[String], seen: Option<i64>) -> Vec<u8> {
        let next_cursor = seen.map(|pts_us| page::prediction_cursor(self.id, pts_us));
        // A cursor has letters and digits only.
        let next_cursor = next_cursor.map_or_else(|| "null".to_owned(), |cursor| format!("\"{cursor}\""));
        ["{\"items\":[", &items.join(","), "],\"next_cursor\":", &next_cursor, "}"].concat().into_bytes()
    }
}

/// A body of JSON lines. An error midway cuts the connection, so that half a list is not taken for a whole.
fn stream_lines(app: SharedApp, reader: Reader, left: usize) -> Body {
    Body::from_stream(stream::try_unfold((app, reader, left), async |(app, mut reader, mut left)| {
        // Given back before the client takes the lines, which may be late or never.
        let turn = app.page_turns.acquire().await;
        while !reader.ended && left > 0 {
            let lines = reader.lines(&mut left).await.map_err(|problem| std::io::Error::other(problem.detail))?;
            if !lines.is_empty() {
                drop(turn);
                return Ok::<_, std::io::Error>(Some((Bytes::from(lines), (app, reader, left))));
            }
        }
        Ok(None)
    }))
}
