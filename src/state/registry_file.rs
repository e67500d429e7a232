//! `session-registry.json`: the sessions as the API returns them, for other programs.
//!
//! It is a view of the records. A start continues from `records.json` and reads this file only if there is no such file:
//! up to format version 3 it held all records.

use std::sync::Arc;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::records::State;
use super::records_file::RecordsFile;
use super::session::Session;
use super::session_forms::write_sessions;
use crate::timestamp::Timestamp;

/// What `session-registry.json` holds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistryFile {
    /// The layout's version.
    pub format_version: u32,
    /// The newest event it includes.
    pub through_seq: u64,
    /// The newest event that was known to be in the log on disk when it was written.
    pub synced_through: Option<u64>,
    /// When a session last changed.
    pub updated_at: Option<Timestamp>,
    /// All sessions, oldest first.
    #[serde(serialize_with = "write_sessions")]
    pub sessions: Vec<Arc<Session>>,
}

impl RegistryFile {
    /// A codexd that knows only version 3 would take the file for all records, and write it with what it takes for them.
    pub(super) const FORMAT: u32 = 4;

    /// The file that holds `state`'s sessions.
    pub fn of(state: &State) -> Self {
        Self {
            format_version: Self::FORMAT,
            through_seq: state.through,
            synced_through: None,
            updated_at: state.sessions_updated_at.clone(),
            sessions: state.sessions.iter().cloned().collect(),
        }
    }
}

/// The last version that had all records.
const LAST_WITH_RECORDS: u32 = 3;

/// `session-registry.json` of any version, where it is the only file with sessions.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct FoundRegistry(RecordsFile);

impl FoundRegistry {
    /// The newest event that it includes, and the newest one that was in the log on disk.
    pub fn through(&self) -> (u64, Option<u64>) {
        (self.0.through_seq, self.0.synced_through)
    }

    /// The layout's version.
    pub(super) fn format_version(&self) -> u32 {
        self.0.format_version
    }

    /// The records that it has. A file of sessions alone includes no event: what belongs to them is in the log.
    pub fn into_records(mut self) -> RecordsFile {
        if self.0.format_version > LAST_WITH_RECORDS {
            self.0.through_seq = 0;
        }
        self.0
    }
}

/// The part of `session-registry.json` that a start checks when `records.json` has the sessions.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistryHead {
    /// The layout's version.
    #[serde(default)]
    pub(super) format_version: u32,
    /// The newest event it includes.
    #[serde(default)]
    pub through_seq: u64,
    /// The newest event that was known to be in the log on disk when it was written.
    #[serde(default)]
    pub synced_through: Option<u64>,
    #[serde(rename = "sessions")]
    _sessions: Vec<IgnoredAny>,
}

impl RegistryHead {
    /// Reads it from the beginning of a file that has also this end.
    pub(super) fn of_ends(head: &[u8], tail: &[u8]) -> Option<Self> {
        const SESSIONS: &[u8] = b"\n  \"sessions\": [";
        let end = memchr::memmem::find(head, SESSIONS)? + SESSIONS.len();
        if !tail.ends_with(b"\n  ]\n}\n") {
            return None;
        }
        serde_json::from_slice(&[head.get(..end)?, b"]}"].concat()).ok()
    }
}
