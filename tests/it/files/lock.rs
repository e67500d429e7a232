//! Locks: one daemon per directory.

#[cfg(target_os = "linux")]
use rustix::process::Signal;

use super::stopped_daemon;
#[cfg(target_os = "linux")]
use crate::api::wait_for_child_status;
use crate::api::{new_session, start_daemon, wait_until_ready};
use crate::support::daemon::Daemon;
use crate::support::http::get;
use crate::support::scratch;

#[tokio::test]
async fn second_daemon_is_refused_with_owner_of_the_lock() {
    let first = start_daemon().await;
    new_session(&first).await;
    let log = first.events_on_disk();
    let refusal = Daemon::builder().state_from(&first).start_refused().await;
    assert_eq!(refusal.status.code(), Some(2), "{}", refusal.stderr);
    assert_eq!(refusal.stdout, "");
    for text in [
        &format!("codexd (pid {})", first.pid()),
        first.state_dir().to_str().unwrap(),
        "--state-dir",
        "--logs-dir",
    ] {
        assert!(refusal.stderr.contains(text), "no {text} in {}", refusal.stderr);
    }
    // The first daemon is not affected.
    assert_eq!(get(&first, "/healthz").await.status, 200);
    assert_eq!(first.events_on_disk()[..log.len()], log);
    new_session(&first).await;
}

#[tokio::test]
async fn second_daemon_on_same_logs_directory_is_refused() {
    let first = start_daemon().await;
    let directory = scratch::directory("test");
    let refusal = Daemon::builder()
        .arg("--logs-dir")
        .arg(first.logs_dir())
        .arg("--state-dir")
        .arg(directory.path().join("state"))
        .start_refused()
        .await;
    assert_eq!(refusal.status.code(), Some(2), "{}", refusal.stderr);
    assert!(refusal.stderr.contains(first.logs_dir().to_str().unwrap()), "{}", refusal.stderr);
    assert!(refusal.stderr.contains(&first.pid().to_string()), "{}", refusal.stderr);
    // The same directory for state and logs is not a conflict.
    let both = directory.path().join("both");
    let daemon = Daemon::builder().arg("--logs-dir").arg(&both).arg("--state-dir").arg(&both).start().await;
    wait_until_ready(&daemon).await;
}

#[tokio::test]
async fn directory_lock_is_released_by_stop_and_sigkill() {
    let mut daemon = stopped_daemon().await;
    for _ in 0..2 {
        daemon = Daemon::builder().state_from(&daemon).start().await;
        daemon.kill().await;
    }
    Daemon::builder().state_from(&daemon).start().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn app_server_inherits_neither_lock_nor_listener() {
    let mut daemon = Daemon::builder().startup("ignore-eof ignore-term").start().await;
    wait_until_ready(&daemon).await;
    let child = wait_for_child_status(&daemon, "running").await["pid"].as_u64().unwrap();
    let files = |pid: u64| -> Vec<String> {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let targets = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        targets.map(|path| path.to_string_lossy().into_owned()).collect()
    };
    let daemon_files = files(u64::from(daemon.pid()));
    assert!(daemon_files.iter().any(|path| path.ends_with("/codexd.lock")), "{daemon_files:?}");
    let child_files = files(child);
    let is_daemon_file = |path: &&String| {
        path.ends_with(".lock")
            || path.ends_with(".jsonl")
            || path.ends_with(".log")
            || path.starts_with("socket:")
    };
    assert_eq!(child_files.iter().filter(is_daemon_file).collect::<Vec<_>>(), [""; 0]);

    // The app-server survives the kill, and the next daemon starts anyway.
    daemon.signal(Signal::KILL);
    daemon.exited().await;
    assert!(daemon.survivors().iter().any(|(pid, _)| u64::from(*pid) == child));
    let next = Daemon::builder().state_from(&daemon).start().await;
    wait_until_ready(&next).await;
}
