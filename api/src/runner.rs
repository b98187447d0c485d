//! `/runner`: the hosts of workers.

use axum::{Json, extract::State};
use serde::Deserialize;

use crate::{SharedApp, extract::Query, page::Page, problem::Problem, view::RunnerView};

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
