//! Keeping promises: what a caller was told is on disk before it is told.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::recorder::{Input, Recorder};
use crate::journal::LogSync;

/// Why something is not on disk.
pub(crate) type StorageError = Arc<str>;

/// Who waits for the disk, and is told when it has what was written, or why it has not.
pub(crate) type Promise = oneshot::Sender<Result<(), StorageError>>;

/// The thread that syncs the log.
pub(crate) struct Syncer {
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
    promises: Vec<Promise>,
    stopping: bool,
}

impl Syncer {
    pub(crate) fn start(log: Arc<LogSync>, recorder: Recorder) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let worker = Arc::clone(&shared);
        let work = move || worker.work(&log, &recorder);
        let thread = std::thread::Builder::new().name("syncer".to_owned()).spawn(work)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Keeps a promise about what is written to the log by now.
    pub(crate) fn sync(&self, promise: Promise) {
        self.shared.lock().promises.push(promise);
        self.shared.arrived.notify_one();
    }

    /// Keeps what was promised and ends.
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
            let promises = {
                let mut waiting = self.lock();
                while waiting.promises.is_empty() && !waiting.stopping {
                    waiting = self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                }
                if waiting.promises.is_empty() {
                    return;
                }
                std::mem::take(&mut waiting.promises)
            };
            #[cfg(feature = "mutations")]
            if log.promises_early() {
                promises.into_iter().for_each(|promise| drop(promise.send(Ok(()))));
                continue;
            }
            // Whoever arrives from here on waits for the next sync: this one may have begun before its line.
            let synced = log.sync().map_err(|error| StorageError::from(error.to_string()));
            if let Err(error) = &synced {
                tracing::error!(%error, "the event log cannot be synced");
                // What was written since the last good sync goes to another file.
                recorder.send(Input::Retry);
            }
            for promise in promises {
                // Whoever waited may have gone.
                let _ = promise.send(synced.clone());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
