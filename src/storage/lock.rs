//! One daemon per folder.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::disk::Disk;

/// How long a lock that is held is tried again.
const MOMENT: Duration = Duration::from_millis(400);
/// The file whose lock is held.
const NAME: &str = "codexd.lock";

/// A folder that no other daemon uses, for as long as this lives.
///
/// The system gives the lock back when the process ends, however it ends; a child does not inherit it, because the file
/// is closed when another program takes over (std opens files so).
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

/// Why a folder cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon uses it.
    #[error(
        "The folder {} is in use by {holder}; stop that one, or give this one folders of its own with --state-dir and \
         --logs-dir.", folder.display()
    )]
    Held {
        /// The folder.
        folder: PathBuf,
        /// Who has it, as far as its lock file says.
        holder: String,
    },
    /// It cannot be made, or is not ours.
    #[error("The folder {} cannot be used: {source}.", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

impl FolderLock {
    /// Makes the folder if needed and takes it.
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
        // For people only; the lock is what counts.
        let said = file.set_len(0).and_then(|()| writeln!(file, "pid {}", std::process::id()));
        if let Err(error) = said {
            tracing::warn!(%error, path = %path.display(), "the lock file cannot say who holds it");
        }
        Ok(Self { _file: file })
    }
}

/// Who has a folder, as far as its lock file says; `None` when nobody has.
///
/// The lock is given back at once where it could be had, so a daemon that starts meanwhile gets it with its next try.
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

/// The holder by the words in the lock file.
fn named(path: &Path) -> String {
    let words = fs::read_to_string(path).unwrap_or_default();
    match words.trim() {
        "" => "another codexd".to_owned(),
        words => format!("codexd with {words}"),
    }
}

/// A holder that was just killed takes a moment to be gone.
fn try_for_a_moment(file: &File) -> Result<(), TryLockError> {
    let until = Instant::now() + MOMENT;
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(MOMENT / 20),
            outcome => return outcome,
        }
    }
}
