//! `/runner`: the hosts of workers.

use axum::{Json, extract::State};
use framehook_core::{error_code::ErrorCode, ids::RunnerId};
use serde::Deserialize;

use crate::{
    SharedApp,
    extract::{Query, RunnerPath},
    page::Page,
    problem::Problem,
    view::RunnerView,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoParameters {}

/// Every runner with its workers, as of its last heartbeat
#[utoipa::path(get, path = "/runner", tag = "/runner", operation_id = "list_runners",
    responses(
        (status = 200, body = Page<RunnerView>),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn list(
    State(app): State<SharedApp>,
    Query(NoParameters {}): Query<NoParameters>,
) -> Result<Json<Page<RunnerView>>, Problem> {
    let items = app.store.runners().await?.into_iter().map(RunnerView::from).collect();
    Ok(Json(Page { items, next_cursor: None }))
}

/// One runner with its workers, as of its last heartbeat
#[utoipa::path(get, path = "/runner/{id}", tag = "/runner", operation_id = "get_runner", params(("id" = RunnerId, Path)),
    responses(
        (status = 200, body = RunnerView),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn get(State(app): State<SharedApp>, RunnerPath(id): RunnerPath) -> Result<Json<RunnerView>, Problem> {
    let found = app.store.runner(&id).await?;
    found.map(|runner| Json(runner.into())).ok_or_else(|| {
        let detail = format!("no runner called `{}` was ever heard of; see GET /runner", id.0.escape_debug());
        Problem::new(ErrorCode::RunnerNotFound, detail)
    })
}
