//! The decision about the directory of a thread.

use crate::state::Trust;

/// What is decided about the directory of one thread, each time that the thread is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::daemon) struct TrustDecision {
    /// What is passed to the app-server.
    pub(in crate::daemon) trust: Trust,
    /// The directory, when it is known.
    pub(in crate::daemon) cwd: Option<String>,
    /// The `.codex` directories that are not used, because the directory is not trusted.
    pub(in crate::daemon) left_out: Vec<String>,
    /// Why the app-server's settings could not be read, when they could not.
    pub(in crate::daemon) unreadable: Option<String>,
    /// The answer that holds for the thread, and is remembered with its session; none was given.
    pub(in crate::daemon) answer: Option<bool>,
}
