//! Logs one line per request when its response has ended.
//!
//! [`Access`] owns the facts of one request; the app creates it, and the response body and the WebSocket task share it.
//! The line is written when the last holder drops it.
//!
//! Invariant: the line has method, path, status and sizes, never a query, a header or a body.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::Method;
use axum::response::Response;
use hyper::body::{Body as _, Frame, SizeHint};

use crate::ids::{SessionId, TurnId};

/// How much of a path is logged, in characters.
const MAX_PATH_CHARS: usize = 200;

/// The number of the newest request since the start of the daemon.
static LAST_REQUEST_NUMBER: AtomicU64 = AtomicU64::new(0);

/// One request. Dropping the last reference logs it.
#[derive(Debug)]
pub(super) struct Access {
    number: u64,
    started_at: Instant,
    method: Method,
    path: String,
    status: AtomicU16,
    bytes: AtomicU64,
    is_truncated: AtomicBool,
    subject: OnceLock<Subject>,
}

/// The number of responses by status class.
#[derive(Debug, Default)]
pub(super) struct ResponseCounts([AtomicU64; CLASSES.len()]);

/// The status classes (RFC 9110, section 15).
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

impl ResponseCounts {
    /// Counts a response.
    pub(super) fn count(&self, response: &Response) {
        let class = usize::from(response.status().as_u16() / 100);
        if let Some(count) = class.checked_sub(1).and_then(|class| self.0.get(class)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The number of responses per class.
    pub(super) fn by_class(&self) -> Vec<(&'static str, u64)> {
        CLASSES.into_iter().zip(self.0.iter().map(|count| count.load(Ordering::Relaxed))).collect()
    }
}

/// The session and turn that a response is about, so that the log connects a request with the events of its turn.
#[derive(Debug, Clone, Default)]
pub(super) struct Subject {
    pub(super) session: Option<SessionId>,
    pub(super) turn: Option<TurnId>,
}

impl Subject {
    /// A session and, if there is one, a turn in it.
    pub(super) fn new(session: &SessionId, turn: Option<&TurnId>) -> Self {
        Self { session: Some(session.clone()), turn: turn.cloned() }
    }

    /// Attaches the subject to a response.
    pub(super) fn attach_to(self, mut response: Response) -> Response {
        response.extensions_mut().insert(self);
        response
    }
}

impl Access {
    /// Starts the record of a request.
    pub(super) fn begin(request: &Request) -> Arc<Self> {
        Arc::new(Self {
            number: LAST_REQUEST_NUMBER.fetch_add(1, Ordering::Relaxed) + 1,
            started_at: Instant::now(),
            method: request.method().clone(),
            path: request.uri().path().chars().take(MAX_PATH_CHARS).collect(),
            status: AtomicU16::new(0),
            bytes: AtomicU64::new(0),
            is_truncated: AtomicBool::new(false),
            subject: OnceLock::new(),
        })
    }

    /// Records the status of the response, and counts the bytes of its body as they are sent.
    pub(super) fn record_response(self: Arc<Self>, mut response: Response) -> Response {
        self.status.store(response.status().as_u16(), Ordering::Relaxed);
        if let Some(subject) = response.extensions_mut().remove::<Subject>() {
            let _ = self.subject.set(subject);
        }
        response.map(|inner| Body::new(CountedBody { inner, access: self, is_complete: false }))
    }

    /// Counts bytes that were sent outside of the response body.
    pub(super) fn count_bytes(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        let subject = self.subject.get();
        tracing::info!(
            request = self.number,
            method = %self.method,
            path = self.path,
            status = self.status.load(Ordering::Relaxed),
            ms = (self.started_at.elapsed().as_secs_f64() * 1e5).round() / 100.0,
            bytes = self.bytes.load(Ordering::Relaxed),
            session = subject.and_then(|subject| subject.session.as_ref().map(SessionId::as_str)),
            turn = subject.and_then(|subject| subject.turn.as_ref().map(TurnId::as_str)),
            cut = self.is_truncated.load(Ordering::Relaxed).then_some(true),
            "answered",
        );
    }
}

/// A response body that counts its bytes.
struct CountedBody {
    inner: Body,
    access: Arc<Access>,
    is_complete: bool,
}

impl hyper::body::Body for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        match &polled {
            Poll::Ready(None) => self.is_complete = true,
            Poll::Ready(Some(Ok(frame))) => {
                self.access.count_bytes(frame.data_ref().map_or(0, Bytes::len));
                self.is_complete = self.inner.is_end_stream();
            }
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for CountedBody {
    fn drop(&mut self) {
        let is_truncated = !self.is_complete && !self.inner.is_end_stream();
        self.access.is_truncated.store(is_truncated, Ordering::Relaxed);
    }
}
