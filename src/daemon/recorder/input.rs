//! What the recorder accepts, in the order in which it records it, and the types of its answers.

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

/// Makes events out of the records as they are at that point of the log.
pub(crate) type Build = Box<dyn FnOnce(&State) -> Vec<NewEvent> + Send>;

/// What the recorder takes, in order.
pub(crate) enum Input {
    /// Events.
    Events(Vec<NewEvent>),
    /// Events that depend on the records.
    Build(Build),
    /// Events whose sync is acknowledged to the caller.
    Durable(Build, CommitAck),
    /// Output of the child, for its log.
    Output(Stream, Bytes),
    /// A connection ended, and with it the turns that it carried.
    Closed(Closed),
    /// Damage was found in the middle of the log; none of it means that the file which is written is to be looked at.
    Damaged(Vec<Damage>),
    /// The caller waits until every earlier input is recorded.
    CaughtUp(oneshot::Sender<()>),
    /// Retry writing a log that failed.
    Retry,
    /// A sync that began at this time failed, and these acks wait for another one.
    SyncFailed(Vec<CommitAck>, Instant, StorageError),
    /// Everything known goes to disk; nothing follows.
    Stop(oneshot::Sender<()>),
}

/// One of the child's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Input {
    /// About how many bytes an input keeps in memory.
    pub(super) fn weight(&self) -> usize {
        match self {
            Input::Events(new_events) => new_events.iter().map(event_weight).sum(),
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

fn event_weight(event: &NewEvent) -> usize {
    event.message.len() + event.detail.as_ref().map_or(0, String::len)
}
