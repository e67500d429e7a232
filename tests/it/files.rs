//! The files of the daemon: size limits, permissions, locks, backup, and recovery from damage.

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

use crate::api::{new_session, start_daemon, start_turn, wait_until_idle};
use crate::support::daemon::{Daemon, DaemonBuilder};

/// The files that hold the records.
const STATE_FILES: [&str; 5] =
    ["identity.json", "daemon-state.json", "session-registry.json", "records.json", "recent-events.json"];

/// Starts a daemon, runs a turn in one session and stops the daemon.
async fn stopped_daemon() -> Daemon {
    let mut daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    start_turn(&daemon, &session_id, "hello").await;
    wait_until_idle(&daemon, &session_id).await;
    assert!(daemon.stop().await.status.success());
    daemon
}

/// A daemon that a shell starts after running this command.
pub(crate) fn prepared(command: &str) -> DaemonBuilder {
    Daemon::builder()
        .program(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/files/prepared.sh"))
        .env("CODEXD_TEST_PROGRAM", env!("CARGO_BIN_EXE_codexd"))
        .env("CODEXD_TEST_PREPARE", command)
}

/// Returns the sorted names of the directory entries.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

/// Returns the sealed segments of the log, oldest first.
fn sealed(logs: &Path) -> Vec<PathBuf> {
    let is_sealed = |name: &&String| name.starts_with("events-") && name.ends_with(".jsonl");
    names(logs).iter().filter(is_sealed).map(|name| logs.join(name)).collect()
}

fn json_file(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Starts a daemon with the directories of `daemon` and these arguments.
async fn restart(daemon: &Daemon, arguments: &[impl AsRef<OsStr>]) -> Daemon {
    let builder = Daemon::builder().state_from(daemon);
    arguments.iter().fold(builder, |builder, argument| builder.arg(argument)).start().await
}

/// Removes a directory in which a daemon creates files concurrently.
pub(crate) fn remove_directory(directory: &Path) {
    let removed = directory.with_extension("removed");
    fs::rename(directory, &removed).unwrap();
    fs::remove_dir_all(removed).unwrap();
}
