//! What the app-server layer reports to its caller, and the flow control between the two.
//!
//! `daemon` and `commands/doctor` implement [`Listener`]. Events of one generation arrive in the order in which they
//! happened.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::value::RawValue;
use tokio::sync::Notify;

use crate::codex::process::exit::Exit;
use crate::codex::protocol::delta::Delta;
use crate::codex::rpc::outline::Outline;

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// Which part ended it, such as `stdout.end`.
    pub source: &'static str,
    /// What happened, as a sentence without its full stop.
    pub message: String,
    /// Whether the last bytes, which had no newline, were a whole message.
    pub flushed_trailing_message: bool,
    /// The number of bytes after the last newline.
    pub trailing_message_length: usize,
    /// How the process ended, if known.
    pub exit: Option<Exit>,
    /// Whether we ended it.
    pub expected: bool,
    /// Whether the app-server may run on without it, as an external one does: then its turns are not over.
    pub app_server_outlives_it: bool,
}

/// The app-server failed and will be restarted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartScheduled {
    /// The delay before the restart.
    pub delay: Duration,
    /// When the restart is due.
    pub until: Timestamp,
    /// How many failures there were in a row.
    pub failures: u32,
    /// Whether it fails so often that it is tried only once a minute.
    pub crash_loop: bool,
    /// Why it failed, as a sentence.
    pub reason: String,
    /// How the process ended, if there was one.
    pub exit: Option<Exit>,
    /// The last lines of its stderr, secrets redacted.
    pub stderr_tail: Vec<String>,
}

/// Something that the app-server sent or that happened to it.
#[derive(Debug)]
pub enum AppServerEvent<'a> {
    /// The process was started.
    Started {
        /// Its PID.
        pid: Option<u32>,
    },
    /// codexd is connected to the app-server that all programs of the user share.
    Joined {
        /// The PID of the app-server, where the system reports it.
        pid: Option<u32>,
        /// Whether it is the one of the connection before.
        is_known: bool,
        /// Whether codexd started it, in this run or an earlier one.
        is_ours: bool,
    },
    /// The process could not be started.
    SpawnFailed {
        /// Why, and what to do.
        message: String,
    },
    /// `initialize` was answered.
    Connected {
        /// The response.
        info: &'a RawValue,
    },
    /// Connecting failed, or `initialize` was not answered as expected.
    ConnectFailed {
        /// Why.
        message: String,
    },
    /// A notification.
    Notification {
        /// Its method.
        method: &'a str,
        /// Its parameters; `null` when it had none.
        params: &'a str,
    },
    /// The notification [`AGENT_MESSAGE_DELTA`](crate::codex::protocol::notifications::AGENT_MESSAGE_DELTA).
    MessageDelta {
        /// The message.
        line: &'a Bytes,
        /// Its parameters, which borrow from it.
        delta: Delta<'a>,
    },
    /// A request that the app-server expects a response to.
    Request {
        /// Its ID, for the response.
        id: &'a RawValue,
        /// Its method.
        method: &'a str,
        /// Its parameters; `null` when it had none.
        params: &'a str,
    },
    /// A line that is not a message.
    InvalidMessage {
        /// What is wrong with it.
        reason: &'a str,
        /// Its length in bytes.
        bytes: usize,
    },
    /// A message that was too long to keep.
    Skipped {
        /// Its length in bytes.
        bytes: usize,
        /// The length of the longest message that is kept, in bytes.
        cap: usize,
        /// What is known about it.
        outline: &'a Outline,
    },
    /// Raw output of the process, in order.
    Stdout(Bytes),
    /// Raw stderr of the process.
    Stderr(Bytes),
    /// The process exited.
    Exited(Exit),
    /// Waiting for the process failed.
    ChildError {
        /// What failed.
        message: String,
    },
    /// A signal could not be sent to the process.
    KillFailed {
        /// What failed.
        message: String,
    },
    /// The connection to an external app-server could not be closed in order.
    CloseFailed {
        /// What failed.
        message: String,
    },
    /// The connection ended; no message follows.
    Closed(Closed),
    /// It failed and will be restarted; no event of this generation follows.
    RestartScheduled(RestartScheduled),
}

/// Receives events in order; there is one for each part of each generation.
pub trait Listener: Send + 'static {
    /// Handles one event; must not block.
    fn on_event(&mut self, event: AppServerEvent<'_>);

    /// Passes on what was handled so far; called after each block that was read.
    fn flush(&mut self);
}

/// The number of bytes that listeners have passed on and that are not yet processed.
///
/// A reader waits when there are too many. It waits for nothing else.
#[derive(Debug, Default)]
pub struct Backlog {
    bytes: AtomicUsize,
    drained: Notify,
}

/// Readers wait while the backlog is larger than this.
const MAX_BACKLOG_BYTES: usize = 2 * 1024 * 1024;

impl Backlog {
    /// An empty backlog.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Adds bytes that were passed on.
    pub fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Subtracts bytes that were processed.
    pub fn remove(&self, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        if before > MAX_BACKLOG_BYTES && before - bytes <= MAX_BACKLOG_BYTES {
            self.drained.notify_waiters();
        }
    }

    /// Waits until the backlog is at most [`MAX_BACKLOG_BYTES`].
    pub async fn wait_for_capacity(&self) {
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            // Registered before the check, so that a removal in between is not missed.
            drained.as_mut().enable();
            if self.bytes.load(Ordering::Acquire) <= MAX_BACKLOG_BYTES {
                return;
            }
            drained.await;
        }
    }
}
