//! `/scenario`: create, check, list, get, stop, start, delete, history, delivery, plugins.
//!
//! Invariant: nothing here waits for a worker. A request writes what the user wants; the orchestrator does
//! the rest.

use std::time::Instant;

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use framehook_core::{
    delivery::Delivery,
    error_code::ErrorCode,
    ids::{Digest, ScenarioId},
    spec::{ResolvedScenario, ScenarioSpec},
    state::{Desired, ScenarioState},
};
use framehook_infra::store::{
    Created, HistoryEntry, Idempotency, Limit, NewScenario, Rows, ScenarioFilter, ScenarioRecord,
};
use serde::{Deserialize, Serialize};
use tracing::{Span, field::display};
use utoipa::{IntoParams, ToSchema};

use crate::{
    App, SharedApp,
    check::{
        canonical,
        resolve::{no_key, resolve},
    },
    http::{
        extract::{Body, Query, ScenarioPath, idempotency_key},
        observe::Traceparent,
        page::{self, NoParameters, Page, PageParameters},
        problem::{AnyProblem, JsonResult, Problem},
    },
    resource::{
        revision::with_etag,
        view::{PluginsView, ScenarioView},
    },
};

/// Create a scenario and start it
///
/// With an `Idempotency-Key`, the same request again gives the same scenario.
#[utoipa::path(post, path = "/scenario/init", tag = "/scenario", operation_id = "init_scenario",
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters",
            min_length = 1, max_length = 255, pattern = "^[!-~]+$"),
        ("traceparent" = Option<String>, Header, description = "W3C trace context, carried through the platform; made if absent")),
    request_body = ScenarioSpec,
    responses(
        (status = 200, description = "Created, or created before with this key", body = ScenarioView),
        AnyProblem))]
pub(crate) async fn init(
    State(app): State<SharedApp>,
    Extension(Traceparent(traceparent)): Extension<Traceparent>,
    headers: HeaderMap,
    _: Query<NoParameters>,
    body: Body<ScenarioSpec>,
) -> JsonResult<ScenarioView> {
    let idempotent = |key| Ok::<_, Problem>(Idempotency { key, request: request_digest(&app, &body)? });
    let idempotency = idempotency_key(&headers)?.map(idempotent).transpose()?;
    // Before anything is resolved: the same request has the same answer, whatever became of the model
    // meanwhile.
    if let Some(idempotency) = &idempotency
        && let Some(created) = app.store.created_before(idempotency).await?
    {
        return answer(created);
    }
    let resolved = resolve(&app, &body.parsed).await?;
    let traceparent = Some(traceparent);
    let new = NewScenario { id: ScenarioId::generate(), spec: body.parsed, resolved, idempotency, traceparent };
    answer(app.store.create_scenario(new).await?)
}

/// What tells a repetition from a reuse. The password in it cannot be found by trying, as it could with a
/// plain digest.
fn request_digest(app: &App, body: &Body<ScenarioSpec>) -> Result<Digest, Problem> {
    if !body.parsed.source.has_secret() {
        return Ok(canonical::digest(&body.json));
    }
    let key = app.config.key.as_ref().ok_or_else(|| Problem::from(no_key()))?;
    Ok(key.digest(&canonical::text(&body.json)))
}

pub(crate) fn answer(created: Created) -> JsonResult<ScenarioView> {
    match created {
        Created::New(record) | Created::Repeated(record) => {
            Span::current().record("scenario_id", display(record.id));
            Ok(Json(record.into()))
        }
        Created::Deleted(id) => {
            let detail =
                format!("scenario {id}, which this key stands for, was deleted; use a new key for a new scenario");
            Err(Problem::new(ErrorCode::ScenarioNotFound, detail).field("Idempotency-Key"))
        }
        Created::KeyReused => {
            let detail = "this key belongs to a request with another body; use a new key for a new scenario";
            Err(Problem::new(ErrorCode::IdempotencyKeyReused, detail).field("Idempotency-Key"))
        }
    }
}

/// The outcome of a check without errors.
#[derive(Serialize, ToSchema)]
pub(crate) struct Checked {
    /// What would run.
    resolved: ResolvedScenario,
}

/// Check a scenario without creating it
#[utoipa::path(post, path = "/scenario/check", tag = "/scenario", operation_id = "check_scenario",
    request_body = ScenarioSpec,
    responses((status = 200, description = "`POST /scenario/init` would accept it", body = Checked), AnyProblem))]
pub(crate) async fn check(
    State(app): State<SharedApp>,
    _: Query<NoParameters>,
    body: Body<ScenarioSpec>,
) -> JsonResult<Checked> {
    Ok(Json(Checked { resolved: resolve(&app, &body.parsed).await? }))
}

type ScenarioPage = Page<ScenarioView>;
type HistoryPage = Page<HistoryEntry>;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParameters {
    state: Option<ScenarioState>,
    /// Exact name.
    name: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// 1 to 1000, 100 by default.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
}

/// Scenarios, newest first
///
/// A page may have fewer items than `limit`, because their specifications are limited together too
/// (8 MiB by default); only `next_cursor` says whether there are more.
#[utoipa::path(get, path = "/scenario", tag = "/scenario", operation_id = "list_scenarios", params(ListParameters),
    responses((status = 200, description = "A page of scenarios", body = ScenarioPage), AnyProblem))]
pub(crate) async fn list(
    State(app): State<SharedApp>,
    Query(parameters): Query<ListParameters>,
) -> JsonResult<ScenarioPage> {
    let ListParameters { state, name, cursor, limit } = parameters;
    let limit = page::limit(limit)?;
    let after = page::parse_scenario_cursor(cursor.as_deref())?;
    let _turn = app.page_turns.acquire().await;
    let limit = Limit { rows: limit, bytes: app.config.limits.page_bytes };
    let Rows { rows, has_more } = app.store.scenarios(ScenarioFilter { state, name }, after, limit).await?;
    let items: Vec<_> = rows.into_iter().map(ScenarioView::from).collect();
    let next_cursor = items.last().filter(|_| has_more).map(|last| page::scenario_cursor(last.id));
    Ok(Json(Page { items, next_cursor }))
}

/// One scenario
///
/// Where the installation has a cache, what another API instance changed may show up to one second late.
#[utoipa::path(get, path = "/scenario/{id}", tag = "/scenario", operation_id = "get_scenario", params(("id" = ScenarioId, Path)),
    responses(
        (status = 200, description = "The scenario", body = ScenarioView,
            headers(("ETag" = String, description = "Its revision, in quotes: what a change of it names in `If-Match`"),
                ("Age" = Option<u32>, description = "Seconds since it was read, of an answer from the cache: 0 or 1"))),
        AnyProblem))]
pub(crate) async fn get(
    State(app): State<SharedApp>,
    ScenarioPath(id): ScenarioPath,
    _: Query<NoParameters>,
) -> Result<Response, Problem> {
    let read = async {
        let record = app.store.scenario(id).await?.ok_or_else(|| not_found(id))?;
        serde_json::to_vec(&ScenarioView::from(record)).map_err(Problem::internal)
    };
    let answer = app.response_cache.answer(id, "scenario", "", read).await?;
    with_revision(answer).await
}

/// With the revision that it shows as its `ETag`.
async fn with_revision(answer: Response) -> Result<Response, Problem> {
    #[derive(Deserialize)]
    struct Shown {
        revision: i64,
    }
    let (parts, body) = answer.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.map_err(Problem::internal)?;
    let Shown { revision } = serde_json::from_slice(&body).map_err(Problem::internal)?;
    Ok(with_etag(revision, (parts, body)))
}

/// Stop a scenario; again does nothing more
#[utoipa::path(post, path = "/scenario/{id}/stop", tag = "/scenario", operation_id = "stop_scenario", params(("id" = ScenarioId, Path)),
    responses((status = 200, description = "It stops, or has stopped", body = ScenarioView), AnyProblem))]
pub(crate) async fn stop(
    State(app): State<SharedApp>,
    ScenarioPath(id): ScenarioPath,
    _: Query<NoParameters>,
) -> JsonResult<ScenarioView> {
    set_desired(&app, id, Desired::Stopped).await
}

/// Start a stopped or failed scenario where it left off; again does nothing more
#[utoipa::path(post, path = "/scenario/{id}/start", tag = "/scenario", operation_id = "start_scenario", params(("id" = ScenarioId, Path)),
    responses((status = 200, description = "It starts, runs, or has completed", body = ScenarioView), AnyProblem))]
pub(crate) async fn start(
    State(app): State<SharedApp>,
    ScenarioPath(id): ScenarioPath,
    _: Query<NoParameters>,
) -> JsonResult<ScenarioView> {
    set_desired(&app, id, Desired::Running).await
}

/// Delete a scenario and its predictions; again does nothing more
#[utoipa::path(delete, path = "/scenario/{id}", tag = "/scenario", operation_id = "delete_scenario", params(("id" = ScenarioId, Path)),
    responses((status = 204, description = "Deleted"), AnyProblem))]
pub(crate) async fn delete(
    State(app): State<SharedApp>,
    ScenarioPath(id): ScenarioPath,
    _: Query<NoParameters>,
) -> Result<StatusCode, Problem> {
    let deleted = app.store.set_desired(id, Desired::Deleted).await;
    app.response_cache.changed(id);
    if deleted?.is_none() && !app.store.is_purged(id).await? {
        return Err(not_found(id));
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn set_desired(app: &SharedApp, id: ScenarioId, desired: Desired) -> JsonResult<ScenarioView> {
    app.start_rate.admit(id, Instant::now()).map_err(|wait| {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let most = app.config.limits.starts_a_minute;
        let detail = format!(
            "scenario {id} was stopped and started more than {most} times a minute (`max_starts_min`); try again in {seconds} s"
        );
        Problem { retry_after_s: Some(seconds), ..Problem::new(ErrorCode::TooBusy, detail) }
    })?;
    let is_there = |record: &ScenarioRecord| record.desired != Desired::Deleted;
    let record = app.store.set_desired(id, desired).await;
    app.response_cache.changed(id);
    let record = record?.filter(is_there).ok_or_else(|| not_found(id))?;
    Ok(Json(record.into()))
}

/// Every change of a scenario's state, oldest first
///
/// Changes that come again and again, such as a crash and its restart, are listed the first and the last
/// time. A history has at most 600 lines (setting `max_history_lines`): a longer one keeps its first 100 and
/// its last 400 or more. The line behind a gap says how many are not kept.
#[utoipa::path(get, path = "/scenario/{id}/history", tag = "/scenario", operation_id = "get_history",
    params(("id" = ScenarioId, Path), PageParameters),
    responses((status = 200, description = "A page of changes", body = HistoryPage), AnyProblem))]
pub(crate) async fn history(
    State(app): State<SharedApp>,
    ScenarioPath(id): ScenarioPath,
    Query(PageParameters { cursor, limit }): Query<PageParameters>,
) -> JsonResult<HistoryPage> {
    let limit = page::limit(limit)?;
    let after = page::parse_history_cursor(cursor.as_deref())?;
    app.store.scenario(id).await?.ok_or_else(|| not_found(id))?;
    let entries = app.store.history(id, after, limit + 1).await?;
    Ok(Json(Page::cut(entries, limit, |entry| page::history_cursor(entry.sequence))))
}

/// What became of every frame
///
/// `decoded` = `stored` + `skipped` + `left_out` + each of `dropped` + `inbox.frames`, at any time. `decoded`
/// is not computed from the others: runners report how far they are, and predictions are counted once each as
/// they are stored. Once the scenario is at rest and everything has arrived, `inbox.frames` is 0; a number
/// that stays there is a frame that was lost.
///
/// In the example the worker is at the 1000th frame: the first 500 lie before the scenario's `range`; of the
/// others 478 have an inference, a hook skipped 19, the record of one could not be read, and two are on their
/// way to the store (478 + 19 + 500 + 1 + 2 = 1000).
#[utoipa::path(get, path = "/scenario/{id}/delivery", tag = "/scenario", operation_id = "get_delivery",
    params(("id" = ScenarioId, Path)),
    responses(
        (status = 200, description = "The sum", body = Delivery, example = json!({
            "decoded": 1000, "stored": 478, "skipped": 19, "left_out": 500, "damaged": 0, "dropped": {"unreadable": 1},
            "inbox": {"frames": 2, "unreadable": 0}, "outbox": {"messages": 0, "oldest_age_ms": null}})),
        AnyProblem))]
pub(crate) async fn delivery(
    State(app): State<SharedApp>,
    ScenarioPath(id): ScenarioPath,
    _: Query<NoParameters>,
) -> JsonResult<Delivery> {
    app.store.delivery(id).await?.map(Json).ok_or_else(|| not_found(id))
}

/// What became of the calls of each hook
///
/// Calls, failures, times, detections and the hook's own metrics (counters, gauges and histograms, by name),
/// of the current or the last deployment: a scenario that goes on elsewhere begins at 0. They are a second or
/// two old.
#[utoipa::path(get, path = "/scenario/{id}/plugins", tag = "/scenario", operation_id = "get_scenario_plugins",
    params(("id" = ScenarioId, Path)),
    responses((status = 200, description = "Its hooks", body = PluginsView), AnyProblem))]
pub(crate) async fn plugins(
    State(app): State<SharedApp>,
    ScenarioPath(id): ScenarioPath,
    _: Query<NoParameters>,
) -> JsonResult<PluginsView> {
    let record = app.store.scenario(id).await?.ok_or_else(|| not_found(id))?;
    Ok(Json(record.into()))
}

pub(crate) fn not_found(id: ScenarioId) -> Problem {
    Problem::new(
        ErrorCode::ScenarioNotFound,
        format!("there is no scenario {id}, or it was deleted; see GET /scenario"),
    )
}
