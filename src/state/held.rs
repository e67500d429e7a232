//! Why the turns that wait in a session do not begin: [`Held`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

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
    /// when the error says nothing about the next turn.
    ///
    /// The words are those of `CodexErrorInfo` in codex 0.140.0 to 0.171.0; an unknown one holds nothing.
    pub fn of_error(error: &Value) -> Option<Self> {
        let info = &error["codexErrorInfo"];
        if let Some(word) = info.as_str() {
            return match word {
                "usageLimitExceeded" | "rateLimitExceeded" | "sessionBudgetExceeded" => {
                    Some(HoldCause::UsageLimit)
                }
                "unauthorized" => Some(HoldCause::Unauthorized),
                "serverOverloaded"
                | "flexUnavailable"
                | "policyCapacityUnavailable"
                | "modelNotFound"
                | "internalServerError" => Some(HoldCause::ModelUnavailable),
                _ => None,
            };
        }
        // What a provider answered when Codex had tried as often as it is set to. The one about a connection that was
        // lost in the middle of an answer is not among them: the next turn may well get through.
        let failed =
            ["httpConnectionFailed", "responseStreamConnectionFailed", "responseTooManyFailedAttempts"];
        let failed = failed.iter().find_map(|name| info.get(name))?;
        Some(match failed["httpStatusCode"].as_u64() {
            Some(401 | 403) => HoldCause::Unauthorized,
            _ => HoldCause::ModelUnavailable,
        })
    }

    /// Whether codexd finds out by itself that the cause is gone.
    pub fn ends_by_itself(self) -> bool {
        matches!(self, HoldCause::ThreadUnavailable | HoldCause::ThreadLocked)
    }

    /// Whether a turn that failed is the cause, so that a later one that completes shows that the cause is gone.
    pub fn is_a_failed_turn(self) -> bool {
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
    pub since: String,
    /// When the cause ends as far as Codex told, RFC 3339, UTC, milliseconds; the queue does not go on by itself then.
    pub until: Option<String>,
    /// Whether the queue goes on by itself when the cause is gone; else by `POST …/queue/resume`.
    pub automatic: bool,
    /// The waiting turn that is the cause, by its name in the queue.
    pub queue_id: Option<String>,
    /// The turn that failed, when that is the cause.
    pub turn_id: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_that_the_next_turn_would_meet_too_holds_the_queue() {
        for (info, cause) in [
            (json!("usageLimitExceeded"), Some(HoldCause::UsageLimit)),
            (json!("rateLimitExceeded"), Some(HoldCause::UsageLimit)),
            (json!("unauthorized"), Some(HoldCause::Unauthorized)),
            (json!("serverOverloaded"), Some(HoldCause::ModelUnavailable)),
            (json!("internalServerError"), Some(HoldCause::ModelUnavailable)),
            (json!({"httpConnectionFailed": {"httpStatusCode": 401}}), Some(HoldCause::Unauthorized)),
            (json!({"httpConnectionFailed": {"httpStatusCode": null}}), Some(HoldCause::ModelUnavailable)),
            (
                json!({"responseTooManyFailedAttempts": {"httpStatusCode": 429}}),
                Some(HoldCause::ModelUnavailable),
            ),
            (json!({"responseStreamDisconnected": {"httpStatusCode": null}}), None),
            (json!("contextWindowExceeded"), None),
            (json!("badRequest"), None),
            (json!("sandboxError"), None),
            (json!("other"), None),
            (json!("a word of a later Codex"), None),
            (json!({"a form of a later Codex": {}}), None),
            (Value::Null, None),
        ] {
            assert_eq!(HoldCause::of_error(&json!({ "codexErrorInfo": info })), cause, "{info}");
        }
        assert_eq!(HoldCause::of_error(&Value::Null), None);
    }
}
