//! `/scenario/{id}/shadow`: how a scenario's shadow compares with its own hooks, and taking it in their
//! place.
//!
//! Invariant: a request holds at most the differences that are kept of one scenario, which are bounded.

use axum::{
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use framehook_core::{
    error_code::ErrorCode,
    ids::{Generation, ScenarioId},
    revision::Begin,
    shadow::ShadowSummary,
    spec::{PluginUse, ResolvedHook, ScenarioSpec},
};
use framehook_infra::store::{DifferenceEntry, StoredSummary};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    SharedApp,
    http::{
        extract::{BY_ACCEPT, NDJSON, Query, ScenarioPath, check_takes_json, wants_ndjson},
        page::{self, Page},
        problem::{AnyProblem, Problem},
    },
    resource::{
        log::lines,
        revision::{ChangeParameters, based_on, revise, with_etag},
        scenario::not_found,
        view::ScenarioView,
    },
};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Parameters {
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// 1 to 1000; without it a page has 100, and a stream all.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// How a scenario's shadow compares with its own hooks.
#[derive(Serialize, ToSchema)]
pub(crate) struct ShadowView {
    /// Null: nothing is known of a shadow.
    summary: Option<SummaryView>,
    /// Frames on which they differ, in the order in which they were found.
    items: Vec<DifferenceEntry>,
    /// Give it back as `cursor` for the next page; null: this was the last.
    next_cursor: Option<String>,
}

/// What is known of the current or last deployment.
#[derive(Serialize, ToSchema)]
#[schema(as = ShadowSummaryView)]
pub(crate) struct SummaryView {
    #[schema(value_type = i64)]
    generation: Generation,
    #[serde(flatten)]
    summary: ShadowSummary,
    /// Frames that differ and are counted, but are not among the items, because only the newest are kept.
    left_out: u64,
}

impl From<StoredSummary> for SummaryView {
    fn from(StoredSummary { generation, kept, summary }: StoredSummary) -> Self {
        let left_out = summary.counts.comparison.different.saturating_sub(kept);
        Self { generation, summary, left_out }
    }
}

/// How a scenario's shadow compares with its own hooks
///
/// `summary` counts frames and what differs on them, by kind. `items` are the frames on which something
/// differs: `before` and `missing` are what the scenario's own hooks said, `after` and `added` what the
/// shadow said. Boxes are matched where they overlap by half or more (intersection over union), those with
/// equal labels first. Tracks' numbers are not compared, and of events only their kind and phase.
///
/// A shadow has a thread of its own and never holds up the scenario: frames that come while it is busy are
/// `not_compared`. Findings are published once a second. Of each scenario the newest 1,000 differences are
/// kept, at most 1 MiB of them and 4 KiB of each; counts are whole. What a runner had not published when it
/// died is missing.
///
/// With `Accept: application/x-ndjson` the answer is the items, one JSON object a line.
#[utoipa::path(get, path = "/scenario/{id}/shadow", tag = "/scenario", operation_id = "get_shadow",
    params(("id" = ScenarioId, Path), Parameters),
    responses((status = 200, description = "The summary and a page of differences", body = ShadowView), AnyProblem))]
pub(crate) async fn get(
    State(app): State<SharedApp>,
    ScenarioPath(id): ScenarioPath,
    Query(Parameters { cursor, limit }): Query<Parameters>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let as_lines = wants_ndjson(&headers);
    if !as_lines {
        check_takes_json(&headers)?;
    }
    let after = page::parse_shadow_cursor(cursor.as_deref())?.unwrap_or_default();
    let of_page = page::limit(limit)?;
    let found = {
        let _turn = app.page_turns.acquire().await;
        app.store.shadow(id, after).await?.ok_or_else(|| not_found(id))?
    };
    let differences = found.differences;
    if as_lines {
        let wanted = limit.map_or(differences.len(), |limit| differences.len().min(limit as usize));
        return Ok((BY_ACCEPT, NDJSON, lines(&differences[..wanted])?).into_response());
    }
    let Page { items, next_cursor } = Page::cut(differences, of_page, |last| page::shadow_cursor(last.sequence));
    let view = ShadowView { summary: found.summary.map(Into::into), items, next_cursor };
    Ok((BY_ACCEPT, axum::Json(view)).into_response())
}

/// Make the shadow's hooks the scenario's own
///
/// The next revision of the scenario has the hooks of its shadow as `plugins.post`, in the versions that were
/// compared, and no shadow. The worker that runs takes them over as it does any change
/// (`PATCH /scenario/{id}`), and goes back by itself if they fail.
#[utoipa::path(post, path = "/scenario/{id}/shadow/promote", tag = "/scenario", operation_id = "promote_shadow",
    params(("id" = ScenarioId, Path), ChangeParameters,
        ("If-Match" = String, Header, description = "The revision that the change is for, in quotes: the scenario's `ETag`",
            pattern = "^\"[0-9]{1,18}\"$")),
    responses(
        (status = 200, description = "The scenario, with its new revision", body = ScenarioView,
            headers(("ETag" = String, description = "Its revision, in quotes"))),
        AnyProblem))]
pub(crate) async fn promote(
    State(app): State<SharedApp>,
    ScenarioPath(id): ScenarioPath,
    Query(ChangeParameters { state }): Query<ChangeParameters>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let record = based_on(&app, id, &headers).await?;
    if record.resolved.shadow.is_empty() {
        let detail = format!("scenario {id} has no shadow; post one with `shadow` in its specification");
        return Err(Problem::new(ErrorCode::NotChangeable, detail).field("shadow"));
    }
    let mut spec = ScenarioSpec { shadow: None, ..record.spec.clone() };
    spec.plugins.post = record.resolved.shadow.iter().map(as_used).collect();
    let begin = state.unwrap_or(Begin::Keep);
    let record = revise(&app, record, spec, (begin, "the shadow took the place of plugins.post".to_owned())).await?;
    Ok(with_etag(record.revision, axum::Json(ScenarioView::from(record))))
}

/// In the version that it was resolved to, so that no later upload takes its place.
fn as_used(ResolvedHook { identity, config }: &ResolvedHook) -> PluginUse {
    PluginUse { plugin: identity.reference(), config: config.clone() }
}
