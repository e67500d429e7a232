//! The files of the daemon: how large they become, who may use them, and what is made of those that are damaged.

mod backup;
mod fixture;
mod lock;
mod permissions;
mod recovery;
mod registry;
mod rotation;
#[cfg(target_os = "linux")]
mod storage;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::api::{idle, session, start, turn};
use crate::support::daemon::{Daemon, DaemonBuilder};

/// The files that hold the records.
const STATE_FILES: [&str; 4] =
    ["identity.json", "daemon-state.json", "session-registry.json", "recent-events.json"];

/// A daemon that had a session with a turn, and was stopped.
async fn stopped_daemon() -> Daemon {
    let mut daemon = start().await;
    let session_id = session(&daemon).await;
    turn(&daemon, &session_id, "hello").await;
    idle(&daemon, &session_id).await;
    assert!(daemon.stop().await.status.success());
    daemon
}

/// A daemon that is started by a shell after this command.
pub(crate) fn prepared(command: &str) -> DaemonBuilder {
    Daemon::builder()
        .program(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/files/prepared.sh"))
        .env("CODEXD_TEST_PROGRAM", env!("CARGO_BIN_EXE_codexd"))
        .env("CODEXD_TEST_PREPARE", command)
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

/// The files of the log that are no longer written, oldest first.
fn sealed(logs: &Path) -> Vec<PathBuf> {
    let is_sealed = |name: &&String| name.starts_with("events-") && name.ends_with(".jsonl");
    names(logs).iter().filter(is_sealed).map(|name| logs.join(name)).collect()
}

fn json_file(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A start on these folders with these arguments.
async fn restart(daemon: &Daemon, arguments: &[impl AsRef<OsStr>]) -> Daemon {
    let builder = Daemon::builder().state_from(daemon);
    arguments.iter().fold(builder, |builder, argument| builder.arg(argument)).start().await
}
