//! The records on disk: JSON files that are replaced whole or not at all.

use std::io;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};

use super::daemon::DaemonState;
use super::records::State;
pub use super::records_file::RecordsFile;
pub use super::registry_file::{FoundRegistry, RegistryFile, RegistryHead};
use super::session::Session;
use super::session_forms::SessionBody;
use crate::storage::Disk;
use crate::timestamp::Timestamp;

/// A file whose layout has a separate version.
pub trait Layout {
    /// The version that this program writes; it reads all up to this one.
    const VERSION: u32;

    /// The version of this file, and the newest event it includes, 0 if it is no snapshot of the log.
    fn head(&self) -> (u32, u64);
}

impl Layout for Identity {
    const VERSION: u32 = 1;

    fn head(&self) -> (u32, u64) {
        (self.format_version, 0)
    }
}

impl Layout for RecordsFile {
    const VERSION: u32 = Self::FORMAT;

    fn head(&self) -> (u32, u64) {
        (self.format_version, self.through_seq)
    }
}

impl Layout for FoundRegistry {
    const VERSION: u32 = RegistryFile::FORMAT;

    fn head(&self) -> (u32, u64) {
        (self.format_version(), self.through().0)
    }
}

impl Layout for RegistryHead {
    const VERSION: u32 = RegistryFile::FORMAT;

    fn head(&self) -> (u32, u64) {
        (self.format_version, self.through_seq)
    }
}

impl<D> Layout for DaemonFile<D> {
    const VERSION: u32 = 1;

    fn head(&self) -> (u32, u64) {
        (self.format_version, self.through_seq)
    }
}

impl<E> Layout for RecentFile<E> {
    const VERSION: u32 = 1;

    fn head(&self) -> (u32, u64) {
        (self.format_version, self.through_seq)
    }
}

/// How much is read of each end of a large file.
const ENDS_BYTES: usize = 4096;
/// The highest number of an event that is believed: what JSON readers count exactly.
const MAX_SEQ: u64 = 1 << 53;

/// The identity of the daemon; created once for a state directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// The layout's version.
    #[serde(default)]
    pub format_version: u32,
    /// A random id.
    pub daemon_id: String,
    /// The node's name as configured when the identity was made.
    pub node_id: String,
    /// The repository it serves, if one was given.
    pub repo_root: Option<String>,
    /// RFC 3339, UTC, milliseconds.
    pub created_at: Timestamp,
    /// The version of codexd that made it; empty if the file contains `null`, as that of the first daemon of this name did.
    #[serde(deserialize_with = "or_empty")]
    pub version: String,
}

fn or_empty<'de, D: serde::Deserializer<'de>>(version: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(version)?.unwrap_or_default())
}

/// What `daemon-state.json` holds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DaemonFile<D> {
    /// The layout's version.
    pub format_version: u32,
    /// The newest event it includes.
    pub through_seq: u64,
    /// The newest event that was known to be in the log on disk when it was written; absent in files of earlier versions,
    /// which were never ahead of the log.
    pub synced_through: Option<u64>,
    /// The record; what is written has the settings of the app-server too.
    #[serde(flatten)]
    pub daemon: D,
}

impl<'de, R: DeserializeOwned> Deserialize<'de> for DaemonFile<R> {
    /// Reads the object twice: serde's `flatten` cannot read numbers that are kept to the digit.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Head {
            format_version: u32,
            through_seq: u64,
            synced_through: Option<u64>,
        }
        let value = serde_json::Value::deserialize(deserializer)?;
        // A list would be read as an object without its keys.
        if !value.is_object() {
            return Err(Error::custom("it is no object"));
        }
        let Head { format_version, through_seq, synced_through } =
            Head::deserialize(&value).map_err(Error::custom)?;
        let daemon = serde_json::from_value(value).map_err(Error::custom)?;
        Ok(Self { format_version, through_seq, synced_through, daemon })
    }
}

/// What `recent-events.json` holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecentFile<E> {
    /// The layout's version.
    #[serde(default)]
    pub format_version: u32,
    /// The newest event it includes.
    #[serde(default)]
    pub through_seq: u64,
    /// The newest event that was known to be in the log on disk when it was written; absent in files of earlier versions,
    /// which were never ahead of the log.
    #[serde(default)]
    pub synced_through: Option<u64>,
    /// How many events are kept at most.
    pub max_entries: usize,
    /// The time of the newest one.
    pub updated_at: Option<Timestamp>,
    /// Oldest first.
    pub events: Vec<E>,
}

impl State {
    /// The state that two snapshots hold; the log is to be folded in from the older of the two.
    ///
    /// A crash can leave them apart, or one of them can be lost; each half then ignores the events it already has.
    pub fn restore(records: Option<RecordsFile>, daemon: Option<DaemonFile<DaemonState>>) -> Self {
        let mut state = Self::default();
        if let Some(records) = records {
            records.restore_to(&mut state);
        }
        if let Some(daemon) = daemon {
            state.daemon_through = daemon.through_seq;
            state.daemon = daemon.daemon;
        }
        state.through = state.sessions_through.min(state.daemon_through);
        state
    }
}

impl<D> DaemonFile<D> {
    /// The file that holds the daemon record of `state`, as `view` shows it.
    pub fn of(state: &State, view: impl FnOnce(DaemonState) -> D) -> Self {
        Self {
            format_version: Self::VERSION,
            through_seq: state.through,
            synced_through: None,
            daemon: view(state.daemon.clone()),
        }
    }
}

/// What was found where a snapshot should be.
#[derive(Debug)]
pub enum Loaded<T> {
    /// There is no file.
    Missing,
    /// It was read.
    Good(T),
    /// It could not be used and was moved out of the way.
    SetAside {
        /// Why.
        reason: String,
        /// Where it is now.
        moved_to: PathBuf,
    },
    /// A newer codexd wrote it; it stays as it is, and must not be written over.
    Newer {
        /// The version of its layout.
        version: u32,
        /// The highest version that this program knows.
        known: u32,
    },
}

/// Reads a snapshot.
///
/// What is no valid snapshot is moved out of the way and reported, never overwritten in place.
/// Fails when the file is not ours, or cannot be read or moved.
pub fn load<T: DeserializeOwned + Layout>(disk: &Disk, path: &Path) -> io::Result<Loaded<T>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        format_version: u32,
    }
    if std::fs::symlink_metadata(path).is_ok_and(|found| !found.is_file() && !found.is_symlink()) {
        let moved_to = disk.set_aside(path)?;
        return Ok(Loaded::SetAside { reason: "it is not a file".to_owned(), moved_to });
    }
    let Some(text) = disk.read(path)? else { return Ok(Loaded::Missing) };
    let reason = match serde_json::from_slice::<T>(&text) {
        Ok(value) => match value.head() {
            (version, _) if version > T::VERSION => return Ok(Loaded::Newer { version, known: T::VERSION }),
            (_, through) if through > MAX_SEQ => format!("it goes through event {through}, which cannot be"),
            _ => return Ok(Loaded::Good(value)),
        },
        Err(error) => match serde_json::from_slice(&text) {
            Ok(Version { format_version: version }) if version > T::VERSION => {
                return Ok(Loaded::Newer { version, known: T::VERSION });
            }
            _ => error.to_string(),
        },
    };
    Ok(Loaded::SetAside { reason, moved_to: disk.set_aside(path)? })
}

/// Reads the head of `session-registry.json`.
///
/// Of a large one only the ends are read: it is written again soon after the start.
pub fn load_registry_head(disk: &Disk, path: &Path) -> io::Result<Loaded<RegistryHead>> {
    match disk.read_ends(path, ENDS_BYTES)?.and_then(|(head, tail)| RegistryHead::of_ends(&head, &tail)) {
        Some(head) if (1..=RegistryHead::VERSION).contains(&head.head().0) && head.head().1 <= MAX_SEQ => {
            Ok(Loaded::Good(head))
        }
        _ => load(disk, path),
    }
}

/// Replaces a snapshot; when this returns it is on disk.
pub fn save(disk: &Disk, path: &Path, value: &impl Serialize) -> io::Result<()> {
    disk.replace(path, &text(value)?)
}

/// The text of one session in a snapshot, not indented.
pub fn session_text(session: &Session) -> io::Result<Vec<u8>> {
    text(&SessionBody::from(session))
}

/// The text of a snapshot.
pub fn text(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(text)
}
