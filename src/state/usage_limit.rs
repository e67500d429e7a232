//! The usage limits that turns have reached: until when queued turns wait, and which one is tried first.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{SessionId, ThreadId, TurnId};
use crate::timestamp::Timestamp;

/// What follows when a turn reaches the usage limit of its account; the turn itself is never sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnUsageLimit {
    /// Queued turns wait until the limit ends.
    #[default]
    Hold,
    /// The same, and then one new turn asks Codex to continue.
    Continue,
    /// Nothing: the next queued turn starts.
    Fail,
}

impl OnUsageLimit {
    /// Whether it is the default.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A usage limit that a turn has reached; it is known until a later turn completes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageLimit {
    /// The event that reported it.
    pub since_seq: u64,
    /// The turn that reached it last.
    pub turn_id: Option<TurnId>,
    /// Why turns wait, as a sentence.
    pub reason: String,
    /// When a turn is tried, RFC 3339, UTC, milliseconds.
    pub until: Timestamp,
    /// Whether Codex reported that time.
    pub is_reported: bool,
    /// How many turns in a row were tried and reached it again.
    pub failed_trials: u32,
    /// The queued turn that is tried.
    pub trial: Option<Trial>,
}

/// The one queued turn that is started while a usage limit is known, to find out whether it has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trial {
    /// Its session.
    pub session_id: SessionId,
    /// Its thread.
    pub thread_id: ThreadId,
    /// Its ID in the queue.
    pub queue_id: String,
    /// The turn that it became.
    pub turn_id: Option<TurnId>,
}
