//! The router, what surrounds every request, and the server's life.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request},
    http::Method,
    middleware::{self, Next},
    response::Response,
};
use framehook_core::error_code::ErrorCode;
use framehook_infra::{blobs::Blobs, bus::SharedBus, cache::Cache, store::SharedStore, telemetry};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, debug_span, field::Empty, info_span};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};
use utoipa_swagger_ui::SwaggerUi;

use crate::{
    ApiConfig, App, SharedApp, artifact, extract::MAX_BODY, linger::linger, metrics, operation, prediction,
    problem::Problem, runner, scenario,
};

/// What a request may still take after `cancel`: an upload is given up, a page is finished.
const GRACE: Duration = Duration::from_secs(5);

/// Serves until `cancel`: then `/readyz` says no for a while, and running requests may finish for five seconds.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    config: ApiConfig,
    listener: TcpListener,
    store: SharedStore,
    bus: SharedBus,
    blobs: Blobs,
    cache: Option<Cache>,
    cancel: CancellationToken,
) -> std::io::Result<()> {
    let lame_duck = config.lame_duck;
    let after = |delay: Duration| {
        let cancel = cancel.clone();
        async move {
            cancel.cancelled().await;
            tokio::time::sleep(delay).await;
        }
    };
    let app = App::new(config, store, bus, blobs, cache, cancel.clone());
    let server = axum::serve(listener, routes(app)).with_graceful_shutdown(after(lame_duck));
    let grace_over = after(lame_duck + GRACE);
    tokio::select! {
        ended = server => ended,
        () = grace_over => {
            tracing::info!("requests that took longer than {} s after the end were cut off", GRACE.as_secs());
            Ok(())
        }
    }
}

/// Every route, ready to be served.
pub fn router(config: ApiConfig, store: SharedStore, bus: SharedBus, blobs: Blobs, cache: Option<Cache>) -> Router {
    routes(App::new(config, store, bus, blobs, cache, CancellationToken::new()))
}

fn routes(app: App) -> Router {
    let (routes, openapi) = documented().split_for_parts();
    routes
        .with_state(Arc::new(app))
        .merge(SwaggerUi::new("/docs").url("/openapi.json", openapi))
        .fallback(route_not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn(linger))
        .layer(middleware::from_fn(observe))
}

/// The description of the API, as served at `/openapi.json`.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    documented().into_openapi()
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Framehook",
        description = "Videos in, predictions out. Errors are RFC 9457 problems with a stable `code`."
    ),
    components(schemas(ErrorCode))
)]
struct Description;

/// A route that is not in here does not exist, so none is without documentation.
fn documented() -> OpenApiRouter<SharedApp> {
    let small = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(scenario::init))
        .routes(routes!(scenario::check))
        .routes(routes!(scenario::list))
        .routes(routes!(scenario::get, scenario::delete))
        .routes(routes!(scenario::stop))
        .routes(routes!(scenario::start))
        .routes(routes!(scenario::history))
        .routes(routes!(scenario::delivery))
        .routes(routes!(prediction::get))
        .routes(routes!(artifact::plugin::get, artifact::plugin::delete))
        .routes(routes!(artifact::model::get, artifact::model::delete))
        .routes(routes!(artifact::video::get, artifact::video::delete))
        .routes(routes!(runner::list))
        .routes(routes!(runner::get))
        .routes(routes!(operation::healthz))
        .routes(routes!(operation::readyz))
        .routes(routes!(operation::metrics))
        .layer(DefaultBodyLimit::max(MAX_BODY));
    // An upload has a cap of its own, by kind.
    let uploads = OpenApiRouter::default()
        .routes(routes!(artifact::plugin::upload, artifact::plugin::list))
        .routes(routes!(artifact::model::upload, artifact::model::list))
        .routes(routes!(artifact::video::upload, artifact::video::list))
        .layer(DefaultBodyLimit::disable());
    small.merge(uploads)
}

async fn route_not_found(request: Request) -> Problem {
    let path = request.uri().path().escape_debug().to_string();
    Problem::new(ErrorCode::RouteNotFound, format!("there is no route `{path}`; every route is listed at /docs"))
}

async fn method_not_allowed(request: Request) -> Problem {
    let (method, path) = (request.method(), request.uri().path());
    let detail = format!("`{}` does not take {method}; the `Allow` header lists what it takes", path.escape_debug());
    Problem::new(ErrorCode::MethodNotAllowed, detail)
}

/// What follows from a request goes on with this.
#[derive(Clone)]
pub(crate) struct Traceparent(pub(crate) String);

/// One log line, one count and one span a request.
async fn observe(mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("none".to_owned(), |path| path.as_str().to_owned());
    let span = span(&method, &route);
    let given = request.headers().get(telemetry::TRACEPARENT).and_then(|value| value.to_str().ok());
    let traceparent = telemetry::begin(&span, given);
    request.extensions_mut().insert(Traceparent(traceparent));
    let response = next.run(request).instrument(span.clone()).await;
    let (took, status) = (began.elapsed(), response.status().as_u16());
    metrics::global().observe_request(method.as_str(), &route, status, took);
    let _entered = span.entered();
    let (method, us) = (method.as_str(), took.as_micros());
    // What changes something, or fails, is worth a line; polling is not.
    if method == "GET" && status < 400 {
        tracing::debug!(method, route, status, us, "request");
    } else {
        tracing::info!(method, route, status, us, "request");
    }
    response
}

/// Polling is not worth a span that is exported either.
fn span(method: &Method, route: &str) -> Span {
    let name = format!("{method} {route}");
    if method == Method::GET {
        debug_span!("request", otel.name = name, otel.kind = "server", scenario_id = Empty, trace_id = Empty)
    } else {
        info_span!("request", otel.name = name, otel.kind = "server", scenario_id = Empty, trace_id = Empty)
    }
}
