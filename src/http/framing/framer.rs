//! One connection: lets whole, unambiguous heads through to the HTTP parser, and waits for nobody for ever.
//!
//! The parser behind it sees a head only when it is complete and was found good, then the bytes of its body, and nothing
//! of the next request before it asks for one.
//! So what is refused here is answered like everything else, in the slot of what the parser would say.

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

/// How long the head of a request may take, from the connection or from its first byte.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a body may take, from the end of its head.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may be idle between two requests.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long what a client is still sending is read and dropped before the connection is closed.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
/// How much is read at once of a head, in bytes.
const READ_BYTES: usize = 4 * 1024;

/// A connection between a client and the HTTP parser.
pub(crate) struct RequestFramer<S> {
    inner: S,
    slot_guard: SlotGuard,
    /// What is said to somebody who has no business here, in the slot of what is wrong with the bytes.
    peer_rejection: Option<ApiError>,
    /// What was read and is not passed on.
    buffered: BytesMut,
    stage: Stage,
    scanner: HeadScanner,
    is_first: bool,
    deadline: Option<Pin<Box<Sleep>>>,
    /// Whether the client was told something that it did not wait for, and may still be sending.
    must_linger: bool,
    closing: Closing,
}

/// What comes next from the client.
enum Stage {
    /// A head.
    Head,
    /// The rest of a head that is good.
    ForwardHead { left: usize, framing: Framing },
    /// A body.
    Body(BodyRest),
    /// Nothing that would be listened to.
    Over,
}

/// What is left of a body.
enum BodyRest {
    Length(u64),
    ChunkedBody(ChunkedBody),
}

impl BodyRest {
    /// How many of these bytes belong to the body.
    fn take(&mut self, bytes: &[u8]) -> Result<usize, InvalidChunk> {
        match self {
            Self::ChunkedBody(chunks) => chunks.take(bytes),
            Self::Length(left) => {
                let count = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= count as u64;
                Ok(count)
            }
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Self::ChunkedBody(chunks) => chunks.is_over(),
            Self::Length(left) => *left == 0,
        }
    }
}

/// How far the end of the connection has come.
enum Closing {
    /// Whether there are last bytes.
    Open(Option<Bytes>),
    Writing(Bytes),
    ShuttingDown,
    /// Closing with unread bytes would reset the connection, and the answer would be lost with it.
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

    /// Hears nothing more of the client, and has this to say at the end.
    fn refuse(&mut self, error: ApiError) {
        let error = self.peer_rejection.take().unwrap_or(error);
        tracing::info!(
            status = error.status(),
            reason = error.message(),
            "a request is refused before it was read"
        );
        self.closing = Closing::Open(Some(error.to_wire()));
        self.must_linger = true;
        self.stage = Stage::Over;
    }

    /// Whether the client has had its time, or its slot is needed.
    fn timed_out_or_evicted(&mut self, context: &mut Context<'_>) -> Option<ApiError> {
        if self.slot_guard.slot().is_evicted(context) {
            return Some(ApiError::overloaded("All connections that codexd takes at once are taken."));
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

    /// Reads until the head is whole; the stage says what it is then.
    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deadline.is_none() {
            // Only now the parser asks for the next request, so the answer to the last one is out.
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
                    self.refuse(ApiError::malformed(rule));
                    return Poll::Ready(Ok(()));
                }
                Err(HeadError::TooLarge) => {
                    self.refuse(ApiError::head_too_large());
                    return Poll::Ready(Ok(()));
                }
            }
            if !had_begun && self.scanner.has_begun() && !self.is_first {
                self.deadline = Some(Box::pin(tokio::time::sleep(HEAD_TIMEOUT)));
            }
            if let Some(error) = self.timed_out_or_evicted(context) {
                // Whoever has said nothing has asked nothing.
                if self.scanner.has_begun() {
                    self.refuse(error)
                } else {
                    self.stage = Stage::Over
                }
                return Poll::Ready(Ok(()));
            }
            self.buffered.reserve(READ_BYTES);
            let read = poll_read_buf(Pin::new(&mut self.inner), context, &mut self.buffered);
            if read.is_pending() {
                self.slot_guard.mark_polled();
            }
            if ready!(read)? == 0 {
                self.stage = Stage::Over;
                if self.scanner.has_begun() {
                    self.refuse(ApiError::malformed("it ends before its empty line"));
                }
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Passes on so many bytes of what was read.
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
            Framing::Chunked => self.begin_body(BodyRest::ChunkedBody(ChunkedBody::new())),
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
                self.stage = Stage::Over;
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.buffered.reserve(READ_BYTES);
            if ready!(poll_read_buf(Pin::new(&mut self.inner), context, &mut self.buffered))? == 0 {
                self.stage = Stage::Over;
                return Poll::Ready(Ok(()));
            }
        }
        let Stage::Body(rest) = &mut self.stage else { return Poll::Ready(Ok(())) };
        let part = &self.buffered[..self.buffered.len().min(buffer.remaining())];
        let Ok(count) = rest.take(part) else {
            self.must_linger = true;
            self.stage = Stage::Over;
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        };
        let is_over = rest.is_over();
        self.forward(count, buffer);
        if is_over {
            self.stage = Stage::Head;
            self.slot_guard.mark_busy();
            self.deadline = None;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether a client that is sent an answer without an end has closed its side, and so has left.
    ///
    /// The parser reads nothing while it answers, because the end of a request is not the end of interest in its answer.
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

    /// Ends our side, after the last bytes, and then listens to the other side for a moment.
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
                Stage::Over => return Poll::Ready(Ok(())),
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
