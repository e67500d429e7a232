//! What an event is before it has a number.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::event::Change;

/// How much attention an event wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The ordinary course of things.
    Info,
    /// Something to look at when there is time.
    Warn,
    /// Something failed.
    Error,
}

impl Level {
    /// The word in the log: `info`, `warn` or `error`.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }
}

/// An event that has not been numbered yet.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// How much attention it wants.
    pub level: Level,
    /// Its name, such as `turn.accepted`.
    pub event_type: &'static str,
    /// One sentence for a person.
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
