//! One log line, one count, one span and one number for each request.
//!
//! Invariant: nothing that a client invents becomes the name of a series, and of what it sends only a
//! well-formed `X-Request-Id` and the number of a trace come into the log.

use std::{net::IpAddr, time::Instant};

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use framehook_infra::telemetry;
use tracing::{Instrument as _, Span, debug_span, field::Empty, info_span};
use uuid::Uuid;

use crate::{
    http::{listen::Peer, problem::Logged},
    metrics,
};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longer than any tool's own; a UUID has 36.
const MAX_REQUEST_ID: usize = 64;

tokio::task_local! {
    static CURRENT: Current;
}

/// The request that is being answered.
struct Current {
    id: String,
    client: Option<IpAddr>,
}

/// What follows from a request goes on with this.
#[derive(Clone)]
pub(crate) struct Traceparent(pub(crate) String);

/// The number of the request that is being answered.
pub(crate) fn request_id() -> Option<String> {
    CURRENT.try_with(|current| current.id.clone()).ok()
}

/// Where it comes from. A test's comes from nowhere.
pub(crate) fn client() -> Option<IpAddr> {
    CURRENT.try_with(|current| current.client).ok().flatten()
}

/// The middleware.
pub(crate) async fn observe(mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = metrics::method_label(request.method().as_str());
    let route = request.extensions().get::<MatchedPath>().map_or("none".to_owned(), |path| path.as_str().to_owned());
    let id = given_id(request.headers()).unwrap_or_else(|| Uuid::now_v7().to_string());
    let span = span(method, &route, &id);
    let given = request.headers().get(telemetry::TRACEPARENT).and_then(|value| value.to_str().ok());
    let traceparent = telemetry::begin(&span, given);
    request.extensions_mut().insert(Traceparent(traceparent));
    let client = request.extensions().get::<Peer>().map(|peer| peer.address);
    let answer = CURRENT.scope(Current { id: id.clone(), client }, next.run(request));
    let mut response = answer.instrument(span.clone()).await;
    if let Ok(value) = HeaderValue::try_from(id) {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    let (took, status) = (began.elapsed(), response.status().as_u16());
    metrics::global().observe_request(method, &route, status, took);
    let _entered = span.entered();
    // 64 bits, because a number of 128 is a text in JSON.
    let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let problem = response.extensions().get::<Logged>();
    let (code, detail) = (problem.map(|p| p.code.as_str()), problem.and_then(|p| p.detail.as_deref()));
    // What changes something, or fails, is worth a line; polling is not.
    if method == "GET" && status < 400 {
        tracing::debug!(method, route, status, us, "request");
    } else {
        tracing::info!(method, route, status, us, code, detail, "request");
    }
    response
}

/// What the client calls its request, if that can stand in a log as it is.
fn given_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(X_REQUEST_ID)?.to_str().ok()?;
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
    ((1..=MAX_REQUEST_ID).contains(&id.len()) && id.bytes().all(is_plain)).then(|| id.to_owned())
}

/// Polling is not worth a span that is exported either.
fn span(method: &str, route: &str, request_id: &str) -> Span {
    let name = format!("{method} {route}");
    if method == "GET" {
        debug_span!(
            "request",
            otel.name = name,
            otel.kind = "server",
            request_id,
            scenario_id = Empty,
            trace_id = Empty
        )
    } else {
        info_span!("request", otel.name = name, otel.kind = "server", request_id, scenario_id = Empty, trace_id = Empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_short_and_plain_or_ours() {
        let given = |id: &[u8]| given_id(&HeaderMap::from_iter([(X_REQUEST_ID, HeaderValue::from_bytes(id).unwrap())]));
        let longest = "a".repeat(MAX_REQUEST_ID);
        for good in ["0", "A-z_0.9:1", longest.as_str()] {
            assert_eq!(given(good.as_bytes()).as_deref(), Some(good));
        }
        for bad in ["", "a b", "a\tb", "a\"b", "a=b", "\u{e9}", "{a}", &"a".repeat(MAX_REQUEST_ID + 1)] {
            assert_eq!(given(bad.as_bytes()), None, "{bad}");
        }
    }
}
