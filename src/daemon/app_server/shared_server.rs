//! `shared-server.json`: the shared app-server that was joined or started last, so that no second one is started while it
//! runs; and the log of one that codexd starts.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::codex::{Identity, KnownServer, OpenOutput, RecordServer, SharedProcess};
use crate::storage::{Disk, beside};

/// The version of the file's layout that this program writes and reads.
const VERSION: u32 = 1;
/// A log that is longer than this when an app-server is started is set aside, in bytes.
const MAX_LOG_BYTES: u64 = 8 * 1024 * 1024;

/// What `shared-server.json` holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SharedServerFile {
    format_version: u32,
    pid: u32,
    start_time: String,
    executable: PathBuf,
    /// Whether codexd started it; absent in files of earlier versions.
    #[serde(default)]
    started_by_codexd: bool,
}

/// Reads the file; `None` when there is none or its content is not valid.
pub(super) fn known(disk: Disk, path: PathBuf) -> KnownServer {
    Arc::new(move || {
        let text = disk.read(&path).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "failed to read which shared app-server was joined last");
            None
        })?;
        let file: SharedServerFile = serde_json::from_slice(&text).ok()?;
        let SharedServerFile { format_version, pid, start_time, executable, started_by_codexd } = file;
        let identity = Identity { pid, start_time, executable };
        (format_version == VERSION).then_some(SharedProcess { identity, is_ours: started_by_codexd })
    })
}

/// Writes the file.
pub(super) fn record(disk: Disk, path: PathBuf) -> RecordServer {
    Arc::new(move |process| {
        let Identity { pid, start_time, executable } = process.identity.clone();
        let started_by_codexd = process.is_ours;
        let file =
            SharedServerFile { format_version: VERSION, pid, start_time, executable, started_by_codexd };
        let written =
            serde_json::to_vec(&file).map_err(io::Error::from).and_then(|text| disk.replace(&path, &text));
        // Not fatal: a later start asks the socket first.
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "failed to write which shared app-server was joined");
        }
    })
}

/// Opens the log of the app-server.
pub(super) fn output(disk: Disk, path: PathBuf) -> OpenOutput {
    Arc::new(move || -> io::Result<File> {
        let file = disk.open_append(&path)?;
        if file.metadata()?.len() <= MAX_LOG_BYTES {
            return Ok(file);
        }
        disk.rename(&path, &beside(&path, "1"))?;
        disk.open_append(&path)
    })
}
