//! Group commit: one sync of the log acknowledges all commits that were waiting for it.
//!
//! Owns the waiting acks and the sync thread; the recorder's worker adds to them. An ack is sent only after a sync that
//! began after its lines were written.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::daemon::recorder::handle::Recorder;
use crate::daemon::recorder::input::{CommitAck, Input, StorageError};
use crate::journal::LogSync;

/// The thread that syncs the log.
pub(crate) struct GroupCommit {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Default)]
struct Waiting {
    /// Each with whether this is its second sync.
    acks: Vec<(CommitAck, bool)>,
    stopping: bool,
}

impl GroupCommit {
    pub(crate) fn start(log: Arc<LogSync>, recorder: Recorder) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let worker = Arc::clone(&shared);
        let work = move || worker.work(&log, &recorder);
        let thread = std::thread::Builder::new().name("group-commit".to_owned()).spawn(work)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Acknowledges, after the next sync, everything written to the log so far.
    pub(crate) fn sync(&self, ack: CommitAck) {
        self.add(ack, false);
    }

    /// Syncs again for an ack whose sync failed, after the log was rewritten; a second failure is reported to the caller.
    pub(crate) fn sync_again(&self, ack: CommitAck) {
        self.add(ack, true);
    }

    fn add(&self, ack: CommitAck, is_second: bool) {
        self.shared.lock().acks.push((ack, is_second));
        self.shared.arrived.notify_one();
    }

    /// Acknowledges what is waiting and ends the thread.
    pub(crate) fn stop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.arrived.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn work(&self, log: &LogSync, recorder: &Recorder) {
        loop {
            let acks = {
                let mut waiting = self.lock();
                while waiting.acks.is_empty() && !waiting.stopping {
                    waiting = self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                }
                if waiting.acks.is_empty() {
                    return;
                }
                std::mem::take(&mut waiting.acks)
            };
            #[cfg(feature = "mutations")]
            if log.acks_early() {
                acks.into_iter().for_each(|(ack, _)| drop(ack.send(Ok(()))));
                continue;
            }
            // Commits that arrive from here on wait for the next sync: this one may have begun before their lines.
            let began = Instant::now();
            let Err(error) = log.sync() else {
                // The callers may have stopped waiting.
                acks.into_iter().for_each(|(ack, _)| drop(ack.send(Ok(()))));
                continue;
            };
            tracing::error!(%error, "failed to sync the event log");
            let error = StorageError::from(error.to_string());
            let (failed, again): (Vec<_>, Vec<_>) = acks.into_iter().partition(|(_, is_second)| *is_second);
            failed.into_iter().for_each(|(ack, _)| drop(ack.send(Err(error.clone()))));
            // Lines since the last good sync are rewritten to another file. If none is missing there, a second sync makes
            // the commit durable: a caller that got an error would repeat an operation that took effect.
            let again = again.into_iter().map(|(ack, _)| ack).collect();
            recorder.send(Input::SyncFailed(again, began, error));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
