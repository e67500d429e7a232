//! One line in the daemon's log for each request, when its answer is over.
//!
//! It says what was asked and what came of it, never what was said: no query, no header, no body.

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

/// How much of a path is logged, in characters.
const PATH: usize = 200;

/// The number of the newest request of this life.
static NEWEST: AtomicU64 = AtomicU64::new(0);

/// One request; its line is written when the last one who holds it is done.
#[derive(Debug)]
pub(super) struct Access {
    number: u64,
    began: Instant,
    method: Method,
    path: String,
    status: AtomicU16,
    bytes: AtomicU64,
    is_cut: AtomicBool,
    about: OnceLock<About>,
}

/// How many requests were answered, by the first digit of the status.
#[derive(Debug, Default)]
pub(super) struct Answers([AtomicU64; CLASSES.len()]);

/// The classes of statuses (RFC 9110, section 15).
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

impl Answers {
    /// One more.
    pub(super) fn count(&self, answer: &Response) {
        let class = usize::from(answer.status().as_u16() / 100);
        if let Some(count) = class.checked_sub(1).and_then(|class| self.0.get(class)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many there were of each class.
    pub(super) fn by_class(&self) -> Vec<(&'static str, u64)> {
        CLASSES.into_iter().zip(self.0.iter().map(|count| count.load(Ordering::Relaxed))).collect()
    }
}

/// What an answer is about, so that a turn can be followed from its request to its events.
#[derive(Debug, Clone, Default)]
pub(super) struct About {
    pub(super) session: Option<String>,
    pub(super) turn: Option<String>,
}

impl About {
    /// A session and, where there is one, a turn in it.
    pub(super) fn new(session: &str, turn: Option<&str>) -> Self {
        Self { session: Some(session.to_owned()), turn: turn.map(str::to_owned) }
    }

    /// The answer, marked with what it is about.
    pub(super) fn mark(self, mut answer: Response) -> Response {
        answer.extensions_mut().insert(self);
        answer
    }
}

impl Access {
    /// The request begins to be answered now.
    pub(super) fn begin(request: &Request) -> Arc<Self> {
        Arc::new(Self {
            number: NEWEST.fetch_add(1, Ordering::Relaxed) + 1,
            began: Instant::now(),
            method: request.method().clone(),
            path: request.uri().path().chars().take(PATH).collect(),
            status: AtomicU16::new(0),
            bytes: AtomicU64::new(0),
            is_cut: AtomicBool::new(false),
            about: OnceLock::new(),
        })
    }

    /// The answer, which counts what of it goes out.
    pub(super) fn answered(self: Arc<Self>, mut answer: Response) -> Response {
        self.status.store(answer.status().as_u16(), Ordering::Relaxed);
        if let Some(about) = answer.extensions_mut().remove::<About>() {
            let _ = self.about.set(about);
        }
        answer.map(|inner| Body::new(Counted { inner, access: self, is_whole: false }))
    }

    /// So many bytes went out, beside the body of the answer.
    pub(super) fn sent(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        let about = self.about.get();
        tracing::info!(
            request = self.number,
            method = %self.method,
            path = self.path,
            status = self.status.load(Ordering::Relaxed),
            ms = (self.began.elapsed().as_secs_f64() * 1e5).round() / 100.0,
            bytes = self.bytes.load(Ordering::Relaxed),
            session = about.and_then(|about| about.session.as_deref()),
            turn = about.and_then(|about| about.turn.as_deref()),
            cut = self.is_cut.load(Ordering::Relaxed).then_some(true),
            "answered",
        );
    }
}

/// The body of an answer.
struct Counted {
    inner: Body,
    access: Arc<Access>,
    is_whole: bool,
}

impl hyper::body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        match &polled {
            Poll::Ready(None) => self.is_whole = true,
            Poll::Ready(Some(Ok(frame))) => {
                self.access.sent(frame.data_ref().map_or(0, Bytes::len));
                self.is_whole = self.inner.is_end_stream();
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

impl Drop for Counted {
    fn drop(&mut self) {
        let is_cut = !self.is_whole && !self.inner.is_end_stream();
        self.access.is_cut.store(is_cut, Ordering::Relaxed);
    }
}
