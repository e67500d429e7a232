//! Where everything that is heard goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::value::RawValue;
use tokio::sync::Notify;

use crate::codex::process::exit::Exit;
use crate::codex::rpc::outline::Outline;

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// Which part ended it, such as `stdout.end`.
    pub source: &'static str,
    /// What happened, as a sentence without its full stop.
    pub message: String,
    /// Whether the last bytes, which had no newline, were a whole message after all.
    pub flushed_trailing_message: bool,
    /// How many bytes without a newline came last.
    pub trailing_message_length: usize,
    /// How the process ended, as far as it is known.
    pub exit: Option<Exit>,
    /// Whether the end was wanted.
    pub expected: bool,
}

/// The pause after a death of the app-server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setback {
    /// How long until it is started again.
    pub delay: Duration,
    /// When that is.
    pub until: Timestamp,
    /// How often it died in a row.
    pub deaths: u32,
    /// Whether it dies so often that it is tried once a minute only.
    pub crash_loop: bool,
    /// What it died of, as a sentence.
    pub cause: String,
    /// How the process ended, as far as there was one.
    pub exit: Option<Exit>,
    /// The last lines of its stderr, secrets hidden.
    pub last_words: Vec<String>,
}

/// Something that was heard from or about the app-server.
#[derive(Debug)]
pub enum Heard<'a> {
    /// The process exists.
    Started {
        /// Its process id.
        pid: Option<u32>,
    },
    /// The process could not be started.
    SpawnFailed {
        /// Why, and what to do.
        message: String,
    },
    /// `initialize` was answered.
    Connected {
        /// The answer.
        info: &'a RawValue,
    },
    /// The connection could not be made, or `initialize` was not answered as it should be.
    ConnectFailed {
        /// Why.
        message: String,
    },
    /// Something happened in the app-server.
    Notification {
        /// What.
        method: &'a str,
        /// Its parameters; `null` when it had none.
        params: &'a str,
    },
    /// The app-server asks for something and waits for the answer.
    Request {
        /// Its id, to be sent back.
        id: &'a RawValue,
        /// What is asked.
        method: &'a str,
        /// Its parameters; `null` when it had none.
        params: &'a str,
    },
    /// A line that is no message.
    Garbage {
        /// What is wrong with it.
        reason: &'a str,
        /// Its length in bytes.
        bytes: usize,
    },
    /// A message that is too long to be kept.
    Skipped {
        /// Its length in bytes.
        bytes: usize,
        /// The longest message that is kept, in bytes.
        cap: usize,
        /// What is known of it.
        outline: &'a Outline,
    },
    /// Raw output of the process, in the order it came.
    Stdout(Bytes),
    /// What the process says about itself.
    Stderr(Bytes),
    /// The process ended.
    Exited(Exit),
    /// The end of the process could not be waited for.
    ChildError {
        /// What failed.
        message: String,
    },
    /// A signal could not be sent to the process.
    KillFailed {
        /// What failed.
        message: String,
    },
    /// The connection to an app-server of somebody else could not be closed in order.
    CloseFailed {
        /// What failed.
        message: String,
    },
    /// The connection ended; nothing is heard over it any more.
    Closed(Closed),
    /// It died and is started again later; nothing follows from this generation.
    Setback(Setback),
}

/// Takes what is heard, in order; one for each part of each generation.
pub trait Listener: Send + 'static {
    /// Takes one thing; must not wait.
    fn hear(&mut self, heard: Heard<'_>);

    /// Passes on what was taken so far; called at the end of each block that was read.
    fn flush(&mut self);
}

/// How many bytes the listeners have passed on that nobody has worked off yet.
///
/// A reader waits when there are too many: the only thing a reader ever waits for.
#[derive(Debug, Default)]
pub struct Backlog {
    bytes: AtomicUsize,
    worked_off: Notify,
}

/// A reader goes on when the backlog is at most this, in bytes.
const ROOM: usize = 4 * 1024 * 1024;

impl Backlog {
    /// An empty one.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Something was passed on.
    pub fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Something was worked off.
    pub fn remove(&self, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        if before > ROOM && before - bytes <= ROOM {
            self.worked_off.notify_waiters();
        }
    }

    /// Waits until there is room.
    pub async fn room(&self) {
        loop {
            let worked_off = self.worked_off.notified();
            tokio::pin!(worked_off);
            // Registered before the look, so that room made in between is not missed.
            worked_off.as_mut().enable();
            if self.bytes.load(Ordering::Acquire) <= ROOM {
                return;
            }
            worked_off.await;
        }
    }
}
