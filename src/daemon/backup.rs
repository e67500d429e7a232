//! Copies the daemon's directories, whether or not it runs, and puts such a copy in their place.
//!
//! The state files are copied first: each is replaced as a whole, and `throughSeq` states which events it includes.
//! The log is copied after them, so it has at least these events, and a start folds in those the state files lack.
//! `codexd backup` and `codexd restore` call it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::config::{AUTH_TOKEN_NAME, Paths};
use crate::daemon::recorder::recovery::OpenError;
use crate::hooks::{CursorsFile, HooksFile};
use crate::journal::{self, CopiedLog, OpenFailure};
use crate::state::snapshot::{DaemonFile, FoundRegistry, Identity, Layout, RecentFile, RecordsFile};
use crate::storage::{DirectoryLock, Disk, LockError, beside};

/// How many times a log that lacks events of the state files is copied again, and the time between two copies: a running
/// daemon rewrites a removed or replaced log at its next sync, within a second.
const MAX_LOG_COPY_RETRIES: usize = 5;
const LOG_COPY_INTERVAL: Duration = Duration::from_millis(500);

/// A finished backup.
#[derive(Debug)]
pub struct Backup {
    /// The directory, which contains `state` and `logs`.
    pub directory: PathBuf,
    /// The copy of the log.
    pub log: CopiedLog,
    /// The size of all files, in bytes.
    pub bytes: u64,
}

/// Why a backup failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The directory cannot be used.
    #[error("{} {reason}. Nothing was written; name a directory that does not exist yet.", directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The directory of an unfinished backup exists.
    #[error(
        "{} exists: another backup is writing it, or was ended before it was complete. Wait for that one, or remove it.",
        directory.display()
    )]
    Unfinished {
        /// The directory.
        directory: PathBuf,
    },
    /// There is nothing to copy.
    #[error(
        "There is nothing to back up: {} has no state files and {} no event log. \"codexd config\" shows where the \
         directories come from.",
        state.display(),
        logs.display()
    )]
    Nothing {
        /// The state directory.
        state: PathBuf,
        /// The logs directory.
        logs: PathBuf,
    },
    /// The log lacks events that the state files include.
    #[error(
        "The event log in {} ends at event {last}, and the state files know event {known}: a part of it was removed or \
         replaced. Start codexd, which reports what is missing, and then make the backup.",
        logs.display()
    )]
    Behind {
        /// The logs directory.
        logs: PathBuf,
        /// The last event of the log.
        last: u64,
        /// The newest event that was in it.
        known: u64,
    },
    /// The directory to restore is not a backup.
    #[error("{} is not a backup: it has no state files and no event log in state and logs.", directory.display())]
    NotABackup {
        /// The directory.
        directory: PathBuf,
    },
    /// A daemon uses the directories, or they cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A file cannot be copied.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// A backup that was restored.
#[derive(Debug)]
pub struct Restored {
    /// Where the directories that it replaced are now.
    pub replaced: Vec<PathBuf>,
    /// The copy of the log.
    pub log: CopiedLog,
    /// The size of all files, in bytes.
    pub bytes: u64,
}

/// Puts a copy of a backup in the place of the directories of `paths`, which are kept under names that end with `suffix`.
///
/// Nothing is changed before the copy is complete. If a later step fails, the error names the path; the kept directories
/// have everything that was there.
pub fn restore(paths: &Paths, backup: &Path, suffix: &str) -> Result<Restored, BackupError> {
    let disk = Disk::default();
    let (state, logs) = (&paths.state_dir, &paths.logs_dir);
    let mut locks = Vec::new();
    for directory in [state, logs] {
        if directory.exists() && !(locks.len() == 1 && logs == state) {
            locks.push(DirectoryLock::take(&disk, directory)?);
        }
    }
    let logs = &paths.events_dir;
    let source = Paths::new(None, backup.join("logs"), backup.join("state"));
    let token = source.state_dir.join(AUTH_TOKEN_NAME);
    let new = beside(state, "restore");
    if let Some(parent) = state.parent() {
        disk.create_directory(parent).map_err(|source| failed(parent, source))?;
    }
    let copied = back_up(&source, Some(&token), &new).map_err(|error| match error {
        BackupError::Nothing { .. } => BackupError::NotABackup { directory: backup.to_owned() },
        error => error,
    })?;
    // The place of the logs may be in that of the state.
    let logs_in_state = logs.strip_prefix(state).ok();
    let new_logs = match logs_in_state {
        Some(path) => new.join("state").join(path),
        None => beside(logs, "restore"),
    };
    if let Some(parent) = new_logs.parent() {
        disk.create_directory(parent).map_err(|source| failed(parent, source))?;
    }
    let moved = disk.rename(&new.join("logs"), &new_logs);
    if let Err(source) = moved {
        // Such as one on another file system; nothing else was changed.
        let _ = disk.remove_directory(&new);
        return Err(failed(&new_logs, source));
    }
    let mut replaced = Vec::new();
    let mut put = |from: &Path, to: &Path| {
        if to.exists() {
            let kept = beside(to, suffix);
            disk.rename(to, &kept).map_err(|source| failed(&kept, source))?;
            replaced.push(kept);
        }
        disk.rename(from, to).map_err(|source| failed(to, source))
    };
    put(&new.join("state"), state)?;
    if logs_in_state.is_none() {
        put(&new_logs, logs)?;
    }
    disk.remove_directory(&new).map_err(|source| failed(&new, source))?;
    for parent in [state, logs].into_iter().filter_map(|directory| directory.parent()) {
        disk.sync_directory(parent).map_err(|source| failed(parent, source))?;
    }
    Ok(Restored { replaced, log: copied.log, bytes: copied.bytes })
}

fn failed(path: &Path, source: io::Error) -> BackupError {
    OpenError::File { path: path.to_owned(), source }.into()
}

/// Copies the directories of `paths`, and the token file if it is in one of them, to `state` and `logs` in `directory`,
/// which is created.
///
/// The copy has every event that was on disk before the call, and no number between its first and its last event is
/// missing unless the log itself lacks it.
/// An incomplete copy has the name of the directory with `.new` added; on failure it is removed.
pub fn back_up(paths: &Paths, token_file: Option<&Path>, directory: &Path) -> Result<Backup, BackupError> {
    let disk = Disk::default();
    let refused = |reason| BackupError::Directory { directory: directory.to_owned(), reason };
    match fs::read_dir(directory).map(|mut entries| entries.next().is_some()) {
        Ok(true) => return Err(refused("is not empty")),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(refused("is not a directory"));
        }
        // Creating the directory reports any other problem.
        Ok(false) | Err(_) => {}
    }
    if [&paths.state_dir, &paths.logs_dir].iter().any(|kept| directory.starts_with(kept)) {
        return Err(refused("is in a directory of codexd"));
    }
    let unfinished = beside(directory, "new");
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::File { path, source }
    };
    disk.create_new_directory(&unfinished).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => BackupError::Unfinished { directory: unfinished.clone() },
        _ => failed(&unfinished)(error).into(),
    })?;
    let copied = copy(&disk, paths, token_file, &unfinished).and_then(|copied| {
        disk.sync_directory(&unfinished).map_err(failed(&unfinished))?;
        disk.rename(&unfinished, directory).map_err(failed(directory))?;
        Ok(copied)
    });
    let (log, bytes) = match copied {
        Ok(copied) => copied,
        Err(error) => {
            // The first error is the one to report.
            let _ = disk.remove_directory(&unfinished);
            return Err(error);
        }
    };
    if let Some(parent) = directory.parent() {
        disk.sync_directory(parent).map_err(failed(parent))?;
    }
    Ok(Backup { directory: directory.to_owned(), log, bytes })
}

fn copy(
    disk: &Disk,
    paths: &Paths,
    token_file: Option<&Path>,
    to: &Path,
) -> Result<(CopiedLog, u64), BackupError> {
    let (state, logs) = (to.join("state"), to.join("logs"));
    for directory in [&state, &logs] {
        let failed = |source| OpenError::File { path: directory.clone(), source };
        disk.create_new_directory(directory).map_err(failed)?;
    }
    let mut copy = Copy { disk, to: &state, bytes: 0, known: 0, files: 0 };
    copy.file(&paths.identity, Identity::VERSION)?;
    copy.file(&paths.records, RecordsFile::VERSION)?;
    copy.file(&paths.session_registry, FoundRegistry::VERSION)?;
    copy.file(&paths.daemon_state, DaemonFile::<()>::VERSION)?;
    copy.file(&paths.recent_events, RecentFile::<()>::VERSION)?;
    copy.file(&paths.hooks, HooksFile::VERSION)?;
    copy.file(&paths.hook_cursors, CursorsFile::VERSION)?;
    let Copy { known, files, .. } = copy;
    // The token file, if it is in the state directory, where "codexd token" puts it.
    let default_token = paths.state_dir.join(AUTH_TOKEN_NAME);
    let token = token_file.filter(|path| path.parent() == default_token.parent());
    copy.file(token.unwrap_or(&default_token), u32::MAX)?;
    disk.sync_directory(&state).map_err(|source| OpenError::File { path: state.clone(), source })?;

    let events = journal::find(&paths.events_dir, &paths.logs_dir);
    let mut tries = 1..=MAX_LOG_COPY_RETRIES;
    let log = loop {
        let log = journal::copy(disk, events, &logs).map_err(|failure| match failure {
            OpenFailure::Newer { version, known } => {
                OpenError::Newer { path: events.join("event-log.json"), version, known }
            }
            OpenFailure::Io(source) => OpenError::File { path: events.to_owned(), source },
        });
        let log = match log {
            Err(OpenError::File { source, .. }) if files == 0 && source.kind() == io::ErrorKind::NotFound => {
                CopiedLog::default()
            }
            log => log?,
        };
        let last = log.events.map_or(0, |(_, last)| last);
        if files == 0 && last == 0 {
            let (state, logs) = (paths.state_dir.clone(), events.to_owned());
            return Err(BackupError::Nothing { state, logs });
        }
        if last >= known {
            break log;
        }
        if tries.next().is_none() {
            return Err(BackupError::Behind { logs: events.to_owned(), last, known });
        }
        std::thread::sleep(LOG_COPY_INTERVAL);
    };
    let bytes = copy.bytes + log.bytes + copy_attachments(disk, &events.join("attachments"), &logs)?;
    Ok((log, bytes))
}

/// Copies the attachments, after the log that names them; returns their size.
fn copy_attachments(disk: &Disk, from: &Path, logs: &Path) -> Result<u64, OpenError> {
    let failed = |source| OpenError::File { path: from.to_owned(), source };
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries.map_err(failed)?,
    };
    let to = logs.join("attachments");
    disk.create_new_directory(&to).map_err(failed)?;
    let mut bytes = 0;
    for entry in entries {
        let entry = entry.map_err(failed)?;
        // One that is removed meanwhile is named by nothing.
        if let Some(data) = disk.read(&entry.path()).map_err(failed)? {
            disk.replace(&to.join(entry.file_name()), &data).map_err(failed)?;
            bytes += data.len() as u64;
        }
    }
    Ok(bytes)
}

/// Copies the state files and sums up what they contain.
struct Copy<'a> {
    disk: &'a Disk,
    to: &'a Path,
    bytes: u64,
    /// The newest event that was on disk, according to the files.
    known: u64,
    files: usize,
}

impl Copy<'_> {
    /// Copies a file unchanged if it exists; fails when its format version is above `known`.
    fn file(&mut self, path: &Path, known: u32) -> Result<(), OpenError> {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Head {
            format_version: u32,
            through_seq: u64,
            synced_through: Option<u64>,
        }
        let failed = |source| OpenError::File { path: path.to_owned(), source };
        let (Some(text), Some(name)) = (self.disk.read(path).map_err(failed)?, path.file_name()) else {
            return Ok(());
        };
        // The next start sets an invalid file aside, in the copy as in the original.
        let head: Head = serde_json::from_slice(&text).unwrap_or_default();
        if head.format_version > known {
            return Err(OpenError::Newer { path: path.to_owned(), version: head.format_version, known });
        }
        // A log that cannot be written ends before the newest event.
        self.known = self.known.max(head.synced_through.unwrap_or(head.through_seq).min(head.through_seq));
        self.bytes += text.len() as u64;
        self.files += 1;
        let to = self.to.join(name);
        self.disk.replace(&to, &text).map_err(|source| OpenError::File { path: to, source })
    }
}
