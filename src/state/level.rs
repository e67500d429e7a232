//! [`Level`]: how much attention an event needs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much attention an event needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The ordinary course of things.
    Info,
    /// Something to check when there is time.
    Warn,
    /// Something failed.
    Error,
}

impl Level {
    /// The name in the log: `info`, `warn` or `error`.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }
}
