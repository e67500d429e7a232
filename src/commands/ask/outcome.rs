//! How far a turn has come, and how it ended.

use crate::codex::protocol::values::TurnStatus;

/// The progress of a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::commands) enum TurnState {
    /// In the queue, with this queue ID.
    Queued(String),
    /// Started, with this turn ID.
    Started(String),
}

/// How a turn ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::commands) enum TurnOutcome {
    Completed,
    Interrupted,
    /// Removed from the queue before it started.
    Withdrawn,
    /// With the reason, if it is known.
    Failed(Option<String>),
}

impl TurnOutcome {
    /// Converts the turn status of Codex; `None` while the turn is in progress.
    pub(super) fn of(status: &str, error: Option<String>) -> Option<Self> {
        Some(match TurnStatus::of(status) {
            TurnStatus::InProgress => return None,
            TurnStatus::Completed => Self::Completed,
            TurnStatus::Interrupted => Self::Interrupted,
            TurnStatus::Failed => Self::Failed(error),
            TurnStatus::Other(_) => Self::Failed(error.or_else(|| Some(format!("its status is {status}.")))),
        })
    }
}
