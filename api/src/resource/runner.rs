//! `/runner`: the hosts of workers.

use axum::{Json, extract::State};
use framehook_core::{error_code::ErrorCode, ids::RunnerId};

use crate::{
    SharedApp,
    http::{
        extract::{Query, RunnerPath},
        page::{self, NoParameters, Page, PageParameters},
        problem::{AnyProblem, JsonResult, Problem},
    },
    resource::view::RunnerView,
};

type RunnerPage = Page<RunnerView>;

/// Runners by name, each with its workers as of its last heartbeat
#[utoipa::path(get, path = "/runner", tag = "/runner", operation_id = "list_runners", params(PageParameters),
    responses((status = 200, description = "A page of runners", body = RunnerPage), AnyProblem))]
pub(crate) async fn list(
    State(app): State<SharedApp>,
    Query(PageParameters { cursor, limit }): Query<PageParameters>,
) -> JsonResult<RunnerPage> {
    let limit = page::limit(limit)?;
    let after = page::parse_runner_cursor(cursor.as_deref())?;
    let runners = app.store.runners().await?.into_iter().map(RunnerView::from);
    let mut items: Vec<_> = runners.filter(|runner| after.as_ref().is_none_or(|after| runner.id > *after)).collect();
    items.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(Json(Page::cut(items, limit, |runner| page::runner_cursor(&runner.id))))
}

/// One runner with its workers, as of its last heartbeat
#[utoipa::path(get, path = "/runner/{id}", tag = "/runner", operation_id = "get_runner", params(("id" = RunnerId, Path)),
    responses((status = 200, description = "The runner", body = RunnerView), AnyProblem))]
pub(crate) async fn get(
    State(app): State<SharedApp>,
    RunnerPath(id): RunnerPath,
    _: Query<NoParameters>,
) -> JsonResult<RunnerView> {
    let found = app.store.runner(&id).await?;
    found.map(|runner| Json(runner.into())).ok_or_else(|| {
        let detail = format!("no runner called `{}` was ever heard of; see GET /runner", id.0.escape_debug());
        Problem::new(ErrorCode::RunnerNotFound, detail)
    })
}
