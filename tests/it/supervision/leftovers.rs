//! Processes that a killed app-server or daemon leaves.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{assert_recovered, child, follow, generation, is_guard, signal};
use crate::api::{
    assert_no_survivors, new_session, start_daemon, start_turn, wait_for_event, wait_until_ready,
};
use crate::support::daemon::Daemon;
use crate::support::scratch;
use crate::support::wait::wait_until;

/// Runs a turn with this prompt; returns the PID of the process that it started.
async fn start_process(daemon: &Daemon, prompt: &str) -> Value {
    let session_id = new_session(daemon).await;
    let turn_id = start_turn(daemon, &session_id, prompt).await;
    let started = wait_for_event(daemon, "the process", |event| {
        let params = &event["detail"]["params"];
        params["turnId"] == turn_id.as_str() && params["item"]["processId"].is_string()
    })
    .await;
    let pid = started["detail"]["params"]["item"]["processId"].as_str().unwrap().parse::<u64>();
    json!(pid.unwrap())
}

fn guard(daemon: &Daemon) -> Option<Value> {
    let found = daemon.survivors().into_iter().find(|(_, line)| is_guard(line));
    found.map(|(pid, _)| json!(pid))
}

/// Returns the targets of the open file descriptors of a process.
fn open_files(process: &str) -> Vec<PathBuf> {
    let descriptors = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok()).collect()
}

/// Returns the state and the parent PID of a process from `/proc`.
fn stat(pid: &Value) -> Option<(String, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

#[tokio::test]
async fn orphan_process_ends_with_its_app_server() {
    let daemon = start_daemon().await;
    let mut events = follow(&daemon).await;
    let orphan = start_process(&daemon, "spawn-double=300").await;
    wait_until("the reparenting to the daemon", || (stat(&orphan)?.1 == daemon.pid()).then_some(())).await;
    let short = start_process(&daemon, "spawn-double=0.2").await;
    // Only the daemon can reap it.
    wait_until("the end of the short process", || stat(&short).is_none().then_some(())).await;
    assert_eq!(stat(&orphan).unwrap().0, "S", "the app-server runs, so its commands must too");
    signal(&child(&daemon).await["pid"], Signal::KILL);
    assert_recovered(&daemon, &mut events, 2).await;
    assert_eq!(stat(&orphan), None);
}

#[tokio::test]
async fn guard_ends_all_processes_after_daemon_sigkill() {
    let mut daemon = Daemon::builder().startup("ignore-eof ignore-term").start().await;
    start_process(&daemon, "spawn-double=300").await;
    start_process(&daemon, "spawn-background=300").await;
    daemon.kill().await;
    assert!(daemon.survivors().len() >= 3, "no process survived, so the test proves nothing");
    wait_until("the guard to end the processes", || daemon.survivors().is_empty().then_some(())).await;
}

#[tokio::test]
async fn guard_holds_only_app_server_stdin_and_restarts() {
    let mut daemon = start_daemon().await;
    wait_until_ready(&daemon).await;
    let first = guard(&daemon).unwrap();
    // Every process inherits the descriptors with which the tests were started.
    let inherited = open_files("self");
    let of_daemon = open_files(&daemon.pid().to_string());
    // The guard holds it, so that command sandboxes can clean up before the app-server detects the end of the daemon.
    let of_app_server = fs::read_link(format!("/proc/{}/fd/0", child(&daemon).await["pid"])).unwrap();
    let mut held = wait_until("the stdin of the app-server", || {
        let held = open_files(&first.to_string());
        held.contains(&of_app_server).then_some(held)
    })
    .await;
    let stdin = fs::read_link(format!("/proc/{first}/fd/0")).unwrap();
    held.retain(|file| !inherited.contains(file) && *file != stdin && file != Path::new("/dev/null"));
    assert!(of_daemon.iter().any(|file| file.starts_with("socket:") || file.ends_with("events.jsonl")));
    assert_eq!(held, [of_app_server]);
    let status = fs::read_to_string(format!("/proc/{first}/status")).unwrap();
    // The pages of the program itself are the daemon's too, and many in a build without optimizations.
    let own = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    let own: u64 = own.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(own < 4 * 1024, "the guard uses {own} KiB");

    signal(&first, Signal::KILL);
    signal(&child(&daemon).await["pid"], Signal::KILL);
    generation(&daemon, 2).await;
    let second = guard(&daemon).unwrap();
    assert_ne!(first, second);
    assert!(daemon.stop().await.status.success());
    assert_no_survivors(&daemon);
}

#[tokio::test]
async fn start_ends_processes_left_by_daemon_and_guard() {
    let mut before = Daemon::builder().startup("ignore-eof ignore-term").start().await;
    wait_until_ready(&before).await;
    start_process(&before, "spawn-double=300").await;
    let record = before.state_dir().join("child.json");
    let file: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    assert_eq!(file["pid"], child(&before).await["pid"]);
    assert_eq!(file["generation"], 1);
    signal(&guard(&before).unwrap(), Signal::KILL);
    before.kill().await;
    assert!(before.survivors().len() >= 2, "no process survived, so the test proves nothing");
    let mut after = Daemon::builder().state_from(&before).start().await;
    wait_until("the end of the remaining processes", || before.survivors().is_empty().then_some(())).await;
    wait_until_ready(&after).await;
    assert!(record.exists());
    assert!(after.stop().await.status.success());
    assert!(!record.exists(), "child.json still names an app-server");
}

/// A process that codexd did not start.
struct UnrelatedProcess(Child);

impl UnrelatedProcess {
    fn start() -> Self {
        Self(Command::new("sleep").arg("300").stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for UnrelatedProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn start_ignores_unrelated_process_with_recycled_pid() {
    let mut before = start_daemon().await;
    wait_until_ready(&before).await;
    let record = before.state_dir().join("child.json");
    let file: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    before.stop().await;
    let mut unrelated = UnrelatedProcess::start();
    let pid = json!(unrelated.0.id());
    for change in [
        json!({ "pid": pid }),
        json!({ "pid": pid, "executable": "/bin/sleep" }),
        json!({ "pid": pid, "instance": "" }),
        json!({ "pid": pid, "formatVersion": 99 }),
        json!({ "pid": "one" }),
    ] {
        let mut forged = file.clone();
        forged.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        fs::write(&record, forged.to_string()).unwrap();
        let mut after = Daemon::builder().state_from(&before).start().await;
        wait_until_ready(&after).await;
        assert_eq!(unrelated.0.try_wait().unwrap(), None, "{change}");
        assert!(after.stop().await.status.success());
    }
    fs::write(&record, "{\"pid\":").unwrap();
    let after = Daemon::builder().state_from(&before).start().await;
    wait_until_ready(&after).await;
    assert_eq!(unrelated.0.try_wait().unwrap(), None);
}

#[tokio::test]
async fn daemon_ignores_children_inherited_through_exec() {
    let directory = scratch::directory("test");
    let script = directory.path().join("codexd");
    let program = env!("CARGO_BIN_EXE_codexd");
    fs::write(&script, format!("#!/bin/sh\nsleep 300 >/dev/null &\nexec {program} \"$@\"\n")).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let mut daemon = Daemon::builder().program(&script).start().await;
    wait_until_ready(&daemon).await;
    signal(&child(&daemon).await["pid"], Signal::KILL);
    generation(&daemon, 2).await;
    daemon.stop().await;
    let left: Vec<_> = daemon.survivors().into_iter().map(|(_, line)| line).collect();
    assert_eq!(left, ["sleep 300"]);
}
