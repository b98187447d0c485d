//! Reads what is left of a request that was refused early.
//!
//! A client that is still sending when the connection closes sees a broken pipe instead of the answer that
//! tells it why. One that asked first (`Expect: 100-continue`, as curl does for large files) sends nothing
//! after a refusal, so nothing is read from it.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, BodyDataStream},
    extract::Request,
    http::{StatusCode, header},
    middleware::Next,
    response::Response,
};
use futures::{StreamExt, stream};
use parking_lot::Mutex;

/// Sent within a second on any network that one uploads over; a client with more than this left is cut off.
const MAX_BYTES: usize = 16 << 20;
const MAX_TIME: Duration = Duration::from_secs(5);

/// The middleware.
pub(crate) async fn linger(request: Request, next: Next) -> Response {
    if request.headers().contains_key(header::EXPECT) {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let rest = Arc::new(Mutex::new(body.into_data_stream()));
    let handed = Arc::clone(&rest);
    let handed = stream::poll_fn(move |cx| handed.lock().poll_next_unpin(cx));
    let response = next.run(Request::from_parts(parts, Body::from_stream(handed))).await;
    // One that was too slow would be waited for again.
    if response.status().is_client_error() && response.status() != StatusCode::REQUEST_TIMEOUT {
        // Whether all was read or the time was up, the answer is due.
        let _ended = tokio::time::timeout(MAX_TIME, drain(&rest)).await;
    }
    response
}

async fn drain(rest: &Mutex<BodyDataStream>) {
    let mut read = 0;
    while let Some(Ok(chunk)) = stream::poll_fn(|cx| rest.lock().poll_next_unpin(cx)).next().await {
        read += chunk.len();
        if read > MAX_BYTES {
            return;
        }
    }
}
