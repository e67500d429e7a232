//! Hearing one generation: from bytes to messages, in order.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::client::CallError;
use super::listener::{Backlog, Heard, Listener};
use super::liveness::Pulse;
use super::pending::Pending;
use super::redact::redact;
use super::wire::{self, Message};

/// How much is read at once, in bytes: what a pipe holds.
const BLOCK: usize = 64 * 1024;

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

    /// Takes a line that was too long to keep.
    fn skipped(&mut self, bytes: usize, cap: usize) {
        let reason = format!("it is longer than {cap} bytes and was skipped");
        self.listener.hear(Heard::Garbage { reason: &reason, bytes });
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
    cap: usize,
    partial: Vec<u8>,
    skipping: usize,
}

impl Lines {
    fn new(cap: usize) -> Self {
        Self { cap, partial: Vec::new(), skipping: 0 }
    }

    fn take<L: Listener>(&mut self, block: &Bytes, ear: &mut Ear<L>) {
        let mut rest = &block[..];
        while let Some(newline) = rest.iter().position(|&byte| byte == b'\n') {
            let (line, after) = (&rest[..newline], &rest[newline + 1..]);
            rest = after;
            let bytes = self.skipping + self.partial.len() + line.len();
            if bytes > self.cap {
                ear.skipped(bytes, self.cap);
                self.skipping = 0;
                self.partial = Vec::new();
            } else if self.partial.is_empty() {
                ear.message(line);
            } else {
                self.partial.extend_from_slice(line);
                ear.message(&std::mem::take(&mut self.partial));
            }
        }
        if self.skipping > 0 {
            self.skipping += rest.len();
        } else if self.partial.len() + rest.len() > self.cap {
            self.skipping = self.partial.len() + rest.len();
            self.partial = Vec::new();
        } else {
            self.partial.extend_from_slice(rest);
        }
    }

    /// The last bytes may be a whole message that lacks only its newline.
    fn finish<L: Listener>(self, mut end: StreamEnd, ear: &mut Ear<L>) -> StreamEnd {
        end.trailing_message_length = self.partial.len() + self.skipping;
        if self.skipping > 0 {
            ear.skipped(self.skipping, self.cap);
        } else if !self.partial.is_empty() {
            end.flushed_trailing_message = wire::decode(self.partial.trim_ascii()).is_ok();
            ear.message(&self.partial);
        }
        ear.close(&end.message);
        end
    }
}
