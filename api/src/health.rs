//! `/healthz`, `/readyz` and `/metrics` of a process that does not serve the REST API.

use std::sync::Arc;

use axum::{Json, Router, extract::State, response::Response, routing::get};
use framehook_core::error_code::ErrorCode;
use framehook_infra::{bus::SharedBus, store::Operation};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    http::{
        limits::HttpLimits,
        listen,
        problem::{JsonResult, Problem},
        server::surround,
    },
    resource::operation::{READY_LIMIT, answers, healthz, openmetrics},
};

/// What a process cannot do its work without.
pub struct Needs {
    /// A runner has none.
    pub store: Option<Arc<dyn Operation>>,
    pub bus: SharedBus,
    /// Once it is cancelled, the process is not ready.
    pub draining: CancellationToken,
}

/// Answers until `cancel`.
pub async fn serve(listener: TcpListener, needs: Needs, limits: HttpLimits, cancel: CancellationToken) {
    let routes = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(process_metrics))
        .with_state(Arc::new(needs));
    let router = surround(routes, limits.hosts.clone());
    listen::serve(listener, router, limits, cancel.cancelled_owned()).await;
}

async fn readyz(State(needs): State<Arc<Needs>>) -> JsonResult<Value> {
    let not_ready = |why: String| Problem::new(ErrorCode::Unavailable, why);
    if needs.draining.is_cancelled() {
        return Err(not_ready("this process is stopping".into()));
    }
    let store = async {
        let Some(store) = &needs.store else { return Ok(()) };
        answers("the database", READY_LIMIT, store.ping()).await
    };
    let (store, bus) = tokio::join!(store, answers("the message bus", READY_LIMIT, needs.bus.ping()));
    store.and(bus).map_err(not_ready)?;
    Ok(Json(json!({"status": "ready"})))
}

async fn process_metrics() -> Result<Response, Problem> {
    openmetrics(&Registry::default())
}
