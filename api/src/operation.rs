//! `/healthz`, `/readyz`, `/metrics`: for those who operate the service.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use framehook_core::{error_code::ErrorCode, message::Topic, state::ScenarioState};
use jiff::Timestamp;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{App, SharedApp, metrics, problem::Problem};

/// A probe of a load balancer waits about this long.
pub(crate) const READY_LIMIT: Duration = Duration::from_secs(2);
/// Messages counted in the outbox; more are "that many".
const OUTBOX_LIMIT: u32 = 1000;

#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    status: &'static str,
    version: &'static str,
}

/// The process is up
#[utoipa::path(get, path = "/healthz", tag = "operation", responses((status = 200, body = Health)))]
pub(crate) async fn healthz() -> Json<Health> {
    Json(Health { status: "ok", version: env!("CARGO_PKG_VERSION") })
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Readiness {
    status: &'static str,
    /// Runners that are heard of; without one, scenarios wait.
    runners_alive: usize,
}

/// Requests can be served: the store and the bus answer
#[utoipa::path(get, path = "/readyz", tag = "operation",
    responses(
        (status = 200, body = Readiness),
        (status = 503, description = "Not ready", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn readyz(State(app): State<SharedApp>) -> Result<Json<Readiness>, Problem> {
    if app.draining.is_cancelled() {
        return Err(Problem::new(ErrorCode::Unavailable, "this instance is stopping; ask another"));
    }
    let check = async {
        app.store.ping().await?;
        let bus = app.bus.ping().await;
        bus.map_err(|e| Problem::new(ErrorCode::Unavailable, format!("{e}; retry in a moment")))?;
        app.store.runners().await.map_err(Problem::from)
    };
    let late = || Problem::new(ErrorCode::Unavailable, format!("no answer within {} s", READY_LIMIT.as_secs()));
    let runners = tokio::time::timeout(READY_LIMIT, check).await.map_err(|_| late())??;
    let now = Timestamp::now();
    let runners_alive = runners.iter().filter(|r| !r.lost && r.expires_at > now).count();
    Ok(Json(Readiness { status: "ready", runners_alive }))
}

/// Metrics for Prometheus
#[utoipa::path(get, path = "/metrics", tag = "operation",
    responses(
        (status = 200, body = String, content_type = "application/openmetrics-text"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn metrics(State(app): State<SharedApp>) -> Result<Response, Problem> {
    let gauges = gauges(&app).await?;
    let text = metrics::global().encode(&gauges).map_err(Problem::internal)?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionLabel {
    partition: i32,
}

/// What the store and the bus know now.
async fn gauges(app: &App) -> Result<Registry, Problem> {
    let mut registry = Registry::with_prefix("framehook");

    let scenarios = Family::<StateLabel, Gauge>::default();
    for state in ScenarioState::ALL.iter().filter(|s| !s.is_ended()) {
        scenarios.get_or_create(&StateLabel { state: state.as_str() }).set(0);
    }
    for scenario in app.store.snapshot().await?.scenarios {
        scenarios.get_or_create(&StateLabel { state: scenario.state.as_str() }).inc();
    }
    registry.register("scenarios", "Scenarios that are not at rest, by state", scenarios);

    let runners = Family::<StateLabel, Gauge>::default();
    let now = Timestamp::now();
    for state in ["alive", "lost"] {
        runners.get_or_create(&StateLabel { state }).set(0);
    }
    for runner in app.store.runners().await? {
        let state = if !runner.lost && runner.expires_at > now { "alive" } else { "lost" };
        runners.get_or_create(&StateLabel { state }).inc();
    }
    registry.register("runners", "Runners by whether they are heard of", runners);

    let outbox = app.store.outbox(OUTBOX_LIMIT).await?;
    let size: Gauge = Gauge::default();
    size.set(i64::try_from(outbox.len()).unwrap_or(i64::MAX));
    registry.register("outbox_messages", "Messages not yet published, at most 1000", size);
    let age: Gauge<f64, std::sync::atomic::AtomicU64> = Gauge::default();
    age.set(outbox.first().map_or(0.0, |m| now.duration_since(m.time).as_secs_f64().max(0.0)));
    registry.register_with_unit("outbox_oldest_age", "Age of the oldest of them", Unit::Seconds, age);

    let lag = Family::<PartitionLabel, Gauge>::default();
    for (partition, next) in metrics::global().inbox_positions() {
        // A partition that the bus cannot tell about has no lag to show.
        if let Ok(end) = app.bus.end_offset(Topic::Results, partition).await {
            lag.get_or_create(&PartitionLabel { partition }).set((end - next).max(0));
        }
    }
    registry.register("inbox_lag", "Records of topic results not yet stored", lag);
    Ok(registry)
}
