//! The reader of one connection: turns bytes into messages, in order.
//!
//! Responses go to the pending call, everything else to the listener. A transport's read task owns it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use memchr::memchr;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::liveness::LastReceived;
use super::outline::{Outline, Scanner};
use super::pending::Pending;
use super::wire::{self, Message};
use crate::codex::listener::{AppServerEvent, Backlog, Listener};
use crate::codex::protocol::delta::Delta;
use crate::codex::redact::redact;

/// How much is read at once: the size of a pipe.
const READ_BLOCK_BYTES: usize = 64 * 1024;
/// Responses up to this length are always kept: a skipped message is fetched by a call, whose response must not be skipped
/// again.
const MIN_RESPONSE_BYTES: usize = 64 * 1024 * 1024;

/// The longest response that is kept in bytes, where `cap` is the limit of all other messages.
pub(crate) fn max_response_bytes(cap: usize) -> usize {
    cap.saturating_mul(4).max(MIN_RESPONSE_BYTES)
}

/// Decodes and dispatches the messages of one generation. Dropping it fails all pending calls.
pub(crate) struct MessageReader<L: Listener> {
    pending: Arc<Pending>,
    listener: L,
    backlog: Arc<Backlog>,
    last_received: Arc<LastReceived>,
}

/// How a stream of lines ended.
#[derive(Debug)]
pub(crate) struct StreamEnd {
    pub(crate) source: &'static str,
    pub(crate) message: String,
    pub(crate) flushed_trailing_message: bool,
    pub(crate) trailing_message_length: usize,
}

impl StreamEnd {
    pub(crate) fn new(source: &'static str, message: impl Into<String>) -> Self {
        Self { source, message: message.into(), flushed_trailing_message: false, trailing_message_length: 0 }
    }
}

impl<L: Listener> MessageReader<L> {
    pub(crate) fn new(pending: Arc<Pending>, listener: L, backlog: Arc<Backlog>) -> Self {
        Self { pending, listener, backlog, last_received: LastReceived::new() }
    }

    /// When the last message arrived.
    pub(crate) fn last_received(&self) -> Arc<LastReceived> {
        Arc::clone(&self.last_received)
    }

    /// Handles one message; an empty line is ignored.
    pub(crate) fn message(&mut self, line: &Bytes) {
        if let Some(delta) = Delta::of_agent_message(line) {
            return self.listener.on_event(AppServerEvent::MessageDelta { line, delta });
        }
        let line = line.trim_ascii();
        if line.is_empty() {
            return;
        }
        match wire::decode(line) {
            Ok(Message::Notification { method, params }) => {
                let params = params.map_or("null", |params| params.get());
                self.listener.on_event(AppServerEvent::Notification { method: &method, params });
            }
            Ok(Message::Request { id, method, params }) => {
                let params = params.map_or("null", |params| params.get());
                self.listener.on_event(AppServerEvent::Request { id, method: &method, params });
            }
            Ok(Message::Response { id, outcome }) => match self.pending.take(id) {
                Some(call) => {
                    // Events before the response are passed on before the response takes effect.
                    self.listener.flush();
                    call.answer(outcome.map_err(|mut error| {
                        // The message is passed to callers and written to logs.
                        error.message = redact(&error.message);
                        error
                    }));
                }
                // The caller gave up, or the app-server responded twice.
                None => tracing::debug!(id, "ignored a response without a pending call"),
            },
            Err(reason) => {
                self.listener.on_event(AppServerEvent::InvalidMessage { reason: &reason, bytes: line.len() })
            }
        }
    }

    /// Handles a complete message of any length; longer ones than `cap` bytes are skipped unless a call awaits them.
    pub(crate) fn message_within(&mut self, line: &Bytes, cap: usize) {
        if line.len() <= cap {
            return self.message(line);
        }
        let mut scanner = Scanner::default();
        scanner.feed(line);
        if self.is_awaited(scanner.outline()) {
            self.message(line);
        } else {
            self.skipped(line.len(), cap, &scanner.finish());
        }
    }

    /// Whether this is the response to a pending call.
    fn is_awaited(&self, outline: &Outline) -> bool {
        outline.response_to().is_some_and(|id| self.pending.contains(id))
    }

    /// Handles a message that was too long to keep.
    fn skipped(&mut self, bytes: usize, cap: usize, outline: &Outline) {
        if let Some(call) = outline.response_to().and_then(|id| self.pending.take(id)) {
            self.listener.flush();
            call.fail_malformed(format!("it is {bytes} bytes long, more than are kept of an answer"));
        }
        self.listener.on_event(AppServerEvent::Skipped { bytes, cap, outline });
    }

    pub(crate) fn emit(&mut self, event: AppServerEvent<'_>) {
        self.listener.on_event(event);
    }

    /// Passes on the events so far and waits until the backlog has capacity.
    pub(crate) async fn wait_for_capacity(&mut self) {
        self.listener.flush();
        self.last_received.set_reader_paused(true);
        self.backlog.wait_for_capacity().await;
        self.last_received.set_reader_paused(false);
    }

    /// Fails the pending calls; no event follows.
    pub(crate) fn close(&mut self, cause: &str) {
        self.listener.flush();
        self.pending.close(cause);
    }

    /// Reads lines until the stream ends; lines longer than `cap` bytes are skipped.
    pub(crate) async fn read_lines(&mut self, mut stream: impl AsyncRead + Unpin, cap: usize) -> StreamEnd {
        let mut lines = Lines::new(cap);
        let mut buffer = BytesMut::with_capacity(READ_BLOCK_BYTES);
        loop {
            let end = match stream.read_buf(&mut buffer).await {
                Ok(0) => StreamEnd::new("stdout.end", "its stdout ended"),
                Ok(_) => {
                    let block = take_block(&mut buffer);
                    lines.take(&block, self);
                    self.emit(AppServerEvent::Stdout(block));
                    self.wait_for_capacity().await;
                    continue;
                }
                Err(error) => StreamEnd::new("stdout.error", format!("its stdout failed: {error}")),
            };
            return lines.finish(end, self);
        }
    }
}

impl<L: Listener> Drop for MessageReader<L> {
    fn drop(&mut self) {
        self.close("its reader was dropped");
    }
}

/// Takes what was read out of a buffer of [`READ_BLOCK_BYTES`]; a block that waits to be recorded does not hold much more
/// memory than it has bytes.
fn take_block(buffer: &mut BytesMut) -> Bytes {
    if buffer.len() >= READ_BLOCK_BYTES / 2 {
        return std::mem::replace(buffer, BytesMut::with_capacity(READ_BLOCK_BYTES)).freeze();
    }
    let block = Bytes::copy_from_slice(buffer);
    buffer.clear();
    block
}

/// Splits a stream of blocks into lines.
struct Lines {
    /// The longest line that is kept, in bytes.
    cap: usize,
    /// The limit of the current line in bytes: it may be the response to a pending call.
    limit: usize,
    partial: Vec<u8>,
    /// The current line if it is too long, and its length so far.
    skipping: Option<(Scanner, usize)>,
}

impl Lines {
    fn new(cap: usize) -> Self {
        Self { cap, limit: cap, partial: Vec::new(), skipping: None }
    }

    fn take<L: Listener>(&mut self, block: &Bytes, reader: &mut MessageReader<L>) {
        let mut rest = &block[..];
        while let Some(newline) = memchr(b'\n', rest) {
            let (line, after) = (&rest[..newline], &rest[newline + 1..]);
            rest = after;
            if self.skipping.is_none() && self.partial.is_empty() && line.len() <= self.cap {
                reader.message(&block.slice_ref(line));
            } else {
                self.add(line, reader);
                self.end_line(reader);
            }
        }
        self.add(rest, reader);
    }

    fn add<L: Listener>(&mut self, piece: &[u8], reader: &MessageReader<L>) {
        if let Some((scanner, bytes)) = &mut self.skipping {
            scanner.feed(piece);
            *bytes += piece.len();
            return;
        }
        let length = self.partial.len() + piece.len();
        if length > self.limit {
            // The decision depends on the first bytes beyond the limit only, not on how the line is split.
            let (head, rest) = piece.split_at(self.limit + 1 - self.partial.len());
            let mut scanner = Scanner::default();
            scanner.feed(&self.partial);
            scanner.feed(head);
            let longest = max_response_bytes(self.cap);
            if length > longest || !reader.is_awaited(scanner.outline()) {
                scanner.feed(rest);
                self.partial = Vec::new();
                self.skipping = Some((scanner, length));
                return;
            }
            self.limit = longest;
        }
        self.partial.extend_from_slice(piece);
    }

    fn end_line<L: Listener>(&mut self, reader: &mut MessageReader<L>) {
        self.limit = self.cap;
        match self.skipping.take() {
            Some((scanner, bytes)) => reader.skipped(bytes, self.cap, &scanner.finish()),
            None => reader.message(&std::mem::take(&mut self.partial).into()),
        }
    }

    /// The last bytes may be a whole message that lacks only its newline.
    fn finish<L: Listener>(mut self, mut end: StreamEnd, reader: &mut MessageReader<L>) -> StreamEnd {
        end.trailing_message_length = self.skipping.as_ref().map_or(self.partial.len(), |(_, bytes)| *bytes);
        end.flushed_trailing_message = wire::decode(self.partial.trim_ascii()).is_ok();
        if end.trailing_message_length > 0 {
            self.end_line(reader);
        }
        reader.close(&end.message);
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_block_does_not_take_the_buffer_and_a_long_one_is_not_copied() {
        let mut buffer = BytesMut::with_capacity(READ_BLOCK_BYTES);
        let memory = buffer.as_ptr();
        buffer.extend_from_slice(b"short");
        assert_eq!(take_block(&mut buffer), "short");
        assert!(buffer.is_empty() && buffer.capacity() >= READ_BLOCK_BYTES);
        let long = [b'x'; READ_BLOCK_BYTES / 2];
        buffer.extend_from_slice(&long);
        let block = take_block(&mut buffer);
        assert_eq!((&block[..], block.as_ptr()), (&long[..], memory));
        assert!(buffer.is_empty() && buffer.capacity() >= READ_BLOCK_BYTES);
    }
}
