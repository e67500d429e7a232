//! [`NewEvent`]: an event before the recorder gives it a sequence number.

use serde_json::Value;

use super::change::Change;
use super::level::Level;

/// An event that has not been numbered yet.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// How much attention it needs.
    pub level: Level,
    /// Its name, such as `turn.accepted`.
    pub event_type: &'static str,
    /// One sentence for the user.
    pub message: String,
    /// The text of a JSON object, or `None` for `null`.
    pub detail: Option<String>,
    /// What it does to the records.
    pub change: Change,
}

impl NewEvent {
    /// An event that changes no record.
    pub fn without_state_change(
        level: Level,
        event_type: &'static str,
        message: impl Into<String>,
        detail: Value,
    ) -> Self {
        Self { level, event_type, message: message.into(), detail: text_of(detail), change: Change::None }
    }

    /// An event whose change is read from its own detail, so that it cannot differ from what a restart reads.
    pub fn with_state_change(
        level: Level,
        event_type: &'static str,
        message: impl Into<String>,
        detail: Value,
    ) -> Self {
        let message = message.into();
        let change = Change::read(event_type, &message, &detail);
        Self { level, event_type, message, detail: text_of(detail), change }
    }
}

fn text_of(detail: Value) -> Option<String> {
    if detail.is_null() { None } else { Some(detail.to_string()) }
}
