//! Between a request's body and `multer`, which reads all that there is into memory each time it is asked for
//! something.
//!
//! Invariants: it gets one chunk at a time, so that a client cannot send faster than its file is written; and
//! what is no content of a field (what stands before the first boundary, boundaries, headers) has an end.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use axum::{BoxError, body::BodyDataStream};
use bytes::Bytes;
use futures::{Stream, StreamExt};

/// A hundred times what a browser sends around a field.
const MAX_FRAMING: usize = 32 << 10;

#[derive(Debug, thiserror::Error)]
#[error("{MAX_FRAMING} bytes hold no field and no content of one")]
struct EndlessFraming;

/// The body as `multer` may have it.
pub(crate) struct InDoses {
    body: BodyDataStream,
    unused: Arc<AtomicUsize>,
    had_its_chunk: bool,
}

/// To be told when a field, or content of one, came out.
pub(crate) struct Progress(Arc<AtomicUsize>);

impl Progress {
    pub(crate) fn made(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

impl InDoses {
    pub(crate) fn new(body: BodyDataStream) -> (Self, Progress) {
        let unused = Arc::new(AtomicUsize::new(0));
        (Self { body, unused: Arc::clone(&unused), had_its_chunk: false }, Progress(unused))
    }
}

impl Stream for InDoses {
    type Item = Result<Bytes, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.had_its_chunk) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.unused.load(Ordering::Relaxed) > MAX_FRAMING {
            return Poll::Ready(Some(Err(EndlessFraming.into())));
        }
        let chunk = ready!(self.body.poll_next_unpin(cx));
        if let Some(Ok(bytes)) = &chunk {
            self.unused.fetch_add(bytes.len(), Ordering::Relaxed);
            self.had_its_chunk = true;
        }
        Poll::Ready(chunk.map(|chunk| chunk.map_err(Into::into)))
    }
}
