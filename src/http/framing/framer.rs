//! One connection: lets whole, unambiguous heads through to the HTTP parser, and waits for nobody for ever.
//!
//! The parser behind it sees a head only when it is complete and was found good, then the bytes of its body, and nothing
//! of the next request before it asks for one.
//! So what is refused here is answered like everything else, in the place of what the parser would say.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_util::io::poll_read_buf;

use super::chunks::{Chunks, NoChunk};
use super::head::{Framing, Refused, Scanner};
use crate::http::error::ApiError;
use crate::http::limits::connections::Ticket;

/// How long the head of a request may take, from the connection or from its first byte.
pub(crate) const HEAD_TIME: Duration = Duration::from_secs(5);
/// How long a body may take, from the end of its head.
pub(crate) const BODY_TIME: Duration = Duration::from_secs(10);
/// How long a connection may be idle between two requests.
const IDLE_TIME: Duration = Duration::from_secs(30);
/// How long what a client is still sending is read and dropped before the connection is closed.
const LINGER: Duration = Duration::from_secs(2);
/// How much is read at once of a head, in bytes.
const BLOCK: usize = 4 * 1024;

/// A connection between a client and the HTTP parser.
pub(crate) struct Conversation<S> {
    inner: S,
    ticket: Ticket,
    /// What is said to somebody who has no business here, in the place of what is wrong with the words.
    stranger: Option<ApiError>,
    /// What was read and is not passed on.
    held: BytesMut,
    stage: Stage,
    scanner: Scanner,
    is_first: bool,
    deadline: Option<Pin<Box<Sleep>>>,
    /// Whether the client was told something that it did not wait for, and may still be sending.
    is_cut_short: bool,
    closing: Closing,
}

/// What comes next from the client.
enum Stage {
    /// A head.
    Head,
    /// The rest of a head that is good.
    Pass { left: usize, framing: Framing },
    /// A body.
    Body(Rest),
    /// Nothing that would be listened to.
    Over,
}

/// What is left of a body.
enum Rest {
    Length(u64),
    Chunks(Chunks),
}

impl Rest {
    /// How many of these bytes belong to the body.
    fn take(&mut self, bytes: &[u8]) -> Result<usize, NoChunk> {
        match self {
            Self::Chunks(chunks) => chunks.take(bytes),
            Self::Length(left) => {
                let count = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= count as u64;
                Ok(count)
            }
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Self::Chunks(chunks) => chunks.is_over(),
            Self::Length(left) => *left == 0,
        }
    }
}

/// How far the end of the connection has come.
enum Closing {
    /// Whether there are last words.
    Open(Option<Bytes>),
    Speaking(Bytes),
    Ending,
    /// Closing with unread bytes would reset the connection, and the answer would be lost with it.
    Lingering(Pin<Box<Sleep>>),
    Closed,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conversation<S> {
    pub(crate) fn new(inner: S, ticket: Ticket, stranger: Option<ApiError>) -> Self {
        Self {
            inner,
            ticket,
            stranger,
            held: BytesMut::new(),
            stage: Stage::Head,
            scanner: Scanner::default(),
            is_first: true,
            deadline: Some(Box::pin(tokio::time::sleep(HEAD_TIME))),
            is_cut_short: false,
            closing: Closing::Open(None),
        }
    }

    /// Hears nothing more of the client, and has this to say at the end.
    fn refuse(&mut self, error: ApiError) {
        let error = self.stranger.take().unwrap_or(error);
        tracing::info!(
            status = error.status(),
            reason = error.message(),
            "a request is refused before it was read"
        );
        self.closing = Closing::Open(Some(error.to_wire()));
        self.is_cut_short = true;
        self.stage = Stage::Over;
    }

    /// Whether the client has had its time, or its place is needed.
    fn is_over_time(&mut self, context: &mut Context<'_>) -> Option<ApiError> {
        if self.ticket.place().is_evicted(context) {
            return Some(ApiError::overloaded("All connections that codexd takes at once are taken."));
        }
        let deadline = self.deadline.as_mut()?;
        if deadline.as_mut().poll(context).is_pending() {
            return None;
        }
        Some(match self.stage {
            Stage::Body(_) => ApiError::too_slow("body", BODY_TIME),
            _ => ApiError::too_slow("head", HEAD_TIME),
        })
    }

    /// Reads until the head is whole; the stage says what it is then.
    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deadline.is_none() {
            // Only now the parser asks for the next request, so the answer to the last one is out.
            self.ticket.waits();
            self.deadline = Some(Box::pin(tokio::time::sleep(IDLE_TIME)));
        }
        loop {
            let had_begun = self.scanner.has_begun();
            match self.scanner.scan(&self.held) {
                Ok(None) => {}
                Ok(Some(head)) => {
                    self.stage = Stage::Pass { left: head.length, framing: head.framing };
                    self.scanner = Scanner::default();
                    self.is_first = false;
                    self.ticket.is_busy();
                    self.deadline = None;
                    return Poll::Ready(Ok(()));
                }
                Err(Refused::Malformed(rule)) => {
                    self.refuse(ApiError::malformed(rule));
                    return Poll::Ready(Ok(()));
                }
                Err(Refused::TooLarge) => {
                    self.refuse(ApiError::head_too_large());
                    return Poll::Ready(Ok(()));
                }
            }
            if !had_begun && self.scanner.has_begun() && !self.is_first {
                self.deadline = Some(Box::pin(tokio::time::sleep(HEAD_TIME)));
            }
            if let Some(error) = self.is_over_time(context) {
                // Whoever has said nothing has asked nothing.
                if self.scanner.has_begun() {
                    self.refuse(error)
                } else {
                    self.stage = Stage::Over
                }
                return Poll::Ready(Ok(()));
            }
            self.held.reserve(BLOCK);
            let read = poll_read_buf(Pin::new(&mut self.inner), context, &mut self.held);
            if read.is_pending() {
                self.ticket.has_looked();
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
    fn hand_over(&mut self, count: usize, buffer: &mut ReadBuf<'_>) {
        buffer.put_slice(&self.held[..count]);
        self.held.advance(count);
        if self.held.is_empty() {
            // An idle connection keeps no buffer.
            self.held = BytesMut::new();
        }
    }

    fn pass(&mut self, left: usize, framing: Framing, buffer: &mut ReadBuf<'_>) {
        let count = left.min(buffer.remaining());
        self.hand_over(count, buffer);
        if count < left {
            self.stage = Stage::Pass { left: left - count, framing };
            return;
        }
        match framing {
            Framing::Length(0) => self.stage = Stage::Head,
            Framing::Length(length) => self.begin_body(Rest::Length(length)),
            Framing::Chunked => self.begin_body(Rest::Chunks(Chunks::new())),
        }
    }

    fn begin_body(&mut self, rest: Rest) {
        self.stage = Stage::Body(rest);
        self.ticket.waits();
        self.deadline = Some(Box::pin(tokio::time::sleep(BODY_TIME)));
    }

    /// Reads more of a body.
    fn poll_body(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            if self.is_over_time(context).is_some() {
                self.is_cut_short = true;
                self.stage = Stage::Over;
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.held.reserve(BLOCK);
            if ready!(poll_read_buf(Pin::new(&mut self.inner), context, &mut self.held))? == 0 {
                self.stage = Stage::Over;
                return Poll::Ready(Ok(()));
            }
        }
        let Stage::Body(rest) = &mut self.stage else { return Poll::Ready(Ok(())) };
        let part = &self.held[..self.held.len().min(buffer.remaining())];
        let Ok(count) = rest.take(part) else {
            self.is_cut_short = true;
            self.stage = Stage::Over;
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        };
        let is_over = rest.is_over();
        self.hand_over(count, buffer);
        if is_over {
            self.stage = Stage::Head;
            self.ticket.is_busy();
            self.deadline = None;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether a client that is sent an answer without an end has closed its side, and so has left.
    ///
    /// The parser reads nothing while it answers, because the end of a request is not the end of interest in its answer.
    fn has_left(&mut self, context: &mut Context<'_>) -> bool {
        let mut block = [0; 512];
        while self.held.len() < BLOCK {
            let mut buffer = ReadBuf::new(&mut block);
            match Pin::new(&mut self.inner).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.held.extend_from_slice(buffer.filled());
                }
                Poll::Ready(_) => return true,
                Poll::Pending => return false,
            }
        }
        false
    }

    /// Ends our side, after the last words, and then listens to the other side for a moment.
    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.closing {
                Closing::Open(last_words) => {
                    self.closing = Closing::Speaking(last_words.take().unwrap_or_default());
                }
                Closing::Speaking(words) if !words.is_empty() => {
                    let count = ready!(Pin::new(&mut self.inner).poll_write(context, words))?;
                    words.advance(count);
                }
                Closing::Speaking(_) => self.closing = Closing::Ending,
                Closing::Ending => {
                    ready!(Pin::new(&mut self.inner).poll_shutdown(context))?;
                    let has_more = matches!(self.stage, Stage::Body(_)) || !self.held.is_empty();
                    self.closing = match self.is_cut_short || has_more {
                        true => Closing::Lingering(Box::pin(tokio::time::sleep(LINGER))),
                        false => Closing::Closed,
                    };
                }
                Closing::Lingering(patience) => {
                    self.held.clear();
                    self.held.reserve(BLOCK);
                    let is_out_of_time = patience.as_mut().poll(context).is_ready();
                    if is_out_of_time || self.ticket.place().is_evicted(context) {
                        self.closing = Closing::Closed;
                        continue;
                    }
                    match ready!(poll_read_buf(Pin::new(&mut self.inner), context, &mut self.held)) {
                        Ok(1..) => {}
                        Ok(0) | Err(_) => self.closing = Closing::Closed,
                    }
                }
                Closing::Closed => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Conversation<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if self.ticket.place().is_upgraded() {
            if self.held.is_empty() {
                return Pin::new(&mut self.inner).poll_read(context, buffer);
            }
            let count = self.held.len().min(buffer.remaining());
            self.hand_over(count, buffer);
            return Poll::Ready(Ok(()));
        }
        loop {
            match self.stage {
                Stage::Head => ready!(self.poll_head(context))?,
                Stage::Pass { left, framing } => {
                    self.pass(left, framing, buffer);
                    return Poll::Ready(Ok(()));
                }
                Stage::Body(_) => return self.poll_body(context, buffer),
                Stage::Over => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Conversation<S> {
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
        if self.ticket.place().is_streaming() && self.has_left(context) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ticket.place().is_upgraded() {
            return Pin::new(&mut self.inner).poll_shutdown(context);
        }
        self.poll_close(context)
    }
}
