//! The one owner of the log and the records.
//!
//! A thread of its own takes everything that waits as one batch: numbers and renders each line once, writes the batch
//! with one call, folds it into the records, and only then tells the readers.
//! Promises are synced by a second thread, so that neither the next batch nor a reader waits for the disk; the
//! promises that arrive while it syncs share the next sync.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::app_server::{Backlog, Closed};
use crate::config::Paths;
use crate::journal::{Entry, Journal, Line, Reader, Subscription, Tail};
use crate::state::snapshot::{self, DaemonFile, RecentFile, RegistryFile};
use crate::state::{Draft, State};

use super::drafts;

/// How many inputs one batch takes at most, so that a flood still reaches its readers in steps.
const BATCH: usize = 64;
/// How often unsynced lines and changed records are brought to disk, at most.
const SETTLE: Duration = Duration::from_secs(1);

/// Makes events out of the records as they are when the events are recorded.
pub(crate) type Build = Box<dyn FnOnce(&State) -> Vec<Draft> + Send>;

/// The answer to a promise: it is on disk, or why it is not.
pub(crate) type Promise = oneshot::Sender<Result<(), Arc<io::Error>>>;

/// What the recorder takes, in order.
pub(crate) enum Input {
    /// Events.
    Events(Vec<Draft>),
    /// Events that a caller is promised.
    Promised(Build, Promise),
    /// Output of the child, for its logs.
    Output(Stream, Bytes),
    /// A connection ended: its turns end with it.
    Closed(Closed),
    /// The end: what is known goes to disk.
    Stop(oneshot::Sender<()>),
}

/// One of the child's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}
