//! How a generation ended. The supervisor task decides from it when to restart.

use std::time::Duration;

use super::availability::Failure;
use crate::codex::process::exit::Exit;
use crate::codex::process::stderr_tail::{self, ERROR_OUTPUT_LABEL};

/// How many characters of the error line of stderr are quoted.
const MAX_QUOTED_CHARS: usize = 300;

/// How a generation ended.
#[derive(Debug)]
pub(crate) struct Termination {
    /// Why it ended, as a sentence.
    pub(crate) reason: String,
    /// How its process ended, if known.
    pub(crate) exit: Option<Exit>,
    /// How long it accepted calls.
    pub(crate) healthy: Duration,
    /// The last lines of its stderr.
    pub(crate) stderr_tail: Vec<String>,
    /// The kind of failure.
    pub(crate) failure: Failure,
    /// Whether it was ended on purpose so that another generation replaces it.
    pub(crate) is_retired: bool,
}

impl Termination {
    /// The termination of a generation that never accepted calls.
    pub(crate) fn failed_to_start(reason: String, failure: Failure) -> Self {
        Self {
            reason,
            exit: None,
            healthy: Duration::ZERO,
            stderr_tail: Vec::new(),
            failure,
            is_retired: false,
        }
    }

    /// Appends the error line of stderr to the reason.
    ///
    /// Only a process that exited by itself with a failure explains it on stderr: one ended by a signal could not, and one
    /// that exited with 0 reports no failure.
    pub(crate) fn append_error_line(&mut self) {
        let failed =
            self.exit.as_ref().is_some_and(|exit| !exit.expected && exit.code.is_some_and(|code| code != 0));
        if failed && let Some(line) = stderr_tail::error_line(&self.stderr_tail) {
            let line: String = line.trim_end_matches('.').chars().take(MAX_QUOTED_CHARS).collect();
            self.reason = format!("{} {ERROR_OUTPUT_LABEL}{line}.", self.reason);
        }
    }
}
