//! `child.json`: the app-server process of this run, so that the next start ends it if this daemon is killed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::codex::{self, ChildRecord, Identity, KnownProcess, RecordChild};
use crate::storage::Disk;

/// The version of the file's layout that this program writes and reads.
const VERSION: u32 = 1;
/// How long an app-server that the previous run left may take to exit when its stdin is closed, before SIGTERM.
const LEFTOVER_EXIT_GRACE: Duration = Duration::from_millis(500);

/// What `child.json` holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChildFile {
    format_version: u32,
    pid: u32,
    start_time: String,
    executable: PathBuf,
    generation: u64,
    instance: String,
    /// Absent in files of earlier versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    descendants: Vec<KnownProcess>,
}

/// Returns the callback that writes or removes `child.json` when the app-server starts or ends.
pub(super) fn child_file_writer(disk: Disk, path: PathBuf) -> RecordChild {
    Arc::new(move |record| {
        let written = match record {
            Some(record) => ChildFile::of(record).save(&disk, &path),
            None => remove(&disk, &path),
        };
        // Not fatal: the guard ends the remaining processes when codexd is killed.
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "failed to write child.json");
        }
    })
}

fn remove(disk: &Disk, path: &Path) -> std::io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl ChildFile {
    fn of(record: &ChildRecord) -> Self {
        let Identity { pid, start_time, executable } = record.identity.clone();
        let ChildRecord { generation, instance, descendants, .. } = record.clone();
        Self { format_version: VERSION, pid, start_time, executable, generation, instance, descendants }
    }

    pub(crate) fn save(&self, disk: &Disk, path: &Path) -> std::io::Result<()> {
        disk.replace(path, &serde_json::to_vec(self)?)
    }

    /// Parses the file; `None` when its content is not valid.
    pub(crate) fn read(text: &[u8]) -> Option<Self> {
        let file = serde_json::from_slice::<Self>(text).ok()?;
        // An empty instance ID would match every process whose variable is empty.
        (file.format_version == VERSION && uuid::Uuid::parse_str(&file.instance).is_ok()).then_some(file)
    }
}

/// Ends the app-server that the previous run of the daemon left, and its descendants; blocks.
///
/// Only exactly that process: another process that has its PID now is not touched.
pub(crate) fn end_leftover(disk: &Disk, path: &Path) {
    let ended = disk.read(path).and_then(|text| {
        let Some(text) = text else { return Ok(()) };
        match ChildFile::read(&text) {
            Some(ChildFile { pid, start_time, executable, instance, descendants, .. }) => {
                let leader = Identity { pid, start_time, executable };
                let ended = codex::end_leftover(&leader, &instance, &descendants, LEFTOVER_EXIT_GRACE)?;
                if ended > 0 {
                    tracing::warn!(ended, "ended the processes that the previous run of codexd left");
                }
            }
            None => tracing::warn!(path = %path.display(), "ignored child.json: its content is not valid"),
        }
        remove(disk, path)
    });
    if let Err(error) = ended {
        tracing::warn!(path = %path.display(), %error, "failed to end the app-server of the previous run; it may still run");
    }
}
