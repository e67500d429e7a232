//! The lock that keeps a second daemon out of a directory.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::disk::Disk;

/// How long a held lock is retried.
const MOMENT: Duration = Duration::from_millis(400);
/// The name of the lock file.
const NAME: &str = "codexd.lock";

/// The lock of a directory, held until this is dropped.
///
/// The system releases the lock when the process ends, however it ends; a child does not inherit it, because std opens files
/// with close-on-exec.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

/// Why a directory cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon uses it.
    #[error(
        "The folder {} is in use by {holder}; stop that one, or give this one folders of its own with --state-dir and \
         --logs-dir.", folder.display()
    )]
    Held {
        /// The directory.
        folder: PathBuf,
        /// The process that holds it, as its lock file says.
        holder: String,
    },
    /// It cannot be created, or is not ours.
    #[error("The folder {} cannot be used: {source}.", folder.display())]
    Folder {
        /// The directory.
        folder: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
}

impl FolderLock {
    /// Creates the directory if needed and locks it.
    pub fn take(disk: &Disk, folder: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Folder { folder: folder.to_owned(), source };
        disk.make_folder(folder).map_err(failed)?;
        let path = folder.join(NAME);
        let mut file = disk.open_append(&path).map_err(failed)?;
        match try_for_a_moment(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held { folder: folder.to_owned(), holder: named(&path) });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // Information for the user only; the lock decides.
        let said = file.set_len(0).and_then(|()| writeln!(file, "pid {}", std::process::id()));
        if let Err(error) = said {
            tracing::warn!(%error, path = %path.display(), "failed to write the PID to the lock file");
        }
        Ok(Self { _file: file })
    }
}

/// The process that holds a directory, as its lock file says; `None` when it is free.
///
/// The check releases the lock at once, so a daemon that starts meanwhile gets it with its next try.
pub fn holder(folder: &Path) -> io::Result<Option<String>> {
    let path = folder.join(NAME);
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some(named(&path))),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The holder as the lock file names it.
fn named(path: &Path) -> String {
    let words = fs::read_to_string(path).unwrap_or_default();
    match words.trim() {
        "" => "another codexd".to_owned(),
        words => format!("codexd with {words}"),
    }
}

/// Retries for a moment: a holder that was just killed may not have ended yet.
fn try_for_a_moment(file: &File) -> Result<(), TryLockError> {
    let until = Instant::now() + MOMENT;
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(MOMENT / 20),
            outcome => return outcome,
        }
    }
}
