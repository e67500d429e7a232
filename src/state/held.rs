//! Why the turns that wait in a session do not begin: [`Held`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::codex::protocol::errors::LastingError;
use crate::ids::TurnId;
use crate::timestamp::Timestamp;

/// What keeps the turns of a queue from beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HoldCause {
    /// Codex cannot open the thread: its history is not there, or it is archived.
    ThreadUnavailable,
    /// Another Codex process writes the thread.
    ThreadLocked,
    /// The app-server refused the first turn that waits; it did not begin.
    TurnRefused,
    /// The first turn was given to the app-server, and whether it began cannot be found out.
    OutcomeUnknown,
    /// A turn of the thread reached the usage limit of the account.
    UsageLimit,
    /// A turn of the thread failed because the login was refused.
    Unauthorized,
    /// A turn of the thread failed because the model could not be reached or had no capacity.
    ModelUnavailable,
}

impl HoldCause {
    /// Why a turn that failed with this error, in the app-server's form, should be followed by no other one; `None`
    /// if the error has no meaning for the next turn.
    pub fn of_error(error: &Value) -> Option<Self> {
        Some(match LastingError::of(error)? {
            LastingError::UsageLimit => HoldCause::UsageLimit,
            LastingError::Unauthorized => HoldCause::Unauthorized,
            LastingError::ModelUnavailable => HoldCause::ModelUnavailable,
        })
    }

    /// Whether codexd finds out by itself that the cause is gone.
    pub fn is_temporary(self) -> bool {
        matches!(self, HoldCause::ThreadUnavailable | HoldCause::ThreadLocked)
    }

    /// Whether a turn that failed is the cause, so that a later one that completes shows that the cause is gone.
    pub fn is_failed_turn(self) -> bool {
        matches!(self, HoldCause::UsageLimit | HoldCause::Unauthorized | HoldCause::ModelUnavailable)
    }
}

/// Why the turns that wait in a session do not begin; absent values are written out as `null`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// What keeps them.
    pub cause: HoldCause,
    /// The same as a sentence, with what to do.
    pub reason: String,
    /// Since when, RFC 3339, UTC, milliseconds.
    pub since: Timestamp,
    /// When codexd tries a turn again, where that is known, RFC 3339, UTC, milliseconds.
    pub until: Option<Timestamp>,
    /// Whether the queue resumes automatically when the cause is gone; otherwise only by `POST …/queue/resume`.
    pub automatic: bool,
    /// The `queueId` of the waiting turn that is the cause.
    pub queue_id: Option<String>,
    /// The turn that failed, when that is the cause.
    pub turn_id: Option<TurnId>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn hold_cause_follows_the_lasting_error_of_the_turn() {
        for (info, cause) in [
            (json!("usageLimitExceeded"), Some(HoldCause::UsageLimit)),
            (json!("unauthorized"), Some(HoldCause::Unauthorized)),
            (json!("serverOverloaded"), Some(HoldCause::ModelUnavailable)),
            (json!("contextWindowExceeded"), None),
        ] {
            assert_eq!(HoldCause::of_error(&json!({ "codexErrorInfo": info })), cause, "{info}");
        }
    }
}
