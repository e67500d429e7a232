//! [`Event`]: one event of the log.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::change::Change;
use super::level::Level;

/// An event as it is read back from the log.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Its sequence number; it rises strictly over the whole log.
    pub seq: u64,
    /// When it was recorded, RFC 3339 in UTC with milliseconds.
    pub created_at: String,
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
    /// The change this event makes to the records.
    pub fn change(&self) -> Change {
        Change::read(&self.event_type, &self.message, &self.detail)
    }
}
