//! `/prediction`: what Framehook found, a page at a time or all of it as a stream.
//!
//! Invariant: whatever the length of a scenario, a request holds at most two pages of rows in memory.

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use framehook_core::{error_code::ErrorCode, ids::ScenarioId, prediction::Prediction};
use framehook_infra::store::{PredictionQuery, SharedStore};
use futures::stream;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    SharedApp,
    extract::{Query, ScenarioPath, wants_ndjson},
    page::{self, Page},
    problem::Problem,
    scenario::not_found,
};

/// Rows of one read: 500 of twenty detections are about 2 MB.
const ROWS: u32 = 500;
/// Rows that one page of filtered predictions may look at before it gives a cursor instead of going on: some 100 ms.
const MAX_SCANNED: usize = 20_000;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Parameters {
    /// Only frames at or after this `pts_us`.
    from_us: Option<i64>,
    /// Only frames before this `pts_us`.
    until_us: Option<i64>,
    /// Only detections with this label, and frames that have one; a detection without a label is called by its class id.
    label: Option<String>,
    /// Only detections with at least this score, and frames that have one: 0 to 1.
    min_score: Option<f32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// 1 to 1000, 100 by default; for a stream, all by default.
    limit: Option<u32>,
}

/// Predictions in the order of the frames
///
/// `Accept: application/x-ndjson` streams all that match, one JSON object a line. A page may have fewer items than
/// `limit`; only `next_cursor` says whether there are more. Where the installation has a cache, a page may be up to one
/// second old.
#[utoipa::path(get, path = "/prediction/{id}", tag = "/prediction", operation_id = "get_predictions", params(("id" = ScenarioId, Path), Parameters),
    responses(
        (status = 200, content((Page<Prediction> = "application/json"), (Prediction = "application/x-ndjson")),
            headers(("Age" = Option<u32>, description = "Seconds since it was read, of a page from the cache: 0 or 1"))),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn get(
    State(app): State<SharedApp>,
    ScenarioPath(id): ScenarioPath,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let limit = page::limit(parameters.limit)?;
    let is_bounded = parameters.limit.is_some();
    let key = format!("{parameters:?}");
    let mut reader = Reader::new(app.store.clone(), id, parameters)?;
    let must_exist = async || app.store.scenario(id).await?.map(drop).ok_or_else(|| not_found(id));
    if wants_ndjson(&headers) {
        must_exist().await?;
        let left = if is_bounded { limit as usize } else { usize::MAX };
        return Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], stream_lines(reader, left)).into_response());
    }
    let read = async {
        must_exist().await?;
        reader.page(limit).await
    };
    app.hot.answer(id, "prediction", &key, read).await
}

/// Which detections, and so which frames.
struct Filter {
    label: Option<String>,
    min_score: Option<f32>,
}

impl Filter {
    fn takes_all(&self) -> bool {
        self.label.is_none() && self.min_score.is_none()
    }

    /// The prediction with its matching detections only; `None` if there are none.
    fn apply(&self, mut prediction: Prediction) -> Option<Prediction> {
        if self.takes_all() {
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
    store: SharedStore,
    id: ScenarioId,
    query: PredictionQuery,
    filter: Filter,
    ended: bool,
}

impl Reader {
    fn new(store: SharedStore, id: ScenarioId, parameters: Parameters) -> Result<Self, Problem> {
        let Parameters { from_us, until_us, label, min_score, cursor, limit: _ } = parameters;
        if min_score.is_some_and(|score| !(0.0..=1.0).contains(&score)) {
            let problem = Problem::new(ErrorCode::InvalidParameter, "`min_score` is not a score");
            return Err(problem.field("min_score").expected("0 to 1"));
        }
        let query = PredictionQuery {
            after_pts_us: page::parse_prediction_cursor(cursor.as_deref())?,
            from_pts_us: from_us,
            until_pts_us: until_us,
            limit: ROWS,
        };
        Ok(Self { store, id, query, filter: Filter { label, min_score }, ended: false })
    }

    /// The next rows, unfiltered.
    async fn rows(&mut self) -> Result<Vec<Prediction>, Problem> {
        let rows = self.store.predictions(self.id, self.query.clone()).await?;
        self.ended = rows.len() < self.query.limit as usize;
        if let Some(last) = rows.last() {
            self.query.after_pts_us = Some(last.pts_us);
        }
        Ok(rows)
    }

    async fn page(&mut self, limit: u32) -> Result<Page<Prediction>, Problem> {
        if self.filter.takes_all() {
            // The row behind a page says whether there is more; a filter may have to look at any number.
            self.query.limit = ROWS.min(limit + 1);
        }
        let mut items = Vec::new();
        let mut seen = self.query.after_pts_us;
        let mut scanned = 0;
        while !self.ended && scanned < MAX_SCANNED {
            for row in self.rows().await? {
                if items.len() == limit as usize {
                    return Ok(Page { items, next_cursor: seen.map(page::prediction_cursor) });
                }
                seen = Some(row.pts_us);
                scanned += 1;
                items.extend(self.filter.apply(row));
            }
        }
        let next_cursor = if self.ended { None } else { seen.map(page::prediction_cursor) };
        Ok(Page { items, next_cursor })
    }
}

/// A body of JSON lines. An error midway cuts the connection, so that half a list is not taken for a whole.
fn stream_lines(reader: Reader, left: usize) -> Body {
    Body::from_stream(stream::try_unfold((reader, left), async |(mut reader, mut left)| {
        while !reader.ended && left > 0 {
            let rows = reader.rows().await.map_err(|problem| std::io::Error::other(problem.detail))?;
            let mut lines = Vec::new();
            for prediction in rows.into_iter().filter_map(|row| reader.filter.apply(row)).take(left) {
                serde_json::to_writer(&mut lines, &prediction)?;
                lines.push(b'\n');
                left -= 1;
            }
            if !lines.is_empty() {
                return Ok::<_, std::io::Error>(Some((Bytes::from(lines), (reader, left))));
            }
        }
        Ok(None)
    }))
}
