//! The router, what surrounds every request, and the server's life.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::{DefaultBodyLimit, Request},
    http::{Extensions, HeaderMap, StatusCode, Version, header},
    middleware,
    response::Redirect,
    routing::{MethodRouter, get},
};
use bytes::Bytes;
use framehook_core::error_code::ErrorCode;
use tokio::net::TcpListener;
use tower_http::{
    CompressionLevel,
    compression::{
        CompressionLayer,
        predicate::{NotForContentType, Predicate as _, SizeAbove},
    },
};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::{
    App, SharedApp,
    http::{
        guard::guard,
        host::HostPattern,
        linger::linger,
        listen,
        observe::observe,
        problem::{Problem, shortened},
    },
    resource::{
        artifact, comparison, import, log, operation, prediction, preview, replay, revision, runner, scenario, shadow,
    },
};

/// What a request may still take after `cancel`: an upload is given up, a page is finished.
const GRACE: Duration = Duration::from_secs(5);

/// Where the description of the API is.
const DESCRIPTION: &str = "/openapi.json";

/// Serves until the process is draining: then `/readyz` says no for a while, and running requests may finish
/// for five seconds.
pub async fn serve(app: App, listener: TcpListener) {
    let (lame_duck, limits, draining) = (app.config.lame_duck, app.config.http.clone(), app.draining.clone());
    let after = async |delay: Duration| {
        draining.cancelled().await;
        tokio::time::sleep(delay).await;
    };
    tokio::select! {
        () = listen::serve(listener, router(app), limits, after(lame_duck)) => {}
        () = after(lame_duck + GRACE) => {
            tracing::info!("requests that took longer than {} s after the end were cut off", GRACE.as_secs());
        }
    }
}

/// Marks an answer whose parts the client waits for: none of it is held back to be compressed with what
/// comes next.
#[derive(Clone, Copy)]
pub(crate) struct Flowing;

impl Flowing {
    /// For a response.
    pub(crate) const fn extension() -> Extension<Self> {
        Extension(Self)
    }
}

/// Every route, ready to be served.
pub fn router(app: App) -> Router {
    let (routes, openapi) = documented().split_for_parts();
    let hosts = app.config.http.hosts.clone();
    let routes = routes.layer(DefaultBodyLimit::max(app.config.limits.body_bytes()));
    let page = SwaggerUi::new("/docs").config(Config::new([DESCRIPTION]));
    let routes = routes.with_state(Arc::new(app)).route(DESCRIPTION, description(&openapi)).merge(page);
    let routes = routes.route("/", get(|| async { Redirect::to("/docs/") }));
    // What is smaller fits into one packet, and pictures are compressed already. The least level: a page
    // must not wait for its compression.
    let worthwhile = SizeAbove::new(1024)
        .and(NotForContentType::IMAGES)
        .and(|_: StatusCode, _: Version, _: &HeaderMap, of_answer: &Extensions| of_answer.get::<Flowing>().is_none());
    let compression = CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(worthwhile);
    surround(routes.layer(compression), hosts)
}

/// Written once: to write it for each request would cost more than most requests do.
fn description(openapi: &utoipa::openapi::OpenApi) -> MethodRouter {
    let json = Bytes::from(serde_json::to_vec(openapi).expect("a description is texts, numbers, lists and maps"));
    get(move || async move { ([(header::CONTENT_TYPE, "application/json")], json) })
}

/// What every listener does with every request.
pub(crate) fn surround(routes: Router, hosts: Vec<HostPattern>) -> Router {
    routes
        .fallback(route_not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::from(hosts), guard))
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
    components(schemas(ErrorCode, Problem))
)]
struct Description;

/// A route that is not in here does not exist, so none is without documentation.
fn documented() -> OpenApiRouter<SharedApp> {
    let small = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(scenario::init))
        .routes(routes!(scenario::check))
        .routes(routes!(scenario::list))
        .routes(routes!(scenario::get, scenario::delete, revision::change))
        .routes(routes!(revision::list))
        .routes(routes!(scenario::stop))
        .routes(routes!(scenario::start))
        .routes(routes!(scenario::history))
        .routes(routes!(scenario::delivery))
        .routes(routes!(scenario::plugins))
        .routes(routes!(replay::post))
        .routes(routes!(replay::outputs))
        .routes(routes!(comparison::get))
        .routes(routes!(log::get))
        .routes(routes!(shadow::get))
        .routes(routes!(shadow::promote))
        .routes(routes!(prediction::get))
        .routes(routes!(prediction::export))
        .routes(routes!(import::import))
        .routes(routes!(artifact::plugin::get, artifact::plugin::delete))
        .routes(routes!(artifact::model::get, artifact::model::delete))
        .routes(routes!(preview::get))
        .routes(routes!(artifact::video::get, artifact::video::delete))
        .routes(routes!(runner::list))
        .routes(routes!(runner::get))
        .routes(routes!(operation::healthz))
        .routes(routes!(operation::readyz))
        .routes(routes!(operation::metrics));
    // An upload has a cap of its own, by kind.
    let uploads = OpenApiRouter::default()
        .routes(routes!(artifact::plugin::upload, artifact::plugin::list))
        .routes(routes!(artifact::model::upload, artifact::model::list))
        .routes(routes!(artifact::video::upload, artifact::video::list))
        .layer(DefaultBodyLimit::disable());
    small.merge(uploads)
}

async fn route_not_found(request: Request) -> Problem {
    let path = shortened(request.uri().path());
    Problem::new(ErrorCode::RouteNotFound, format!("there is no route `{path}`; every route is listed at /docs"))
}

async fn method_not_allowed(request: Request) -> Problem {
    let (method, path) = (shortened(request.method().as_str()), shortened(request.uri().path()));
    let detail = format!("`{path}` does not take {method}; the `Allow` header lists what it takes");
    Problem::new(ErrorCode::MethodNotAllowed, detail)
}
