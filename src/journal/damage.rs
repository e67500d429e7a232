//! Events that the log has lost.

use std::path::PathBuf;

/// Events that the log once had and has no more: the first and the last number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// The first number that is missing.
    pub from: u64,
    /// The last number that is missing.
    pub through: u64,
}

/// Events that the log has no more: a run of lines that cannot be read, or lines that are not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file with the lines, or the one that begins or goes on behind what is not there.
    pub path: PathBuf,
    /// Which damage this is: the first number of its segment, and its offset in bytes.
    pub key: (u64, u64),
    /// The last good event before it; 0 when there is none.
    pub after: u64,
    /// The first good event behind it, if there is one.
    pub before: Option<u64>,
    /// How many bytes it takes; 0 for lines that are not there.
    pub bytes: u64,
    /// The numbers of the events that are missing, as far as lines on both sides tell.
    pub missing: Option<Hole>,
}

impl Damage {
    /// The numbers that are missing, if lines on both sides tell them.
    pub(super) fn hole(&self) -> Option<Hole> {
        self.missing
    }
}
