//! The installed Codex: the version of the file that the server command names now, which may have been replaced since the
//! app-server was started; what is known of it. `installed_check` looks at the file.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::files::ProgramFile;

/// How often the file is looked at without a request for it.
pub(super) const INSTALLED_CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// What is known of the installed Codex.
#[derive(Debug, Default)]
pub(super) struct Installed {
    /// Held while the file is looked at, so that it is asked once.
    pub(super) checking: tokio::sync::Mutex<()>,
    known: Mutex<Known>,
}

#[derive(Debug, Default, Clone)]
pub(super) struct Known {
    /// The file that was asked for its version, its answer, and how often it was asked.
    pub(super) asked: Option<(ProgramFile, Option<String>, u32)>,
    /// The version of the file as it is now.
    pub(super) version: Option<String>,
    /// Whether the file is another than the one that the app-server was started from, and reports no version.
    pub(super) is_unknown: bool,
    /// What the last event was about: the version that ran, and the file.
    pub(super) reported: Option<(String, ProgramFile)>,
}

impl Installed {
    /// The version of the file as it was when it was looked at last.
    pub(super) fn version(&self) -> Option<String> {
        self.known().version.clone()
    }

    /// What to say about an app-server of this version: that the installed one is another.
    pub(super) fn note(&self, running: &str, is_ours: bool) -> Option<String> {
        let then =
            if is_ours { " \"codexd app-server restart --when-idle\" starts the installed one." } else { "" };
        let known = self.known();
        match &known.version {
            Some(installed) if installed != running => {
                Some(format!("Codex {installed} is installed, but {running} runs.{then}"))
            }
            None if known.is_unknown => Some(format!(
                "The program of Codex has changed since {running} was started, and does not report its version.{then}"
            )),
            _ => None,
        }
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
