//! Hearing one generation: from bytes to messages, in order.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::call_error::CallError;
use super::liveness::Pulse;
use super::outline::{Outline, Scanner};
use super::pending::Pending;
use super::wire::{self, Message};
use crate::codex::listener::{Backlog, Heard, Listener};
use crate::codex::redact::redact;

/// How much is read at once, in bytes: what a pipe holds.
const BLOCK: usize = 64 * 1024;
/// The longest answer to a call of ours that is kept whatever the longest message is, in bytes: what was skipped is
/// read with a call, and must not be skipped once more.
const ANSWER: usize = 64 * 1024 * 1024;

/// The longest answer to a call of ours that is kept, where `cap` is the longest of all other messages; in bytes.
pub(crate) fn longest_answer(cap: usize) -> usize {
    cap.saturating_mul(4).max(ANSWER)
}

/// The ear of one generation; when it is dropped every call that still waits fails.
pub(crate) struct Ear<L: Listener> {
    pending: Arc<Pending>,
    listener: L,
    backlog: Arc<Backlog>,
    pulse: Arc<Pulse>,
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

impl<L: Listener> Ear<L> {
    pub(crate) fn new(pending: Arc<Pending>, listener: L, backlog: Arc<Backlog>) -> Self {
        Self { pending, listener, backlog, pulse: Pulse::new() }
    }

    /// When something was heard last.
    pub(crate) fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }

    /// Takes one message; an empty line is nothing.
    pub(crate) fn message(&mut self, line: &[u8]) {
        let line = line.trim_ascii();
        if line.is_empty() {
            return;
        }
        match wire::decode(line) {
            Ok(Message::Notification { method, params }) => {
                let params = params.map_or("null", |params| params.get());
                self.listener.hear(Heard::Notification { method: &method, params });
            }
            Ok(Message::Request { id, method, params }) => {
                let params = params.map_or("null", |params| params.get());
                self.listener.hear(Heard::Request { id, method: &method, params });
            }
            Ok(Message::Answer { id, outcome }) => match self.pending.take(id) {
                Some(settle) => {
                    // What came before the answer is passed on before anybody acts on the answer.
                    self.listener.flush();
                    settle(outcome.map_err(|mut error| {
                        // It goes on to callers and into logs.
                        error.message = redact(&error.message);
                        CallError::Refused { method: String::new(), error }
                    }));
                }
                // The call was given up, or the app-server answers twice.
                None => tracing::debug!(id, "an answer that nobody waits for"),
            },
            Err(reason) => self.listener.hear(Heard::Garbage { reason: &reason, bytes: line.len() }),
        }
    }

    /// Takes a message of any length, all of it at hand; `cap` is the longest that is kept, in bytes.
    pub(crate) fn message_within(&mut self, line: &[u8], cap: usize) {
        if line.len() <= cap {
            return self.message(line);
        }
        let mut scanner = Scanner::default();
        scanner.feed(line);
        if self.waits_for(scanner.outline()) {
            self.message(line);
        } else {
            self.skipped(line.len(), cap, &scanner.finish());
        }
    }

    /// Whether this is the answer to a call that waits.
    fn waits_for(&self, outline: &Outline) -> bool {
        outline.answers().is_some_and(|id| self.pending.waits(id))
    }

    /// Takes a message that was too long to keep.
    fn skipped(&mut self, bytes: usize, cap: usize, outline: &Outline) {
        if let Some(settle) = outline.answers().and_then(|id| self.pending.take(id)) {
            self.listener.flush();
            let reason = format!("it is {bytes} bytes long, more than are kept of an answer");
            settle(Err(CallError::Malformed { method: String::new(), reason }));
        }
        self.listener.hear(Heard::Skipped { bytes, cap, outline });
    }

    pub(crate) fn hear(&mut self, heard: Heard<'_>) {
        self.listener.hear(heard);
    }

    /// Passes on what was heard and waits until there is room for more.
    pub(crate) async fn rest(&mut self) {
        self.listener.flush();
        self.pulse.rest(true);
        self.backlog.room().await;
        self.pulse.rest(false);
    }

    /// Fails the calls that wait; nothing is heard after this.
    pub(crate) fn close(&mut self, cause: &str) {
        self.listener.flush();
        self.pending.close(cause);
    }

    /// Reads lines until the stream ends; `cap` is the longest line that is kept, in bytes.
    pub(crate) async fn read_lines(&mut self, mut stream: impl AsyncRead + Unpin, cap: usize) -> StreamEnd {
        let mut lines = Lines::new(cap);
        loop {
            let mut block = BytesMut::with_capacity(BLOCK);
            let end = match stream.read_buf(&mut block).await {
                Ok(0) => StreamEnd::new("stdout.end", "its stdout ended"),
                Ok(_) => {
                    let block = block.freeze();
                    lines.take(&block, self);
                    self.hear(Heard::Stdout(block));
                    self.rest().await;
                    continue;
                }
                Err(error) => StreamEnd::new("stdout.error", format!("its stdout failed: {error}")),
            };
            return lines.finish(end, self);
        }
    }
}

impl<L: Listener> Drop for Ear<L> {
    fn drop(&mut self) {
        self.close("its reader was dropped");
    }
}

/// Cuts a stream of blocks into lines.
struct Lines {
    /// The longest line that is kept, in bytes.
    cap: usize,
    /// The longest that the line may become that is being read: it may be an answer to a call of ours.
    limit: usize,
    partial: Vec<u8>,
    /// The line that is being read, when it is too long, with its length so far.
    skipping: Option<(Scanner, usize)>,
}

impl Lines {
    fn new(cap: usize) -> Self {
        Self { cap, limit: cap, partial: Vec::new(), skipping: None }
    }

    fn take<L: Listener>(&mut self, block: &Bytes, ear: &mut Ear<L>) {
        let mut rest = &block[..];
        while let Some(newline) = rest.iter().position(|&byte| byte == b'\n') {
            let (line, after) = (&rest[..newline], &rest[newline + 1..]);
            rest = after;
            if self.skipping.is_none() && self.partial.is_empty() && line.len() <= self.cap {
                ear.message(line);
            } else {
                self.add(line, ear);
                self.end_line(ear);
            }
        }
        self.add(rest, ear);
    }

    fn add<L: Listener>(&mut self, piece: &[u8], ear: &Ear<L>) {
        if let Some((scanner, bytes)) = &mut self.skipping {
            scanner.feed(piece);
            *bytes += piece.len();
            return;
        }
        let length = self.partial.len() + piece.len();
        if length > self.limit {
            let mut scanner = Scanner::default();
            scanner.feed(&self.partial);
            scanner.feed(piece);
            let longest = longest_answer(self.cap);
            if length > longest || !ear.waits_for(scanner.outline()) {
                self.partial = Vec::new();
                self.skipping = Some((scanner, length));
                return;
            }
            self.limit = longest;
        }
        self.partial.extend_from_slice(piece);
    }

    fn end_line<L: Listener>(&mut self, ear: &mut Ear<L>) {
        self.limit = self.cap;
        match self.skipping.take() {
            Some((scanner, bytes)) => ear.skipped(bytes, self.cap, &scanner.finish()),
            None => ear.message(&std::mem::take(&mut self.partial)),
        }
    }

    /// The last bytes may be a whole message that lacks only its newline.
    fn finish<L: Listener>(mut self, mut end: StreamEnd, ear: &mut Ear<L>) -> StreamEnd {
        end.trailing_message_length = self.skipping.as_ref().map_or(self.partial.len(), |(_, bytes)| *bytes);
        end.flushed_trailing_message = wire::decode(self.partial.trim_ascii()).is_ok();
        if end.trailing_message_length > 0 {
            self.end_line(ear);
        }
        ear.close(&end.message);
        end
    }
}
