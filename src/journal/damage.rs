//! Events that the log has lost, as scrubs and readers report them.

use std::path::PathBuf;

/// Events that are missing from the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// The first missing number.
    pub from: u64,
    /// The last missing number.
    pub through: u64,
}

/// A run of lines that cannot be read, or of lines that are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file with the damaged lines, or the one with the line after the missing ones.
    pub path: PathBuf,
    /// Identifies the damage: the first number of its segment and its offset in bytes.
    pub key: (u64, u64),
    /// The last intact event before it; 0 when there is none.
    pub after: u64,
    /// The first intact event after it, if there is one.
    pub before: Option<u64>,
    /// Its length in bytes; 0 for missing lines.
    pub bytes: u64,
    /// The missing numbers, as far as intact lines on both sides show them.
    pub missing: Option<Hole>,
}

impl Damage {
    /// The missing numbers, as far as intact lines on both sides show them.
    pub(super) fn hole(&self) -> Option<Hole> {
        self.missing
    }
}
