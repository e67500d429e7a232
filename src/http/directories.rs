//! Checks the directories in requests, on threads that may hang.
//!
//! `routes::sessions` and `routes::turns` call [`SharedState::check_cwd`]. A directory may be on a file system that
//! does not answer. Each check walks from the root down and records its position in [`CHECKS_IN_PROGRESS`], so the hanging
//! directory is known.
//!
//! Invariant: once a directory hangs, paths below it are rejected at once and take no further thread.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::app_state::SharedState;
use super::error::ApiError;
use crate::blocking::{Pool, Unanswered};

/// How long the check of a directory may take.
const DIRECTORY_TIMEOUT: Duration = Duration::from_secs(5);
/// How many entries of a directory may hang before all of its entries are rejected.
const MAX_HANGING_ENTRIES: usize = 4;

static DIRECTORY_POOL: Pool = Pool::new("directories", 16, 112);
static CHECKS_IN_PROGRESS: ChecksInProgress = ChecksInProgress(Mutex::new(None));

impl SharedState {
    /// Rejects settings whose `cwd` is not a directory: the app-server accepts any path (measured).
    ///
    /// The directories of an app-server on another machine are unknown, so the path is forwarded unchecked.
    pub(super) async fn check_cwd(&self, settings: &Map<String, Value>) -> Result<(), ApiError> {
        match settings.get("cwd").and_then(Value::as_str) {
            Some(cwd) if self.daemon.config().server.endpoint.is_on_this_machine() => {
                check_directory("cwd", cwd).await
            }
            _ => Ok(()),
        }
    }
}

/// Rejects a path that is not the absolute path of an existing directory; `name` is the field that holds it.
async fn check_directory(name: &str, path: &str) -> Result<(), ApiError> {
    let checked = {
        let path = PathBuf::from(path);
        DIRECTORY_POOL.run(DIRECTORY_TIMEOUT, move || is_directory(&path, &CHECKS_IN_PROGRESS)).await
    };
    match checked {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => {
            Err(ApiError::bad_request(format!("{name} must be an existing directory; {path:?} is not.")))
        }
        Ok(Err(HangingDirectory(directory))) => Err(ApiError::storage_unavailable(format!(
            "{name} cannot be checked: the directory {directory:?} did not answer within {} s; check the file \
             system that holds it, or use another directory.",
            DIRECTORY_TIMEOUT.as_secs()
        ))),
        Err(unanswered @ (Unanswered::Late(_) | Unanswered::Busy(_) | Unanswered::Failed(_))) => {
            Err(ApiError::storage_unavailable(format!(
                "{name} cannot be checked: the directory {path:?} {unanswered}; check the file system that holds \
                 it, or use another directory."
            )))
        }
    }
}

/// A directory that does not answer.
#[derive(Debug, PartialEq, Eq)]
struct HangingDirectory(PathBuf);

/// Whether `path` is a directory. Blocks, forever if a directory on its path hangs.
#[expect(clippy::disallowed_methods, reason = "it runs on a thread of the pool, which may hang")]
fn is_directory(path: &Path, checks: &ChecksInProgress) -> Result<bool, HangingDirectory> {
    let mut steps: Vec<_> = path.ancestors().collect();
    steps.reverse();
    let mut is_directory = false;
    for step in steps {
        let _in_progress = checks.begin(step)?;
        is_directory = step.is_dir();
        if !is_directory {
            break;
        }
    }
    Ok(is_directory)
}

/// The current step of each check, by parent directory.
#[derive(Debug)]
struct ChecksInProgress(Mutex<Option<Entries>>);

/// By directory: the entries that are being checked, and since when.
type Entries = HashMap<PathBuf, Vec<(PathBuf, Instant)>>;

impl ChecksInProgress {
    /// Records that the check of `step` starts, until the result is dropped; an error if it is known to hang.
    fn begin<'a>(&'a self, step: &'a Path) -> Result<CheckInProgress<'a>, HangingDirectory> {
        let parent = step.parent().unwrap_or(step);
        let mut checks = self.lock();
        let entries = checks.get_or_insert_default().entry(parent.to_owned()).or_default();
        let hanging = || entries.iter().filter(|(_, since)| since.elapsed() >= DIRECTORY_TIMEOUT);
        if let Some((entry, _)) = hanging().find(|(entry, _)| entry == step) {
            return Err(HangingDirectory(entry.clone()));
        }
        if hanging().count() >= MAX_HANGING_ENTRIES {
            return Err(HangingDirectory(parent.to_owned()));
        }
        entries.push((step.to_owned(), Instant::now()));
        Ok(CheckInProgress { checks: self, step })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Entries>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One step of a check.
#[derive(Debug)]
struct CheckInProgress<'a> {
    checks: &'a ChecksInProgress,
    step: &'a Path,
}

impl Drop for CheckInProgress<'_> {
    fn drop(&mut self) {
        let parent = self.step.parent().unwrap_or(self.step);
        let mut checks = self.checks.lock();
        let Some(checks) = checks.as_mut() else { return };
        let Some(entries) = checks.get_mut(parent) else { return };
        if let Some(index) = entries.iter().position(|(entry, _)| entry == self.step) {
            entries.swap_remove(index);
        }
        if entries.is_empty() {
            checks.remove(parent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hanging_directory_is_rejected_without_blocking_siblings() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("a/b")).unwrap();
        std::fs::write(directory.path().join("file"), "").unwrap();
        let checks = ChecksInProgress(Mutex::new(None));
        assert_eq!(is_directory(&directory.path().join("a/b"), &checks), Ok(true));
        assert_eq!(is_directory(&directory.path().join("file"), &checks), Ok(false));
        assert_eq!(is_directory(&directory.path().join("a/none/c"), &checks), Ok(false));
        assert!(checks.lock().as_ref().unwrap().is_empty());

        let Some(since) = Instant::now().checked_sub(DIRECTORY_TIMEOUT) else { return };
        let hang = |name: &str| {
            let mut checks = checks.lock();
            let entries = checks.get_or_insert_default().entry(directory.path().to_owned()).or_default();
            entries.push((directory.path().join(name), since));
        };
        hang("hanging");
        assert_eq!(
            is_directory(&directory.path().join("hanging/x"), &checks),
            Err(HangingDirectory(directory.path().join("hanging")))
        );
        assert_eq!(is_directory(&directory.path().join("a/b"), &checks), Ok(true));
        (1..MAX_HANGING_ENTRIES).for_each(|number| hang(&format!("hanging-{number}")));
        assert_eq!(
            is_directory(&directory.path().join("a/b"), &checks),
            Err(HangingDirectory(directory.path().to_owned()))
        );
        assert_eq!(is_directory(Path::new("/"), &checks), Ok(true));
    }
}
