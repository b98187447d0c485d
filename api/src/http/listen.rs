//! The accept loop: HTTP/1.1 on a listener, within limits of connections and of time.
//!
//! Invariants: nothing that a peer sends, or does not send, keeps a connection, a descriptor or memory for
//! longer than the limits say; the loop goes on whatever `accept` answers. There is no HTTP/2, as there was
//! none before: it would bring streams to count within connections, and nothing here is waiting for it.

use std::{
    convert::Infallible,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use axum::{Router, body::Body, extract::Request, response::Response};
use bytes::Bytes;
use framehook_core::error_code::ErrorCode;
use futures::FutureExt as _;
use hyper::{
    body::{Body as HttpBody, Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt::set_socket_send_buffer_size;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Sleep, interval, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service;
use tracing::{debug, warn};

use crate::{
    http::{
        connection::{Connections, Meter, Pace, Place},
        limits::HttpLimits,
        problem::Problem,
    },
    metrics,
};

/// How often a connection's deadlines are looked at: none needs to be kept more exactly.
const TICK: Duration = Duration::from_secs(1);
/// Connections that made room for others and are not quite gone: they have descriptors, too.
const BEING_CLOSED: usize = 8;
/// Descriptors or memory have run out; another connection closes about that often.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Cookies of a whole intranet fit; a longer head is refused with 431.
const MAX_HEAD: usize = 32 << 10;
/// In each direction. With the most connections that is 64 MiB.
const MAX_BUFFER: usize = 128 << 10;

/// The kernel's, for what a peer has not read, which else grows to megabytes: on a connection with 50 ms to
/// and fro this is still 5 MB a second (the kernel doubles it). With the most connections that is 128 MiB.
const SEND_BUFFER: usize = 128 << 10;

/// What is known of a request's connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    /// The address that it called.
    pub(crate) local: IpAddr,
}

/// A request's body came slower than the least rate.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("less than {least} bytes came within {} s", .window.as_secs())]
pub(crate) struct TooSlow {
    least: u64,
    window: Duration,
}

/// Serves `router` until `stop`; then no more is accepted, and what runs is finished.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: HttpLimits,
    stop: impl Future<Output = ()> + Send,
) {
    let mut stop = std::pin::pin!(stop);
    // Those that are accepted have it from the listener.
    if let Err(error) = set_socket_send_buffer_size(&listener, SEND_BUFFER) {
        warn!("connections have the system's send buffers: {error}");
    }
    let connections = Connections::new(&limits);
    let (limits, closing, running) = (Arc::new(limits), CancellationToken::new(), TaskTracker::new());
    let open = Arc::new(Semaphore::new(limits.connections.saturating_add(BEING_CLOSED).min(Semaphore::MAX_PERMITS)));
    let mut starved = false;
    loop {
        let accept = async { (Arc::clone(&open).acquire_owned().await, listener.accept().await) };
        let (permit, accepted) = tokio::select! {
            accepted = accept => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((stream, address)) => {
                starved = false;
                match connections.admit(address.ip()) {
                    Some(place) => {
                        let serving =
                            connection(stream, address, place, router.clone(), limits.clone(), closing.clone());
                        running.spawn(serving.map(|()| drop(permit)));
                    }
                    None => refuse(stream),
                }
            }
            // It was gone before it was accepted.
            Err(error) if is_of_the_peer(&error) => {}
            Err(error) => {
                if !std::mem::replace(&mut starved, true) {
                    warn!("cannot accept connections: {error}; closing those that do nothing");
                }
                connections.close_slowest();
                tokio::select! {
                    () = sleep(ACCEPT_PAUSE) => {}
                    () = &mut stop => break,
                }
            }
        }
    }
    drop(listener);
    closing.cancel();
    running.close();
    running.wait().await;
}

fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset)
}

async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    place: Place,
    router: Router,
    limits: Arc<HttpLimits>,
    closing: CancellationToken,
) {
    let Ok(local) = stream.local_addr() else { return };
    let peer = Peer { address: address.ip().to_canonical(), local: local.ip().to_canonical() };
    let io = TokioIo::new(Metered { stream, meter: Arc::clone(&place.meter) });
    let (meter, connections, of_bodies) =
        (Arc::clone(&place.meter), Arc::clone(&place.connections), Arc::clone(&limits));
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        meter.began();
        let (meter, connections) = (Arc::clone(&meter), Arc::clone(&connections));
        let (limits, mut router) = (Arc::clone(&of_bodies), router.clone());
        async move {
            let mut request: Request = request.map(|body| Body::new(Paced::new(body, &limits, Arc::clone(&meter))));
            request.extensions_mut().insert(peer);
            let response: Response = router.call(request).await?;
            connections.answers(&meter, response.body().size_hint().lower());
            Ok::<_, Infallible>(response.map(|body| Answer { body, meter }))
        }
    });
    let mut http = http1::Builder::new();
    // The phases have limits of their own (`Meter::is_overdue`), where hyper has one for idle time and
    // head together.
    http.timer(TokioTimer::new()).header_read_timeout(None);
    http.max_header_size(MAX_HEAD).max_buf_size(MAX_BUFFER);
    let mut served = std::pin::pin!(http.serve_connection(io, service));
    let mut ticks = interval(TICK);
    let mut is_closing = false;
    loop {
        tokio::select! {
            ended = served.as_mut() => {
                if let Err(error) = ended {
                    debug!("a connection ended early: {error}");
                }
                return;
            }
            () = place.closes.cancelled() => return,
            () = closing.cancelled(), if !is_closing => {
                is_closing = true;
                served.as_mut().graceful_shutdown();
            }
            _ = ticks.tick() => {
                if place.meter.is_overdue(&limits) || (is_closing && place.meter.is_idle()) {
                    return;
                }
            }
        }
    }
}

/// Says why, as far as that is possible without waiting for anybody.
fn refuse(stream: TcpStream) {
    metrics::global().connections_refused.inc();
    let problem = Problem::new(
        ErrorCode::TooManyConnections,
        "as many connections as the settings `max_connections` and `max_connections_per_peer` allow are in use; \
         retry in a moment",
    );
    // Its members are all text and numbers.
    let body = serde_json::to_string(&problem).unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    if let Ok(mut stream) = stream.into_std() {
        // What is unread when a connection closes resets it, and the answer may be lost with it.
        let _unread = stream.read(&mut [0; 4096]);
        stream.write_all(answer.as_bytes()).ok();
        stream.shutdown(std::net::Shutdown::Write).ok();
    }
}

/// Tells the meter what moves.
struct Metered {
    stream: TcpStream,
    meter: Arc<Meter>,
}

impl Metered {
    fn note_write(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(bytes)) => self.meter.wrote(*bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.meter.write_stalls(),
        }
        written
    }
}

impl AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        let bytes = buffer.filled().len() - before;
        if bytes > 0 {
            self.meter.read(bytes);
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note_write(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.note_write(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A request's body, which must keep the least rate. The time in which nobody asks for more of it does not
/// count.
struct Paced {
    body: Incoming,
    meter: Arc<Meter>,
    pace: Pace,
    least: u64,
    window: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    fn new(body: Incoming, limits: &HttpLimits, meter: Arc<Meter>) -> Self {
        let window = limits.rate_window;
        let least = u64::from(limits.least_rate) * window.as_secs().max(1);
        Self { body, meter, pace: Pace::default(), least, window, deadline: None }
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let now = Instant::now();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Poll::Ready(frame) = polled {
            let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref().map(Bytes::len));
            this.pace.moved(now, bytes.unwrap_or_default());
            if this.pace.bytes >= this.least {
                this.pace = Pace::default();
            }
            this.meter.body(this.pace);
            this.deadline = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        this.pace.wait(now);
        this.meter.body(this.pace);
        let left = this.window.saturating_sub(this.pace.waited(now));
        let deadline = this.deadline.get_or_insert_with(|| Box::pin(sleep(left)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Some(Err(TooSlow { least: this.least, window: this.window }.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body. It is dropped when it is written, or cannot be.
struct Answer {
    body: Body,
    meter: Arc<Meter>,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.meter.answered();
    }
}
