//! Bringing the log to disk.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::figures::Figures;
use crate::disk::Disk;

/// The files of the log that are not known to be on disk; shared by the one who writes and those who sync.
#[derive(Debug)]
pub struct LogSync {
    disk: Disk,
    folder: PathBuf,
    written_through: AtomicU64,
    synced_through: AtomicU64,
    unsynced: Mutex<Unsynced>,
    /// Held while the disk works, so that of two syncs the second one begins with what the first one left.
    syncing: Mutex<()>,
    figures: Arc<Figures>,
}

#[derive(Debug)]
struct Unsynced {
    /// Oldest first; the last one is written.
    files: Vec<Arc<File>>,
    /// Whether a file was made or renamed since the folder was synced.
    folder: bool,
    /// Set by a failed sync, until there is another file.
    failed: bool,
    /// Set from then on until the lines are in that file.
    behind: bool,
}

impl LogSync {
    pub(super) fn new(
        disk: Disk,
        folder: PathBuf,
        file: Arc<File>,
        latest: u64,
        figures: Arc<Figures>,
    ) -> Self {
        let unsynced = Mutex::new(Unsynced { files: vec![file], folder: true, failed: false, behind: false });
        Self {
            disk,
            folder,
            written_through: AtomicU64::new(latest),
            synced_through: AtomicU64::new(latest),
            unsynced,
            syncing: Mutex::default(),
            figures,
        }
    }

    /// Returns when everything that was written before the call is on disk.
    ///
    /// After a failure nobody can say what the file holds, and syncing it once more would wrongly succeed: it fails
    /// until the lines were written to another file.
    pub fn sync(&self) -> io::Result<()> {
        let _alone = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let through = self.written_through.load(Ordering::Acquire);
        let (files, folder) = {
            let unsynced = self.lock();
            if unsynced.failed || unsynced.behind {
                return Err(io::Error::other("an earlier sync of the event log failed"));
            }
            (unsynced.files.clone(), unsynced.folder)
        };
        let began = Instant::now();
        let synced = files
            .iter()
            .try_for_each(|file| self.disk.sync(file))
            .and_then(|()| if folder { self.disk.sync_folder(&self.folder) } else { Ok(()) });
        let mut unsynced = self.lock();
        match synced {
            Ok(()) => {
                // What was renamed or made meanwhile is still to be synced.
                let same = unsynced.files.len() == files.len();
                let done = files.len() - 1;
                unsynced.files.drain(..done);
                unsynced.folder &= !same;
                self.synced_through.fetch_max(through, Ordering::AcqRel);
                self.figures.synced(began.elapsed());
                Ok(())
            }
            Err(error) => {
                unsynced.failed = true;
                Err(error)
            }
        }
    }

    /// The newest number that is known to be on disk.
    pub fn synced_through(&self) -> u64 {
        self.synced_through.load(Ordering::Acquire)
    }

    /// Whether promises are given without waiting for the disk.
    #[cfg(feature = "mutations")]
    pub(crate) fn promises_early(&self) -> bool {
        self.disk.is_broken("promise-before-sync")
    }

    /// Whether a sync failed and the lines are to be written to another file.
    pub fn failed(&self) -> bool {
        self.lock().failed
    }

    pub(super) fn written(&self, through: u64) {
        self.written_through.store(through, Ordering::Release);
    }

    /// Another file is written from now on.
    pub(super) fn turned(&self, file: Arc<File>) {
        let mut unsynced = self.lock();
        unsynced.files.push(file);
        unsynced.folder = true;
    }

    /// The lines that could not be synced go to this file.
    pub(super) fn replaced(&self, file: Arc<File>) {
        *self.lock() = Unsynced { files: vec![file], folder: true, failed: false, behind: true };
    }

    /// The lines that could not be synced are in that file now.
    pub(super) fn rewritten(&self) {
        self.lock().behind = false;
    }

    fn lock(&self) -> MutexGuard<'_, Unsynced> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
