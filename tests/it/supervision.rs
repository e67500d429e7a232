//! An app-server that dies, hangs or misbehaves: another takes its place, and nothing is left of it.

mod exits;
#[cfg(target_os = "linux")]
mod leftovers;
mod restarts;
#[cfg(target_os = "linux")]
mod soak;
mod unresponsive;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::api::{STATUS, create, idle, text, turn};
use crate::support::daemon::Daemon;
use crate::support::http::get;
use crate::support::wait::wait_until_async;
use crate::support::websocket::EventStream;

/// The child's part of the status as it is now.
async fn child(daemon: &Daemon) -> Value {
    get(daemon, STATUS).await.data(200)["snapshot"]["daemon"]["child"].clone()
}

/// The child's part of the status once it answers and is at least the one of this number.
async fn generation(daemon: &Daemon, number: u64) -> Value {
    wait_until_async(&format!("generation {number}"), async || {
        let child = child(daemon).await;
        (child["state"] == "running" && child["generation"].as_u64() >= Some(number)).then_some(child)
    })
    .await
}

/// A stream of the daemon's events, from now on.
async fn follow(daemon: &Daemon) -> EventStream {
    let mut events = EventStream::connect(daemon).await;
    events.hello().await;
    events
}

/// Asserts that another app-server has taken the place of a dead one and that all is well: nothing is left of the old
/// one, a new session and a turn work, and the stream that was open before tells of it.
async fn assert_recovered(daemon: &Daemon, events: &mut EventStream, number: u64) -> Value {
    let child = generation(daemon, number).await;
    assert_no_strangers(daemon, &child);
    let session_id = text(&create(daemon, json!({})).await["sessionId"]);
    let turn_id = turn(daemon, &session_id, "hello").await;
    assert_eq!(idle(daemon, &session_id).await["lastTurnStatus"], "completed");
    let is_its_end = |event: &Value| {
        event["type"] == "app-server.turn.completed" && event["detail"]["turnId"] == turn_id.as_str()
    };
    events.wait_for("the end of the turn", is_its_end).await;
    child
}

/// Asserts that only the daemon, its guard and this child carry the daemon's mark.
fn assert_no_strangers(daemon: &Daemon, child: &Value) {
    #[cfg(target_os = "linux")]
    {
        let mut others = daemon.survivors();
        others.retain(|(pid, line)| {
            *pid != daemon.pid() && Some(u64::from(*pid)) != child["pid"].as_u64() && !is_guard(line)
        });
        assert_eq!(others, [], "processes that outlived their app-server");
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
    kill_process(number(pid), signal).unwrap();
}

fn number(pid: &Value) -> Pid {
    i32::try_from(pid.as_u64().unwrap()).ok().and_then(Pid::from_raw).unwrap()
}

/// The types of those events that are about the app-server's end and its beginning, in their order.
fn types_of_supervision(events: &[Value]) -> Vec<&str> {
    let about = [
        "app-server.transport.closed",
        "app-server.turn.completed.missing",
        "child.exited",
        "child.backoff",
        "child.crash_loop",
        "child.started",
        "app-server.connected",
    ];
    events.iter().filter_map(|event| event["type"].as_str()).filter(|name| about.contains(name)).collect()
}
