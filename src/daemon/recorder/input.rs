//! The inputs of the recorder, which it handles in the order of arrival, and the types of its replies.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::codex::Closed;
use crate::journal::Damage;
use crate::state::{NewEvent, State};

/// Why events are not on disk.
pub(crate) type StorageError = Arc<str>;

/// Reports the outcome of a durable commit to its caller: success after the sync, or why it failed.
pub(crate) type CommitAck = oneshot::Sender<Result<(), StorageError>>;

/// Builds events from the records as they are at that point of the log.
pub(crate) type Build = Box<dyn FnOnce(&State) -> Vec<NewEvent> + Send>;

/// An input of the recorder.
pub(crate) enum Input {
    /// Events.
    Events(Vec<NewEvent>),
    /// Events that depend on the records.
    Build(Build),
    /// Events whose sync is acknowledged to the caller.
    Durable(Build, CommitAck),
    /// Output of the child, for `stdout.log` or `stderr.log`.
    Output(Stream, Bytes),
    /// A connection ended, and its running turns with it.
    Closed(Closed),
    /// Damage was found in the middle of the log; an empty list means that the current segment must be checked.
    Damaged(Vec<Damage>),
    /// The caller waits until every earlier input is recorded.
    CaughtUp(oneshot::Sender<()>),
    /// Retry writing a log that failed.
    Retry,
    /// A sync that began at this time failed, and these acks wait for another one.
    SyncFailed(Vec<CommitAck>, Instant, StorageError),
    /// Write everything to disk and stop; no input follows.
    Stop(oneshot::Sender<()>),
}

/// An output stream of the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Input {
    /// The approximate memory of an input, in bytes.
    pub(super) fn weight(&self) -> usize {
        match self {
            Input::Events(new_events) => new_events.iter().map(NewEvent::memory).sum(),
            Input::Output(_, bytes) => bytes.len(),
            Input::Build(_)
            | Input::CaughtUp(_)
            | Input::Durable(..)
            | Input::Closed(_)
            | Input::Damaged(_)
            | Input::Retry
            | Input::SyncFailed(..)
            | Input::Stop(_) => 0,
        }
    }
}
