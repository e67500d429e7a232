//! Frames the requests of one connection between the socket and the HTTP parser.
//!
//! [`RequestFramer`] owns the socket, the buffered bytes, the deadline of the current stage and the [`SlotGuard`] of
//! the connection. `server` creates one per connection and passes it to hyper.
//!
//! Invariants: the parser sees a head only when it is complete and unambiguous, then the bytes of its body, and nothing
//! of the next request before the response to this one. So a rejected request gets the JSON error of codexd instead
//! of the parser's response. Every stage has a time limit.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_util::io::poll_read_buf;

use super::chunks::{ChunkedBody, InvalidChunk};
use super::head::{Framing, HeadError, HeadScanner};
use crate::http::error::ApiError;
use crate::http::limits::connections::SlotGuard;

/// How long the head of a request may take, from the start of the connection or from its first byte.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a body may take, from the end of its head.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may be idle between two requests.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long data that a client is still sending is read and discarded before the connection is closed.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
/// How many bytes one read of a head or body takes at most.
const READ_BYTES: usize = 4 * 1024;

/// The byte stream between a client and the HTTP parser.
pub(crate) struct RequestFramer<S> {
    inner: S,
    slot_guard: SlotGuard,
    /// The error for a peer that is not allowed to use codexd; it replaces errors about the request.
    peer_rejection: Option<ApiError>,
    /// Bytes that were read and not yet forwarded.
    buffered: BytesMut,
    stage: Stage,
    scanner: HeadScanner,
    is_first: bool,
    deadline: Option<Pin<Box<Sleep>>>,
    /// Whether the client was sent a response early and may still be sending.
    must_linger: bool,
    closing: Closing,
}

/// What the client sends next.
enum Stage {
    /// A head.
    Head,
    /// The rest of an accepted head.
    ForwardHead { left: usize, framing: Framing },
    /// A body.
    Body(BodyRest),
    /// Nothing more is read.
    Done,
}

/// The unread rest of a body.
enum BodyRest {
    Length(u64),
    Chunked(ChunkedBody),
}

impl BodyRest {
    /// Returns how many of `bytes` belong to the body.
    fn take(&mut self, bytes: &[u8]) -> Result<usize, InvalidChunk> {
        match self {
            Self::Chunked(chunks) => chunks.take(bytes),
            Self::Length(left) => {
                let count = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= count as u64;
                Ok(count)
            }
        }
    }

    fn is_complete(&self) -> bool {
        match self {
            Self::Chunked(chunks) => chunks.is_complete(),
            Self::Length(left) => *left == 0,
        }
    }
}

/// The progress of closing the connection.
enum Closing {
    /// Not closing; the response to send on close, if any.
    Open(Option<Bytes>),
    Writing(Bytes),
    ShuttingDown,
    /// Discards input: closing with unread bytes would reset the connection and lose the response.
    Lingering(Pin<Box<Sleep>>),
    Closed,
}

impl<S: AsyncRead + AsyncWrite + Unpin> RequestFramer<S> {
    pub(crate) fn new(inner: S, slot_guard: SlotGuard, peer_rejection: Option<ApiError>) -> Self {
        Self {
            inner,
            slot_guard,
            peer_rejection,
            buffered: BytesMut::new(),
            stage: Stage::Head,
            scanner: HeadScanner::default(),
            is_first: true,
            deadline: Some(Box::pin(tokio::time::sleep(HEAD_TIMEOUT))),
            must_linger: false,
            closing: Closing::Open(None),
        }
    }

    /// Stops reading and sends `error` on close.
    fn reject(&mut self, error: ApiError) {
        let error = self.peer_rejection.take().unwrap_or(error);
        tracing::info!(
            status = error.status(),
            reason = error.message(),
            "rejected a request before parsing it"
        );
        self.closing = Closing::Open(Some(error.to_raw_response()));
        self.must_linger = true;
        self.stage = Stage::Done;
    }

    /// The error to report when the deadline has passed or the connection was evicted.
    fn timed_out_or_evicted(&mut self, context: &mut Context<'_>) -> Option<ApiError> {
        if self.slot_guard.slot().is_evicted(context) {
            return Some(ApiError::overloaded("All connection slots of codexd are in use."));
        }
        let deadline = self.deadline.as_mut()?;
        if deadline.as_mut().poll(context).is_pending() {
            return None;
        }
        Some(match self.stage {
            Stage::Body(_) => ApiError::too_slow("body", BODY_TIMEOUT),
            _ => ApiError::too_slow("head", HEAD_TIMEOUT),
        })
    }

    /// Reads until the head is complete; sets the stage accordingly.
    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deadline.is_none() {
            // The parser reads the next request only when the previous response has been sent.
            self.slot_guard.mark_idle();
            self.deadline = Some(Box::pin(tokio::time::sleep(IDLE_TIMEOUT)));
        }
        loop {
            let had_begun = self.scanner.has_begun();
            match self.scanner.scan(&self.buffered) {
                Ok(None) => {}
                Ok(Some(head)) => {
                    self.stage = Stage::ForwardHead { left: head.length, framing: head.framing };
                    self.scanner = HeadScanner::default();
                    self.is_first = false;
                    self.slot_guard.mark_busy();
                    self.deadline = None;
                    return Poll::Ready(Ok(()));
                }
                Err(HeadError::Malformed(rule)) => {
                    self.reject(ApiError::malformed(rule));
                    return Poll::Ready(Ok(()));
                }
                Err(HeadError::TooLarge) => {
                    self.reject(ApiError::head_too_large());
                    return Poll::Ready(Ok(()));
                }
            }
            if !had_begun && self.scanner.has_begun() && !self.is_first {
                self.deadline = Some(Box::pin(tokio::time::sleep(HEAD_TIMEOUT)));
            }
            if let Some(error) = self.timed_out_or_evicted(context) {
                // A connection without a request gets no response.
                if self.scanner.has_begun() {
                    self.reject(error)
                } else {
                    self.stage = Stage::Done
                }
                return Poll::Ready(Ok(()));
            }
            self.buffered.reserve(READ_BYTES);
            let read = poll_read_buf(Pin::new(&mut self.inner), context, &mut self.buffered);
            if read.is_pending() {
                self.slot_guard.mark_polled();
            }
            if ready!(read)? == 0 {
                self.stage = Stage::Done;
                if self.scanner.has_begun() {
                    self.reject(ApiError::malformed("it ends before the empty line"));
                }
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Forwards `count` buffered bytes.
    fn forward(&mut self, count: usize, buffer: &mut ReadBuf<'_>) {
        buffer.put_slice(&self.buffered[..count]);
        self.buffered.advance(count);
        if self.buffered.is_empty() {
            // An idle connection keeps no buffer.
            self.buffered = BytesMut::new();
        }
    }

    fn forward_head(&mut self, left: usize, framing: Framing, buffer: &mut ReadBuf<'_>) {
        let count = left.min(buffer.remaining());
        self.forward(count, buffer);
        if count < left {
            self.stage = Stage::ForwardHead { left: left - count, framing };
            return;
        }
        match framing {
            Framing::Length(0) => self.stage = Stage::Head,
            Framing::Length(length) => self.begin_body(BodyRest::Length(length)),
            Framing::Chunked => self.begin_body(BodyRest::Chunked(ChunkedBody::new())),
        }
    }

    fn begin_body(&mut self, rest: BodyRest) {
        self.stage = Stage::Body(rest);
        self.slot_guard.mark_idle();
        self.deadline = Some(Box::pin(tokio::time::sleep(BODY_TIMEOUT)));
    }

    /// Reads more of a body.
    fn poll_body(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.buffered.is_empty() {
            if self.timed_out_or_evicted(context).is_some() {
                self.must_linger = true;
                self.stage = Stage::Done;
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.buffered.reserve(READ_BYTES);
            if ready!(poll_read_buf(Pin::new(&mut self.inner), context, &mut self.buffered))? == 0 {
                self.stage = Stage::Done;
                return Poll::Ready(Ok(()));
            }
        }
        let Stage::Body(rest) = &mut self.stage else { return Poll::Ready(Ok(())) };
        let part = &self.buffered[..self.buffered.len().min(buffer.remaining())];
        let Ok(count) = rest.take(part) else {
            self.must_linger = true;
            self.stage = Stage::Done;
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        };
        let is_complete = rest.is_complete();
        self.forward(count, buffer);
        if is_complete {
            self.stage = Stage::Head;
            self.slot_guard.mark_busy();
            self.deadline = None;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the client of an event stream has closed its side.
    ///
    /// The parser does not read while it responds, because the end of a request does not mean that the client has stopped
    /// reading the response.
    fn client_closed(&mut self, context: &mut Context<'_>) -> bool {
        let mut block = [0; 512];
        while self.buffered.len() < READ_BYTES {
            let mut buffer = ReadBuf::new(&mut block);
            match Pin::new(&mut self.inner).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.buffered.extend_from_slice(buffer.filled());
                }
                Poll::Ready(_) => return true,
                Poll::Pending => return false,
            }
        }
        false
    }

    /// Sends the final response, shuts down our side, and discards input for a moment.
    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.closing {
                Closing::Open(final_response) => {
                    self.closing = Closing::Writing(final_response.take().unwrap_or_default());
                }
                Closing::Writing(bytes) if !bytes.is_empty() => {
                    let count = ready!(Pin::new(&mut self.inner).poll_write(context, bytes))?;
                    bytes.advance(count);
                }
                Closing::Writing(_) => self.closing = Closing::ShuttingDown,
                Closing::ShuttingDown => {
                    ready!(Pin::new(&mut self.inner).poll_shutdown(context))?;
                    let has_more = matches!(self.stage, Stage::Body(_)) || !self.buffered.is_empty();
                    self.closing = match self.must_linger || has_more {
                        true => Closing::Lingering(Box::pin(tokio::time::sleep(LINGER_TIMEOUT))),
                        false => Closing::Closed,
                    };
                }
                Closing::Lingering(timeout) => {
                    self.buffered.clear();
                    self.buffered.reserve(READ_BYTES);
                    let is_out_of_time = timeout.as_mut().poll(context).is_ready();
                    if is_out_of_time || self.slot_guard.slot().is_evicted(context) {
                        self.closing = Closing::Closed;
                        continue;
                    }
                    match ready!(poll_read_buf(Pin::new(&mut self.inner), context, &mut self.buffered)) {
                        Ok(1..) => {}
                        Ok(0) | Err(_) => self.closing = Closing::Closed,
                    }
                }
                Closing::Closed => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for RequestFramer<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if self.slot_guard.slot().is_upgraded() {
            if self.buffered.is_empty() {
                return Pin::new(&mut self.inner).poll_read(context, buffer);
            }
            let count = self.buffered.len().min(buffer.remaining());
            self.forward(count, buffer);
            return Poll::Ready(Ok(()));
        }
        loop {
            match self.stage {
                Stage::Head => ready!(self.poll_head(context))?,
                Stage::ForwardHead { left, framing } => {
                    self.forward_head(left, framing, buffer);
                    return Poll::Ready(Ok(()));
                }
                Stage::Body(_) => return self.poll_body(context, buffer),
                Stage::Done => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for RequestFramer<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.slot_guard.slot().is_streaming() && self.client_closed(context) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.slot_guard.slot().is_upgraded() {
            return Pin::new(&mut self.inner).poll_shutdown(context);
        }
        self.poll_close(context)
    }
}
