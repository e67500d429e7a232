//! Syncs the log to disk. The recorder's group commit and the snapshot writer call it.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::metrics::LogMetrics;
use crate::storage::Disk;

/// The files of the log that may not be on disk yet; shared by the writer and by those who sync.
#[derive(Debug)]
pub struct LogSync {
    disk: Disk,
    directory: PathBuf,
    written_through: AtomicU64,
    synced_through: AtomicU64,
    unsynced: Mutex<Unsynced>,
    /// Held during a sync, so that concurrent syncs run one after the other.
    syncing: Mutex<()>,
    metrics: Arc<LogMetrics>,
}

/// The active file.
#[derive(Debug, Clone)]
pub(super) struct Current {
    pub(super) file: Arc<File>,
    pub(super) path: PathBuf,
    /// How many bytes were written to it, in whole batches.
    pub(super) bytes: u64,
}

impl Current {
    /// How the file at the path differs from the open one, if it does.
    ///
    /// The open file may have been removed, replaced or truncated, and then nothing will ever read what was written to it.
    fn difference(&self) -> io::Result<Option<String>> {
        use std::os::unix::fs::MetadataExt;
        let path = self.path.display();
        let open = self.file.metadata()?;
        let found = match std::fs::symlink_metadata(&self.path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Some(format!("{path} was removed")));
            }
            found => found?,
        };
        Ok(if (found.dev(), found.ino()) != (open.dev(), open.ino()) {
            Some(format!("{path} was replaced by another file"))
        } else if open.len() < self.bytes {
            Some(format!("{path} was cut off: it has {} bytes, and {} were written", open.len(), self.bytes))
        } else {
            None
        })
    }
}

#[derive(Debug)]
struct Unsynced {
    /// Files that were written before, oldest first.
    older: Vec<Arc<File>>,
    current: Current,
    /// Whether a file was created or renamed since the directory was synced.
    directory: bool,
    /// Set by a failed sync, until there is another file.
    failed: bool,
    /// Set with it when the file at the path differs.
    displaced: Option<String>,
    /// Set until the lines are in the other file.
    behind: bool,
}

impl LogSync {
    pub(super) fn new(
        disk: Disk,
        directory: PathBuf,
        current: Current,
        latest: u64,
        metrics: Arc<LogMetrics>,
    ) -> Self {
        let unsynced = Mutex::new(Unsynced::of(current));
        Self {
            disk,
            directory,
            written_through: AtomicU64::new(latest),
            synced_through: AtomicU64::new(latest),
            unsynced,
            syncing: Mutex::default(),
            metrics,
        }
    }

    /// Returns when everything written before the call is on disk, in the file at its path.
    ///
    /// After a failure the content of the file is unknown, and another sync of it would wrongly succeed: all syncs fail until
    /// the lines were written to another file.
    pub fn sync(&self) -> io::Result<()> {
        let _alone = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let through = self.written_through.load(Ordering::Acquire);
        let (older, current, directory) = {
            let unsynced = self.lock();
            if unsynced.failed || unsynced.behind {
                let reason =
                    unsynced.displaced.as_deref().unwrap_or("an earlier sync of the event log failed");
                return Err(io::Error::other(reason));
            }
            (unsynced.older.clone(), unsynced.current.clone(), unsynced.directory)
        };
        let began = Instant::now();
        let synced = older
            .iter()
            .chain([&current.file])
            .try_for_each(|file| self.disk.sync(file))
            .and_then(|()| if directory { self.disk.sync_directory(&self.directory) } else { Ok(()) });
        let mut unsynced = self.lock();
        // Under the lock, so that no rotation renames the file during the check, which takes microseconds.
        unsynced.check_path()?;
        match synced {
            Ok(()) => {
                // Files that were renamed or created meanwhile are still unsynced.
                let same = unsynced.older.len() == older.len();
                unsynced.older.drain(..older.len());
                unsynced.directory &= !same;
                self.synced_through.fetch_max(through, Ordering::AcqRel);
                self.metrics.synced(began.elapsed());
                Ok(())
            }
            Err(error) => {
                unsynced.failed = true;
                Err(error)
            }
        }
    }

    /// The newest number known to be on disk.
    pub fn synced_through(&self) -> u64 {
        self.synced_through.load(Ordering::Acquire)
    }

    /// Whether acks are sent before the sync, as a deliberate bug.
    #[cfg(feature = "mutations")]
    pub(crate) fn acks_early(&self) -> bool {
        self.disk.is_broken("ack-before-sync")
    }

    /// Whether a sync failed and the lines must be written to another file.
    pub fn failed(&self) -> bool {
        self.lock().failed
    }

    /// Why the log must be written to another file, if a sync failed.
    pub fn cause(&self) -> Option<String> {
        let unsynced = self.lock();
        let failed = unsynced.failed.then(|| "the event log could not be synced".to_owned());
        unsynced.displaced.clone().or(failed)
    }

    /// How the active file differs from the one at its path, if a sync found that.
    pub(super) fn displaced(&self) -> Option<String> {
        self.lock().displaced.clone()
    }

    /// Records that the active file has this many bytes, in lines up to `through`.
    pub(super) fn written(&self, through: u64, bytes: u64) {
        // The size first: it is a lower bound of the file's length.
        self.lock().current.bytes = bytes;
        self.written_through.store(through, Ordering::Release);
    }

    /// Fails if the active file is not the one at its path any more, and makes the next sync fail then: a rotation would seal
    /// the other file, and the lines of the open one would have no name.
    pub(super) fn check_path(&self) -> io::Result<()> {
        self.lock().check_path()
    }

    /// Switches files by `change`, which returns the new active one; no sync runs meanwhile.
    pub(super) fn rotate(
        &self,
        change: impl FnOnce(&mut Current) -> io::Result<Arc<File>>,
    ) -> io::Result<Arc<File>> {
        let mut unsynced = self.lock();
        let old = Arc::clone(&unsynced.current.file);
        unsynced.directory = true;
        unsynced.current.file = change(&mut unsynced.current)?;
        unsynced.current.bytes = 0;
        unsynced.older.push(old);
        Ok(Arc::clone(&unsynced.current.file))
    }

    /// Records that the lines that could not be synced go to the active file.
    pub(super) fn replaced(&self) {
        let mut unsynced = self.lock();
        unsynced.older.clear();
        unsynced.await_rewrite();
    }

    /// [`LogSync::replaced`] where only the active file could not be used: those before it still have to be synced.
    pub(super) fn replaced_active(&self) {
        let mut unsynced = self.lock();
        // The file that was displaced; all of its lines were written again.
        unsynced.older.pop();
        unsynced.await_rewrite();
    }

    /// Records that those lines are in the active file.
    pub(super) fn rewritten(&self) {
        self.lock().behind = false;
    }

    fn lock(&self) -> MutexGuard<'_, Unsynced> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unsynced {
    fn of(current: Current) -> Self {
        let (older, directory, behind) = (Vec::new(), true, false);
        Self { older, current, directory, failed: false, displaced: None, behind }
    }

    /// Forgets the failure: there is another active file, which does not have the lines yet.
    fn await_rewrite(&mut self) {
        (self.failed, self.displaced) = (false, None);
        (self.directory, self.behind) = (true, true);
    }

    fn check_path(&mut self) -> io::Result<()> {
        let Some(difference) = self.current.difference()? else { return Ok(()) };
        self.failed = true;
        self.displaced = Some(difference.clone());
        Err(io::Error::other(difference))
    }
}
