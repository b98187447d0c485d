//! `PATCH /scenario/{id}` and `/scenario/{id}/revisions`: a scenario's settings, changed while it runs.
//!
//! Invariant: nothing here waits for a worker. A change is checked as a new scenario is, and written with the
//! order that tells the worker; whether it is swapped in or rolled back, workers say later.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use framehook_core::{
    artifact::DEV,
    error_code::ErrorCode,
    ids::ScenarioId,
    reason::{Reason, ReasonCode},
    revision::{Begin, RevisionState},
    spec::{ResolvedHook, ScenarioSpec},
    state::Desired,
};
use framehook_infra::store::{Limit, NewRevision, Revised, RevisionEntry, Rows, ScenarioRecord};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::{
    App, SharedApp,
    check::change::{patched, resolve_change},
    http::{
        extract::{Body, Query, ScenarioPath},
        page::{self, Page, PageParameters},
        problem::{AnyProblem, JsonResult, Problem},
    },
    resource::{scenario::not_found, view::ScenarioView},
};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ChangeParameters {
    /// What the hooks begin with: what those before kept (`keep`, the default), or nothing (`fresh`).
    pub(crate) state: Option<Begin>,
}

/// What of a scenario can change: the fields of `ScenarioSpec` of these names.
#[derive(ToSchema)]
#[schema(as = ScenarioPatch)]
#[expect(dead_code, reason = "only its description is used: a patch is merged as JSON")]
pub(crate) struct ScenarioPatch {
    #[schema(value_type = Option<String>)]
    name: Option<String>,
    #[schema(value_type = Option<Object>)]
    plugins: Option<Value>,
    #[schema(value_type = Option<Object>)]
    limits: Option<Value>,
    #[schema(value_type = Option<Object>)]
    labels: Option<Value>,
    on_plugin_failure: Option<framehook_core::spec::OnPluginFailure>,
}

/// Change a scenario's settings, while it runs
///
/// A JSON merge patch (RFC 7396) over `spec`: `name`, `plugins`, `on_plugin_failure`, `limits` and `labels`
/// can change. The worker that runs goes from the one revision to the next between two frames; the source
/// stays open. If the new hooks cannot begin, or fail on three frames in a row or on more than half of the
/// first 50, it goes back by itself. A scenario that does not run has the new settings from its next start
/// on. A hook whose plugin is named without a version, as before, keeps the version that it has. A replay
/// keeps its settings.
#[utoipa::path(patch, path = "/scenario/{id}", tag = "/scenario", operation_id = "change_scenario",
    params(("id" = ScenarioId, Path), ChangeParameters,
        ("If-Match" = String, Header, description = "The revision that the change is for, in quotes: the scenario's `ETag`",
            pattern = "^\"[0-9]{1,18}\"$")),
    request_body(content((ScenarioPatch = "application/merge-patch+json"), (ScenarioPatch = "application/json"))),
    responses(
        (status = 200, description = "The scenario, with its new revision", body = ScenarioView,
            headers(("ETag" = String, description = "Its revision, in quotes"))),
        AnyProblem))]
pub(crate) async fn change(
    State(app): State<SharedApp>,
    ScenarioPath(id): ScenarioPath,
    Query(ChangeParameters { state }): Query<ChangeParameters>,
    headers: HeaderMap,
    body: Body<Value>,
) -> Result<Response, Problem> {
    let record = based_on(&app, id, &headers).await?;
    let (spec, changed) = patched(&record.spec, &body.json)?;
    let begin = state.unwrap_or(Begin::Keep);
    let what = if changed.is_empty() { "what hooks kept".to_owned() } else { changed.join(", ") };
    let record = revise(&app, record, spec, (begin, what)).await?;
    Ok(with_etag(record.revision, Json(ScenarioView::from(record))))
}

/// The scenario that a change is for, if it has the revision that the change names.
pub(crate) async fn based_on(app: &App, id: ScenarioId, headers: &HeaderMap) -> Result<ScenarioRecord, Problem> {
    let record = app.store.scenario(id).await?.ok_or_else(|| not_found(id))?;
    if if_match(headers, record.revision)? != record.revision {
        return Err(conflict(id, record.revision));
    }
    match &record.resolved.replay {
        None => Ok(record),
        Some(replay) => {
            let detail = format!(
                "scenario {id} is a replay and keeps its settings; for others, post POST /scenario/{}/replay",
                replay.of
            );
            Err(Problem::new(ErrorCode::NotChangeable, detail).field("id"))
        }
    }
}

/// Makes the next revision of a scenario from a specification, which differs from the one that it has in what
/// may change; gives the scenario with it. Nothing is changed if nothing would be different.
///
/// # Errors
/// As of a new scenario; when somebody else has changed it since `record` was read, or it has completed.
pub(crate) async fn revise(
    app: &App,
    record: ScenarioRecord,
    spec: ScenarioSpec,
    (begin, what): (Begin, String),
) -> Result<ScenarioRecord, Problem> {
    let id = record.id;
    let resolved = resolve_change(app, &spec, (&record.spec, &record.resolved)).await?;
    if spec == record.spec && resolved == record.resolved && begin == Begin::Keep {
        return Ok(record);
    }
    put(app, id, NewRevision { based_on: record.revision, spec, resolved, begin, what, refused: None }).await
}

async fn put(app: &App, id: ScenarioId, new: NewRevision) -> Result<ScenarioRecord, Problem> {
    let revised = app.store.revise(id, &new).await;
    app.response_cache.changed(id);
    match revised? {
        Revised::Done(record) => Ok(*record),
        Revised::Conflict { current } => Err(conflict(id, current)),
        Revised::Ended => {
            let detail =
                format!("scenario {id} has completed and runs no more; post a new one with POST /scenario/init");
            Err(Problem::new(ErrorCode::ScenarioEnded, detail))
        }
        Revised::NotFound => Err(not_found(id)),
    }
}

/// Gives each scenario that uses `name@dev` a new revision with what was uploaded now. One that cannot use it
/// keeps what it has, and its revisions say why.
pub(crate) async fn follow_development(app: &App, name: &str) -> Result<(), Problem> {
    for id in app.store.users_of(name, DEV).await? {
        if let Err(problem) = take_development(app, id, name).await {
            tracing::warn!(scenario_id = %id, "does not follow {name}@{DEV}: {}", problem.detail);
        }
    }
    Ok(())
}

/// Somebody else may change the scenario at the same time: then it is tried again.
const TRIES: usize = 3;

async fn take_development(app: &App, id: ScenarioId, name: &str) -> Result<(), Problem> {
    let mut tried = Ok(());
    for _ in 0..TRIES {
        let found = app.store.scenario(id).await?.filter(|record| record.desired != Desired::Deleted);
        // Its rows would be of several settings, and it is there to show those of one.
        let found = found.filter(|record| record.resolved.replay.is_none());
        let Some(record) = found else { return Ok(()) };
        let (spec, what) = (record.spec.clone(), format!("{name}@{DEV}"));
        tried = revise(app, record.clone(), spec.clone(), (Begin::Keep, what.clone())).await.map(drop);
        match &tried {
            Err(problem) if problem.code == ErrorCode::RevisionConflict => {}
            Err(problem) if problem.status == 422 => {
                let reason = Reason::new(ReasonCode::PluginIncompatible, format!("{what}: {}", problem.detail));
                let (based_on, resolved) = (record.revision, record.resolved);
                let refused = Some(reason);
                return put(app, id, NewRevision { based_on, spec, resolved, begin: Begin::Keep, what, refused })
                    .await
                    .map(drop);
            }
            _ => return tried,
        }
    }
    tried
}

/// The revision that a change is for; `*` stands for `current`.
fn if_match(headers: &HeaderMap, current: i64) -> Result<i64, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else {
        let detail = format!("a change needs the header `If-Match: \"{current}\"`, with the revision that it is for");
        return Err(Problem::new(ErrorCode::PreconditionRequired, detail).field("If-Match"));
    };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(current);
    }
    let number = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).and_then(|digits| digits.parse().ok());
    number.ok_or_else(|| {
        let detail = format!("`If-Match` is no revision; this scenario's is now \"{current}\"");
        Problem::parameter("If-Match", detail).expected("the revision in quotes, such as \"3\"")
    })
}

fn conflict(id: ScenarioId, current: i64) -> Problem {
    let detail = format!(
        "scenario {id} has revision {current} by now; read it again, and send the change with `If-Match: \"{current}\"` if \
         it still makes sense"
    );
    Problem::new(ErrorCode::RevisionConflict, detail).field("If-Match").expected(format!("\"{current}\""))
}

/// An answer whose `ETag` is a revision.
pub(crate) fn with_etag(revision: i64, answer: impl IntoResponse) -> Response {
    let mut response = answer.into_response();
    if let Ok(etag) = HeaderValue::try_from(format!("\"{revision}\"")) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

/// Settings that a scenario had, has or shall have.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RevisionView {
    pub revision: i64,
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    pub state: RevisionState,
    /// Why it was rolled back.
    pub reason: Option<Reason>,
    /// The first frame of it; null: none, or none since it was changed.
    pub from_frame: Option<u64>,
    /// What its hooks began with.
    pub begin: Begin,
    pub spec: ScenarioSpec,
    /// Its hooks with their digests, before the inference and after it.
    pub pre: Vec<ResolvedHook>,
    pub post: Vec<ResolvedHook>,
}

impl From<RevisionEntry> for RevisionView {
    fn from(entry: RevisionEntry) -> Self {
        let RevisionEntry { revision, at, spec, resolved, begin, state, reason, from_frame } = entry;
        Self { revision, at, state, reason, from_frame, begin, spec, pre: resolved.pre, post: resolved.post }
    }
}

/// That of a scenario that was never changed.
impl From<ScenarioRecord> for RevisionView {
    fn from(record: ScenarioRecord) -> Self {
        let ScenarioRecord { revision, created_at: at, spec, resolved, .. } = record;
        let state = if record.generation > 0 { RevisionState::Active } else { RevisionState::Pending };
        let (reason, from_frame, begin) = (None, None, Begin::Keep);
        Self { revision, at, state, reason, from_frame, begin, spec, pre: resolved.pre, post: resolved.post }
    }
}

type RevisionPage = Page<RevisionView>;

/// Every revision of a scenario's settings, oldest first
///
/// The last 1,000 of those that are over are kept. A page may have fewer items than `limit`; only
/// `next_cursor` says whether there are more.
#[utoipa::path(get, path = "/scenario/{id}/revisions", tag = "/scenario", operation_id = "get_revisions",
    params(("id" = ScenarioId, Path), PageParameters),
    responses((status = 200, description = "A page of revisions", body = RevisionPage), AnyProblem))]
pub(crate) async fn list(
    State(app): State<SharedApp>,
    ScenarioPath(id): ScenarioPath,
    Query(PageParameters { cursor, limit }): Query<PageParameters>,
) -> JsonResult<RevisionPage> {
    let limit = page::limit(limit)?;
    let after = page::parse_revision_cursor(cursor.as_deref())?;
    let record = app.store.scenario(id).await?.ok_or_else(|| not_found(id))?;
    let _turn = app.page_turns.acquire().await;
    let limit = Limit { rows: limit, bytes: app.config.limits.page_bytes };
    let Rows { rows, has_more } = app.store.revisions(id, after.unwrap_or_default(), limit).await?;
    let mut items: Vec<_> = rows.into_iter().map(RevisionView::from).collect();
    if items.is_empty() && after.is_none() {
        items.push(record.into());
    }
    let next_cursor = items.last().filter(|_| has_more).map(|last| page::revision_cursor(last.revision));
    Ok(Json(Page { items, next_cursor }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_says_which_revision_it_is_for() {
        let of = |value: &str| {
            let headers = HeaderMap::from_iter([(header::IF_MATCH, value.parse().unwrap())]);
            if_match(&headers, 7).map_err(|problem| problem.code)
        };
        assert_eq!((of("\"3\""), of("*"), of(" \"12\" ")), (Ok(3), Ok(7), Ok(12)));
        for bad in ["", "3", "\"\"", "\"x\"", "W/\"3\"", "\"3\", \"4\""] {
            assert_eq!(of(bad), Err(ErrorCode::InvalidParameter), "{bad}");
        }
        let missing = if_match(&HeaderMap::new(), 7).unwrap_err();
        assert_eq!((missing.status, missing.code), (428, ErrorCode::PreconditionRequired));
        assert!(missing.detail.contains("`If-Match: \"7\"`"), "{}", missing.detail);
        let conflict = conflict(ScenarioId::generate(), 9);
        assert!(conflict.status == 412 && conflict.detail.contains("revision 9"), "{}", conflict.detail);
    }
}
