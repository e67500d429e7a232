//! The records on disk: JSON files that are replaced whole or not at all.
//!
//! A file is written beside its place, synced, renamed over it, and the folder is synced: after a power cut
//! there is the old file or the new one (measured: leaving out any of the four steps loses data).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{DaemonState, Session, State};

/// The version of the files' layout that this program writes and reads.
pub const VERSION: u32 = 1;

/// Who this daemon is; made once for a state folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// A random name.
    pub daemon_id: String,
    /// The node's name as configured when the identity was made.
    pub node_id: String,
    /// The repository it serves, if one was given.
    pub repo_root: Option<String>,
    /// RFC 3339, UTC, milliseconds.
    pub created_at: String,
    /// The version of codexd that made it.
    pub version: String,
}

/// What `session-registry.json` holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistryFile {
    /// The layout's version.
    #[serde(default)]
    pub format_version: u32,
    /// The newest event it includes.
    #[serde(default)]
    pub through_seq: u64,
    /// When a session last changed.
    pub updated_at: Option<String>,
    /// All sessions, oldest first.
    pub sessions: Vec<std::sync::Arc<Session>>,
}

/// What `daemon-state.json` holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DaemonFile {
    /// The layout's version.
    #[serde(default)]
    pub format_version: u32,
    /// The newest event it includes.
    #[serde(default)]
    pub through_seq: u64,
    /// The record.
    #[serde(flatten)]
    pub daemon: DaemonState,
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
    /// How many events are kept at most.
    pub max_entries: usize,
    /// The time of the newest one.
    pub updated_at: Option<String>,
    /// Oldest first.
    pub events: Vec<E>,
}

impl RegistryFile {
    /// The file that holds `state`'s sessions.
    pub fn of(state: &State) -> Self {
        Self {
            format_version: VERSION,
            through_seq: state.through,
            updated_at: state.sessions_updated_at.clone(),
            sessions: state.sessions.iter().cloned().collect(),
        }
    }
}

impl DaemonFile {
    /// The file that holds `state`'s daemon record.
    pub fn of(state: &State) -> Self {
        Self { format_version: VERSION, through_seq: state.through, daemon: state.daemon.clone() }
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
}

impl<T> Loaded<T> {
    /// The file's content, if it was good.
    pub fn good(self) -> Option<T> {
        match self {
            Loaded::Good(value) => Some(value),
            _ => None,
        }
    }
}

/// Reads a snapshot.
///
/// A file that is no valid snapshot is renamed to `NAME.bad` and reported, never overwritten in place.
/// Fails only when the file cannot be read or moved.
pub fn load<T: DeserializeOwned>(path: &Path) -> io::Result<Loaded<T>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Loaded::Missing),
        Err(error) => return Err(error),
    };
    match serde_json::from_slice(&text) {
        Ok(value) => Ok(Loaded::Good(value)),
        Err(error) => {
            let moved_to = beside(path, "bad");
            fs::rename(path, &moved_to)?;
            Ok(Loaded::SetAside { reason: error.to_string(), moved_to })
        }
    }
}

/// Replaces a snapshot, readable by its owner only; when this returns it is on disk.
pub fn save(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    let temporary = beside(path, "new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    PathBuf::from(name)
}
