//! A turn that waits in the queue of its thread: [`QueuedTurn`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::usage_limit::OnUsageLimit;
use crate::ids::TurnId;
use crate::timestamp::Timestamp;

/// A turn that waits until its session is idle, and until its time has come.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueuedTurn {
    /// Its name.
    pub queue_id: String,
    /// When it was queued, RFC 3339, UTC, milliseconds.
    pub queued_at: Timestamp,
    /// The input of the user.
    pub input: Vec<Value>,
    /// The settings passed to the app-server, by its own names.
    pub settings: Map<String, Value>,
    /// Whether it was given to the app-server and nothing is known of the outcome.
    #[serde(default)]
    pub submitted: bool,
    /// Its position among the queued turns of its thread, for all sessions: the lowest starts first.
    #[serde(default)]
    pub order: u64,
    /// The time before which it does not start, RFC 3339, UTC, milliseconds; until then it holds no turn behind it.
    #[serde(default)]
    pub not_before: Option<Timestamp>,
    /// What follows if it reaches the usage limit.
    #[serde(default)]
    pub on_usage_limit: OnUsageLimit,
    /// The turn that reached the usage limit and that this one continues, when codexd made it; it is before all others.
    #[serde(default)]
    pub continues: Option<TurnId>,
}

impl QueuedTurn {
    /// Whether its time has come; one that was given to the app-server already may have started, so it counts as due.
    pub fn is_due(&self, now: &Timestamp) -> bool {
        self.submitted || self.not_before.as_ref().is_none_or(|at| at <= now)
    }
}
