//! The body of a request while it is received: its time limit, and what it means for the connection.
//!
//! `server` wraps the body of every request in a [`RequestBody`]; `body` limits its size. Invariant: once the head was
//! received, a body is complete within [`BODY_TIMEOUT`] or fails.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::connections::Slot;

/// How long a body may take, from the end of its head.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A body that is being received.
pub(super) struct RequestBody {
    inner: Incoming,
    slot: Arc<Slot>,
    deadline: Instant,
    timeout: Option<Pin<Box<Sleep>>>,
    is_complete: bool,
}

impl RequestBody {
    /// The body of a request whose head was just received.
    pub(super) fn new(inner: Incoming, slot: Arc<Slot>) -> Self {
        let is_complete = inner.is_end_stream();
        Self { inner, slot, deadline: Instant::now() + BODY_TIMEOUT, timeout: None, is_complete }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.inner).poll_frame(context);
        if polled.is_pending() {
            let deadline = this.deadline;
            let timeout = this.timeout.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            if timeout.as_mut().poll(context).is_ready() {
                return Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::TimedOut).into())));
            }
        }
        if matches!(polled, Poll::Ready(None)) || this.inner.is_end_stream() {
            this.is_complete = true;
            // The socket marked the connection as waiting while it had no more bytes of the body.
            this.slot.mark_busy();
        }
        polled.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if !self.is_complete {
            self.slot.has_unread_input.store(true, Ordering::Relaxed);
        }
    }
}
