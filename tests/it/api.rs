//! What the tests of the daemon do again and again: sessions, turns, and looks at what became of them.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::daemon::Daemon;
use crate::support::http::{Answer, Target, get, post};
use crate::support::wait::{DEADLINE, wait_until, wait_until_async};

pub(crate) const SESSIONS: &str = "/v1/codexd/sessions";
pub(crate) const TURN: &str = "/v1/codexd/turn";
pub(crate) const STATUS: &str = "/v1/codexd/status";

/// A daemon with the fake app-server.
pub(crate) async fn start_daemon() -> Daemon {
    Daemon::builder().start().await
}

/// Creates a session with these fields; its record.
pub(crate) async fn create_session(daemon: &Daemon, fields: Value) -> Value {
    post(daemon, SESSIONS, &fields).await.data(201)["session"].clone()
}

/// Creates a session without any wishes; its name.
pub(crate) async fn new_session(daemon: &Daemon) -> String {
    text(&create_session(daemon, json!({})).await["sessionId"])
}

/// Asks for a turn, whatever comes of it.
pub(crate) async fn request_turn(daemon: &Daemon, session_id: &str, prompt: &str) -> Answer {
    post(daemon, TURN, &json!({ "sessionId": session_id, "input": prompt })).await
}

/// Starts a turn; its name.
pub(crate) async fn start_turn(daemon: &Daemon, session_id: &str, prompt: &str) -> String {
    text(&request_turn(daemon, session_id, prompt).await.data(202)["turnId"])
}

/// The record of a session as it is now.
pub(crate) async fn session_record(daemon: &Daemon, session_id: &str) -> Value {
    get(daemon, &format!("{SESSIONS}/{session_id}")).await.data(200)["session"].clone()
}

/// The record of a session once no turn runs in it.
pub(crate) async fn wait_until_idle(daemon: &Daemon, session_id: &str) -> Value {
    wait_until_async("the end of the turn", async || {
        Some(session_record(daemon, session_id).await).filter(|record| record["currentTurnId"].is_null())
    })
    .await
}

/// Waits until turns can be taken and the records say so too, which they do a moment later.
pub(crate) async fn wait_until_ready(daemon: &Daemon) {
    wait_for_child_status(daemon, "running").await;
    wait_until_async("the app-server to come", async || {
        let health = get(daemon, "/healthz").await.json;
        (health["service"]["ready"] == true).then_some(())
    })
    .await;
}

/// The child's part of the status, once it has this status.
pub(crate) async fn wait_for_child_status(daemon: &Daemon, status: &str) -> Value {
    wait_until_async(&format!("a child that is {status}"), async || {
        let child = get(daemon, STATUS).await.data(200)["snapshot"]["daemon"]["child"].clone();
        (child["status"] == status).then_some(child)
    })
    .await
}

/// The record of a session once this turn of it has ended.
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

/// Waits until `/healthz` says that no turn can be taken, with these words in its reason; the reason.
pub(crate) async fn wait_until_not_ready(daemon: &Daemon, why: &str) -> String {
    wait_until_async(&format!("/healthz to say {why:?}"), async || {
        let service = get(daemon, "/healthz").await.json["service"].clone();
        let reason = service["notReadyReason"].as_str()?.to_owned();
        (service["ready"] == false && reason.contains(why)).then_some(reason)
    })
    .await
}

/// The first event of the log that satisfies `wanted`, once it is there.
pub(crate) async fn wait_for_event(
    daemon: &Daemon,
    what: &str,
    mut wanted: impl FnMut(&Value) -> bool,
) -> Value {
    wait_until(what, || daemon.events_on_disk().into_iter().find(|event| wanted(event))).await
}

/// The first event of this type in the log, once it is there.
pub(crate) async fn wait_for_event_type(daemon: &Daemon, event_type: &str) -> Value {
    wait_for_event(daemon, event_type, |event| event["type"] == event_type).await
}

/// The types of those events that name this turn, in their order.
pub(crate) fn turn_event_types<'a>(events: &'a [Value], turn_id: &str) -> Vec<&'a str> {
    let about = events.iter().filter(|event| event["detail"]["turnId"] == turn_id);
    about.map(|event| event["type"].as_str().unwrap()).collect()
}

/// The names of all keys of an object, in their order.
pub(crate) fn keys(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Asserts that an object has these keys, and perhaps more.
pub(crate) fn assert_keys(object: &Value, wanted: &[&str]) {
    for key in wanted {
        assert!(object.get(key).is_some(), "no {key} in {object:#}");
    }
}

/// A text that has to be there.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a text")).to_owned()
}

/// POST to a daemon that may be going away: `None` when no whole answer comes.
pub(crate) async fn try_post(target: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
    let answer = async {
        let mut stream = TcpStream::connect(target.authority()).await.ok()?;
        stream.write_all(request_bytes(target, path, body).as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, serde_json::from_str(body).ok()?))
    };
    tokio::time::timeout(DEADLINE, answer).await.unwrap_or_else(|_| panic!("{path} is still unanswered"))
}

/// A whole POST as it goes over the wire, after which the connection closes.
pub(crate) fn request_bytes(target: &(impl Target + ?Sized), path: &str, body: &Value) -> String {
    let (host, body) = (target.authority(), body.to_string());
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// Asserts that nothing is left of a daemon that has ended.
pub(crate) fn assert_no_survivors(daemon: &Daemon) {
    #[cfg(target_os = "linux")]
    assert_eq!(daemon.survivors(), [], "processes that outlived the daemon");
    #[cfg(not(target_os = "linux"))]
    let _ = daemon;
}

/// How a program went that came to its end by itself.
#[derive(Debug)]
pub(crate) struct CommandOutput {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a program to its end.
pub(crate) async fn run_command(command: std::process::Command) -> CommandOutput {
    let shown = format!("{command:?}");
    let mut command = tokio::process::Command::from(command);
    let output = command.stdin(std::process::Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(DEADLINE, output).await.unwrap_or_else(|_| panic!("no end of {shown}"));
    let output = output.unwrap();
    CommandOutput {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
