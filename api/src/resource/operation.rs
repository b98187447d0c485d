//! `/healthz`, `/readyz`, `/metrics`: for those who operate the service.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use framehook_core::{error_code::ErrorCode, state::ScenarioState, topic::Topic};
use framehook_infra::{metrics::added, store::StoreError};
use prometheus_client::{
    metrics::{family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    App, SharedApp,
    http::problem::{AnyProblem, JsonResult, Problem},
    metrics,
};

/// A probe waits about this long.
pub(crate) const READY_LIMIT: Duration = Duration::from_secs(2);
/// Balancers give up a probe after a second, and must not do so for a bus that requests do not need.
const BUS_LIMIT: Duration = Duration::from_millis(500);

#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    status: &'static str,
    version: &'static str,
}

/// The process is up
#[utoipa::path(get, path = "/healthz", tag = "operation", responses((status = 200, description = "It is up", body = Health)))]
pub(crate) async fn healthz() -> Json<Health> {
    Json(Health { status: "ok", version: env!("CARGO_PKG_VERSION") })
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Readiness {
    status: &'static str,
    /// Runners that are heard of; without one, scenarios wait.
    runners_alive: usize,
    /// Why the message bus does not answer. Requests are served all the same; what was posted is passed on
    /// later.
    #[serde(skip_serializing_if = "Option::is_none")]
    bus: Option<String>,
    /// Why nothing is taken in. Everything else is served, above all what makes room.
    #[serde(skip_serializing_if = "Option::is_none")]
    disk: Option<String>,
}

/// Requests can be served: the database answers
#[utoipa::path(get, path = "/readyz", tag = "operation",
    responses(
        (status = 200, description = "Ready", body = Readiness),
        (status = 503, description = "Not ready", body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn readyz(State(app): State<SharedApp>) -> JsonResult<Readiness> {
    if app.draining.is_cancelled() {
        return Err(Problem::new(ErrorCode::Unavailable, "this instance is stopping; ask another"));
    }
    let store = answers("the database", READY_LIMIT, async {
        let disk = match app.store.ping().await {
            Err(StoreError::Short(shortage)) => Some(shortage.to_string()),
            Err(StoreError::Full(_)) => {
                Some("the disk of the database is full: delete something, or make room".to_owned())
            }
            outcome => outcome.map(|()| None)?,
        };
        Ok::<_, StoreError>((app.store.runners().await?, disk))
    });
    let (store, bus) = tokio::join!(store, answers("the message bus", BUS_LIMIT, app.bus.ping()));
    let (runners, disk) =
        store.map_err(|why| Problem::new(ErrorCode::Unavailable, format!("{why}; retry in a moment")))?;
    let runners_alive = runners.iter().filter(|runner| runner.is_alive()).count();
    Ok(Json(Readiness { status: "ready", runners_alive, bus: bus.err(), disk }))
}

/// What a server says to a probe within this time; in words, if it does not. Its own words stay in the log:
/// they may hold addresses and names that are nobody else's business.
pub(crate) async fn answers<T, E: std::fmt::Display>(
    who: &str,
    limit: Duration,
    probe: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match tokio::time::timeout(limit, probe).await {
        Ok(answer) => answer.map_err(|error| {
            tracing::warn!("{who}: {error}");
            format!("{who} is not available; this service's log says why")
        }),
        Err(_) => Err(format!("{who} does not answer within {} ms", limit.as_millis())),
    }
}

/// Metrics for Prometheus
#[utoipa::path(get, path = "/metrics", tag = "operation",
    responses(
        (status = 200, description = "The metrics", body = String, content_type = "application/openmetrics-text"),
        AnyProblem))]
pub(crate) async fn metrics(State(app): State<SharedApp>) -> Result<Response, Problem> {
    openmetrics(&gauges(&app).await?)
}

/// The metrics of this process and those that were looked up for this answer, as Prometheus reads them.
pub(crate) fn openmetrics(now: &Registry) -> Result<Response, Problem> {
    let text = framehook_infra::metrics::encode(now).map_err(Problem::internal)?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// What the store and the bus know now.
async fn gauges(app: &App) -> Result<Registry, Problem> {
    let mut registry = framehook_infra::metrics::registry();

    let help = "Scenarios that are not at rest, by state";
    let scenarios = added(&mut registry, "scenarios", help, Family::<_, Gauge>::default());
    for state in ScenarioState::ALL.iter().filter(|s| !s.is_ended()) {
        scenarios.get_or_create(&[("state", state.as_str())]).set(0);
    }
    let counts = app.store.counts().await?;
    for (state, count) in counts.unsettled {
        scenarios.get_or_create(&[("state", state.as_str())]).set(count);
    }

    let help = "Runners by whether they are heard of";
    let runners = added(&mut registry, "runners", help, Family::<_, Gauge>::default());
    for state in ["alive", "lost"] {
        runners.get_or_create(&[("state", state)]).set(0);
    }
    for runner in app.store.runners().await? {
        let state = if runner.is_alive() { "alive" } else { "lost" };
        runners.get_or_create(&[("state", state)]).inc();
    }

    let size: Gauge = added(&mut registry, "outbox_messages", "Messages not yet published", Gauge::default());
    size.set(i64::try_from(counts.outbox.messages).unwrap_or(i64::MAX));
    let age: Gauge<f64, std::sync::atomic::AtomicU64> = Gauge::default();
    age.set(Duration::from_millis(counts.outbox.oldest_age_ms.unwrap_or_default()).as_secs_f64());
    registry.register_with_unit("outbox_oldest_age", "Age of the oldest of them", Unit::Seconds, age);

    let lag =
        added(&mut registry, "inbox_lag", "Records of topic results not yet stored", Family::<_, Gauge>::default());
    for (partition, next) in metrics::global().inbox_positions() {
        // A bus that is away has no lag to show, and whoever scrapes does not wait for it.
        let end = answers("the message bus", BUS_LIMIT, app.bus.end_offset(Topic::Results, partition));
        let Ok(end) = end.await else { break };
        lag.get_or_create(&[("partition", partition)]).set((end - next).max(0));
    }
    Ok(registry)
}
