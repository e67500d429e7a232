//! Restarts of an app-server that exits, hangs or misbehaves, and the cleanup of its processes.

mod exits;
#[cfg(target_os = "linux")]
mod leftovers;
mod restart_requests;
mod restarts;
#[cfg(target_os = "linux")]
mod soak;
mod unresponsive;
mod versions;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::api::{STATUS, create_session, start_turn, text, wait_until_idle};
use crate::support::daemon::Daemon;
use crate::support::http::get;
use crate::support::wait::wait_until_async;
use crate::support::websocket::EventStream;

/// Returns the `child` object of the current status.
async fn child(daemon: &Daemon) -> Value {
    get(daemon, STATUS).await.data(200)["snapshot"]["daemon"]["child"].clone()
}

/// Waits until the app-server runs in at least this generation; returns the `child` object of the status.
async fn generation(daemon: &Daemon, minimum: u64) -> Value {
    wait_until_async(&format!("generation {minimum}"), async || {
        let child = child(daemon).await;
        (child["state"] == "running" && child["generation"].as_u64() >= Some(minimum)).then_some(child)
    })
    .await
}

/// Opens a stream of new events.
async fn follow(daemon: &Daemon) -> EventStream {
    let mut events = EventStream::connect(daemon).await;
    events.hello().await;
    events
}

/// Asserts that a new app-server has replaced the old one: no process of the old one is left, a new session and a turn
/// work, and a stream that was open before receives the events.
async fn assert_recovered(daemon: &Daemon, events: &mut EventStream, minimum: u64) -> Value {
    let child = generation(daemon, minimum).await;
    assert_no_leftover_processes(daemon, &child);
    let session_id = text(&create_session(daemon, json!({})).await["sessionId"]);
    let turn_id = start_turn(daemon, &session_id, "hello").await;
    assert_eq!(wait_until_idle(daemon, &session_id).await["lastTurnStatus"], "completed");
    let is_its_end = |event: &Value| {
        event["type"] == "app-server.turn.completed" && event["detail"]["turnId"] == turn_id.as_str()
    };
    events.wait_for("the end of the turn", is_its_end).await;
    child
}

/// Asserts that only the daemon, its guard and this child carry the instance mark of the daemon.
fn assert_no_leftover_processes(daemon: &Daemon, child: &Value) {
    #[cfg(target_os = "linux")]
    {
        let mut others = daemon.survivors();
        others.retain(|(pid, line)| {
            *pid != daemon.pid() && Some(u64::from(*pid)) != child["pid"].as_u64() && !is_guard(line)
        });
        assert_eq!(others, [], "processes are left after their app-server ended");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (daemon, child);
}

#[cfg(target_os = "linux")]
fn is_guard(command_line: &str) -> bool {
    command_line.contains(" guard --instance ")
}

/// Sends a signal to one process.
fn signal(pid: &Value, signal: Signal) {
    kill_process(to_pid(pid), signal).unwrap();
}

fn to_pid(pid: &Value) -> Pid {
    i32::try_from(pid.as_u64().unwrap()).ok().and_then(Pid::from_raw).unwrap()
}

/// Returns the types of the events about the end and the start of the app-server, in order.
fn types_of_supervision(events: &[Value]) -> Vec<&str> {
    let types = [
        "app-server.transport.closed",
        "app-server.turn.completed.missing",
        "child.exited",
        "child.backoff",
        "child.crash_loop",
        "child.started",
        "app-server.connected",
    ];
    events.iter().filter_map(|event| event["type"].as_str()).filter(|name| types.contains(name)).collect()
}
