//! The lock that keeps a second daemon out of a directory.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::disk::Disk;

/// How long a held lock is retried.
const LOCK_TIMEOUT: Duration = Duration::from_millis(400);
/// The name of the lock file.
const LOCK_FILE_NAME: &str = "codexd.lock";

/// The lock of a directory, held until this is dropped.
///
/// The system releases the lock when the process ends, however it ends; a child does not inherit it, because std opens files
/// with close-on-exec.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

/// Why a directory cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon uses it.
    #[error(
        "The directory {} is in use by {holder}; stop that process, or start this one with other directories \
         (--state-dir and --logs-dir).", directory.display()
    )]
    Held {
        /// The directory.
        directory: PathBuf,
        /// The process that holds it, from its lock file.
        holder: String,
    },
    /// It cannot be created, or is not ours.
    #[error("The directory {} cannot be used: {source}.", directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
}

impl DirectoryLock {
    /// Creates the directory if needed and locks it.
    pub fn take(disk: &Disk, directory: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Directory { directory: directory.to_owned(), source };
        disk.create_directory(directory).map_err(failed)?;
        let path = directory.join(LOCK_FILE_NAME);
        let mut file = disk.open_append(&path).map_err(failed)?;
        match lock_with_timeout(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held { directory: directory.to_owned(), holder: holder_name(&path) });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // Information for the user only; the lock decides.
        let written = file.set_len(0).and_then(|()| writeln!(file, "pid {}", std::process::id()));
        if let Err(error) = written {
            tracing::warn!(%error, path = %path.display(), "failed to write the PID to the lock file");
        }
        Ok(Self { _file: file })
    }
}

/// The process that holds the lock of a directory, from the lock file; `None` if no process does.
///
/// The check releases the lock at once, so a daemon that starts meanwhile gets it with its next try.
pub fn holder(directory: &Path) -> io::Result<Option<String>> {
    let path = directory.join(LOCK_FILE_NAME);
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some(holder_name(&path))),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The PID of the process that holds the lock of a directory; `None` if no process does.
pub fn holder_pid(directory: &Path) -> io::Result<Option<i32>> {
    let text = holder(directory)?.unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    Ok(digits.parse().ok())
}

/// The name of the holder, from the lock file.
fn holder_name(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    match text.trim() {
        "" => "another codexd".to_owned(),
        text => format!("codexd ({text})"),
    }
}

/// Locks a file, and retries for [`LOCK_TIMEOUT`]: a holder that was just killed may not have ended yet.
fn lock_with_timeout(file: &File) -> Result<(), TryLockError> {
    let until = Instant::now() + LOCK_TIMEOUT;
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(LOCK_TIMEOUT / 20),
            outcome => return outcome,
        }
    }
}
