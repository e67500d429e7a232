//! Helpers that most tests of the daemon share: they create sessions, start turns, wait for states and events, and run
//! commands.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::daemon::Daemon;
use crate::support::http::{ApiResponse, Target, get, post};
use crate::support::wait::{DEADLINE, wait_until, wait_until_async};

pub(crate) const SESSIONS: &str = "/v1/codexd/sessions";
pub(crate) const TURN: &str = "/v1/codexd/turn";
pub(crate) const STATUS: &str = "/v1/codexd/status";

/// Starts a daemon with the fake app-server.
pub(crate) async fn start_daemon() -> Daemon {
    Daemon::builder().start().await
}

/// Creates a session with these fields; returns its record.
pub(crate) async fn create_session(daemon: &Daemon, fields: Value) -> Value {
    post(daemon, SESSIONS, &fields).await.data(201)["session"].clone()
}

/// Creates a session with the default settings; returns its ID.
pub(crate) async fn new_session(daemon: &Daemon) -> String {
    text(&create_session(daemon, json!({})).await["sessionId"])
}

/// Requests a turn; returns the response without a check.
pub(crate) async fn request_turn(daemon: &Daemon, session_id: &str, prompt: &str) -> ApiResponse {
    post(daemon, TURN, &json!({ "sessionId": session_id, "input": prompt })).await
}

/// Starts a turn; returns its ID.
pub(crate) async fn start_turn(daemon: &Daemon, session_id: &str, prompt: &str) -> String {
    text(&request_turn(daemon, session_id, prompt).await.data(202)["turnId"])
}

/// Returns the current record of a session.
pub(crate) async fn session_record(daemon: &Daemon, session_id: &str) -> Value {
    get(daemon, &format!("{SESSIONS}/{session_id}")).await.data(200)["session"].clone()
}

/// Waits until no turn runs in the session; returns its record.
pub(crate) async fn wait_until_idle(daemon: &Daemon, session_id: &str) -> Value {
    wait_until_async("the end of the turn", async || {
        Some(session_record(daemon, session_id).await).filter(|record| record["currentTurnId"].is_null())
    })
    .await
}

/// Waits until the daemon accepts turns and its status shows that too, which it does a moment later.
pub(crate) async fn wait_until_ready(daemon: &Daemon) {
    wait_for_child_status(daemon, "running").await;
    wait_until_async("the daemon to be ready", async || {
        let health = get(daemon, "/healthz").await.json;
        (health["service"]["ready"] == true).then_some(())
    })
    .await;
}

/// Waits until the child process has this status; returns its part of the daemon status.
pub(crate) async fn wait_for_child_status(daemon: &Daemon, status: &str) -> Value {
    wait_until_async(&format!("a child with the status {status}"), async || {
        let child = get(daemon, STATUS).await.data(200)["snapshot"]["daemon"]["child"].clone();
        (child["status"] == status).then_some(child)
    })
    .await
}

/// Waits until this turn has ended; returns the record of its session.
pub(crate) async fn wait_for_turn_end(daemon: &Daemon, session_id: &str, turn_id: &Value) -> Value {
    wait_until_async("the end of the turn", async || {
        let record = session_record(daemon, session_id).await;
        (record["lastTurnId"] == *turn_id && record["currentTurnId"].is_null()).then_some(record)
    })
    .await
}

/// Waits for the first `child.backoff` event.
pub(crate) async fn wait_for_backoff_event(daemon: &Daemon) -> Value {
    wait_for_event_type(daemon, "child.backoff").await
}

/// Waits until `/healthz` reports that the daemon is not ready for a reason that contains this text; returns the reason.
pub(crate) async fn wait_until_not_ready(daemon: &Daemon, why: &str) -> String {
    wait_until_async(&format!("a not-ready reason with {why:?}"), async || {
        let service = get(daemon, "/healthz").await.json["service"].clone();
        let reason = service["notReadyReason"].as_str()?.to_owned();
        (service["ready"] == false && reason.contains(why)).then_some(reason)
    })
    .await
}

/// Waits for the first event of the log that matches; returns it.
pub(crate) async fn wait_for_event(
    daemon: &Daemon,
    what: &str,
    mut is_match: impl FnMut(&Value) -> bool,
) -> Value {
    wait_until(what, || daemon.events_on_disk().into_iter().find(|event| is_match(event))).await
}

/// Waits for the first event of this type in the log; returns it.
pub(crate) async fn wait_for_event_type(daemon: &Daemon, event_type: &str) -> Value {
    wait_for_event(daemon, event_type, |event| event["type"] == event_type).await
}

/// The types of the events of this turn, in log order.
pub(crate) fn turn_event_types<'a>(events: &'a [Value], turn_id: &str) -> Vec<&'a str> {
    let of_turn = events.iter().filter(|event| event["detail"]["turnId"] == turn_id);
    of_turn.map(|event| event["type"].as_str().unwrap()).collect()
}

/// The keys of an object, in their order.
pub(crate) fn keys(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Asserts that an object has at least these keys.
pub(crate) fn assert_keys(object: &Value, required: &[&str]) {
    for key in required {
        assert!(object.get(key).is_some(), "no {key} in {object:#}");
    }
}

/// The text of a JSON string; panics for other values.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a string")).to_owned()
}

/// Sends a POST to a daemon that may be stopping; `None` when no complete response arrives.
pub(crate) async fn try_post(target: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
    let response = async {
        let mut stream = TcpStream::connect(target.authority()).await.ok()?;
        stream.write_all(request_bytes(target, path, body).as_bytes()).await.ok()?;
        let mut response = String::new();
        stream.read_to_string(&mut response).await.ok()?;
        let (head, body) = response.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, serde_json::from_str(body).ok()?))
    };
    tokio::time::timeout(DEADLINE, response).await.unwrap_or_else(|_| panic!("no response to {path}"))
}

/// The bytes of a POST request with `Connection: close`.
pub(crate) fn request_bytes(target: &(impl Target + ?Sized), path: &str, body: &Value) -> String {
    let (host, body) = (target.authority(), body.to_string());
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// Asserts that no process of a daemon that has ended is left.
pub(crate) fn assert_no_survivors(daemon: &Daemon) {
    #[cfg(target_os = "linux")]
    assert_eq!(daemon.survivors(), [], "processes that outlived the daemon");
    #[cfg(not(target_os = "linux"))]
    let _ = daemon;
}

/// The exit code and the output of a command that has exited.
#[derive(Debug)]
pub(crate) struct CommandOutput {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command until it exits.
pub(crate) async fn run_command(command: std::process::Command) -> CommandOutput {
    let description = format!("{command:?}");
    let mut command = tokio::process::Command::from(command);
    let output = command.stdin(std::process::Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(DEADLINE, output)
        .await
        .unwrap_or_else(|_| panic!("{description} does not exit"));
    let output = output.unwrap();
    CommandOutput {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
