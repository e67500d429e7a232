//! A restart that a client requested; `restart` carries it out.

use tokio::time::Instant;

/// A restart that was requested, until the app-server has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::daemon) struct PendingRestart {
    pub(super) generation: u64,
    /// Until when new turns wait, so that those that run can end.
    pub(super) drain_until: Instant,
    /// Whether that time is not over.
    pub(super) is_draining: bool,
    pub(super) force: bool,
    /// Whether the shared app-server was asked to end.
    pub(super) is_ending: bool,
}

impl PendingRestart {
    /// Whether no new turn is to start.
    pub(in crate::daemon) fn holds_new_turns(&self) -> bool {
        self.is_draining || self.is_ending
    }

    pub(super) fn note(&self) -> String {
        match self.is_ending {
            false => "The app-server is restarted as soon as no turn runs.".to_owned(),
            true => "The app-server takes no new work, and is started again when what other clients run has ended; \
                     \"codexd app-server restart --force\" ends it now."
                .to_owned(),
        }
    }
}
