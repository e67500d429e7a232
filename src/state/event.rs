//! [`Event`]: one event of the log.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::events::EventDetail;
use super::level::Level;
use super::records::State;
use crate::timestamp::Timestamp;

/// An event as it is read back from the log.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Its sequence number; it rises strictly over the whole log.
    pub seq: u64,
    /// When it was recorded, RFC 3339 in UTC with milliseconds.
    pub created_at: Timestamp,
    /// How much attention it needs.
    pub level: Level,
    /// Its name.
    #[serde(rename = "type")]
    pub event_type: String,
    /// One sentence for the user.
    pub message: String,
    /// An object, or `null`.
    #[schemars(with = "Option<Map<String, Value>>")]
    pub detail: Value,
}

impl Event {
    /// What happened; `None` for an unknown type, and for a detail that is not usable.
    pub fn read(&self) -> Option<EventDetail> {
        EventDetail::read(&self.event_type, &self.detail)
    }

    /// Folds it into the records.
    pub fn apply_to(&self, state: &mut State) {
        state.apply(self.seq, &self.created_at, &self.message, self.read().as_ref());
    }
}
