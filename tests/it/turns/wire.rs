//! An app-server that is slow, answers twice or sends invalid messages, and clients that disconnect.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::api::{
    SESSIONS, TURN, new_session, request_bytes, start_daemon, start_turn, turn_event_types, wait_for_event,
    wait_for_event_type, wait_for_turn_end, wait_until_idle,
};
use crate::sessions::RecordingAppServer;
use crate::support::daemon::Daemon;
use crate::support::http::{Target, get};

/// Runs one turn with this prompt and asserts that it completes.
async fn assert_completes(daemon: &Daemon, session_id: &str, prompt: &str) {
    let turn_id = start_turn(daemon, session_id, prompt).await;
    let record = wait_until_idle(daemon, session_id).await;
    assert_eq!(record["lastTurnId"], turn_id, "{prompt}");
    assert_eq!(record["lastTurnStatus"], "completed", "{prompt}");
}

#[tokio::test]
async fn unexpected_responses_are_ignored() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    for prompt in ["answer-twice", "answer-foreign", "answer-twice answer-foreign deltas=50", "hello"] {
        assert_completes(&daemon, &session_id, prompt).await;
    }
}

#[tokio::test]
async fn turn_start_response_after_turn_end_does_not_reopen_turn() {
    let app_server = RecordingAppServer::new();
    let daemon = app_server.builder_without_user_messages().start().await;
    let session_id = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "answer-late=2000").await;
    // The turn ended long before its acceptance.
    let events = daemon.events_on_disk();
    let types = turn_event_types(&events, &turn_id);
    assert_eq!(types.last(), Some(&"turn.accepted"), "{types:?}");
    let record = wait_until_idle(&daemon, &session_id).await;
    assert_eq!((&record["lastTurnId"], &record["lastTurnStatus"]), (&json!(turn_id), &json!("completed")));
    assert_completes(&daemon, &session_id, "hello").await;
}

#[tokio::test]
async fn slow_app_server_responses_are_awaited() {
    let daemon = Daemon::builder().startup("answer-late=200").start().await;
    let session_id = new_session(&daemon).await;
    assert_completes(&daemon, &session_id, "hello").await;
}

#[tokio::test]
async fn invalid_messages_are_recorded_and_skipped() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    assert_completes(&daemon, &session_id, "deltas=10 garbage").await;
    let invalid = wait_for_event_type(&daemon, "app-server.message.invalid").await;
    assert_eq!(invalid["level"], "warn");
    let events = daemon.events_on_disk();
    let count = |event_type: &str| events.iter().filter(|event| event["type"] == event_type).count();
    assert_eq!(count("app-server.turn.message.delta"), 10);
    assert_eq!(
        count("app-server.message.invalid"),
        4,
        "four lines are not messages; an empty line is ignored"
    );
}

#[tokio::test]
async fn eight_megabyte_line_is_recorded_as_event() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    assert_completes(&daemon, &session_id, "long-line=8000000").await;
    let long = wait_for_event(&daemon, "the long line", |event| {
        let message = event["detail"]["params"]["message"].as_str();
        message.is_some_and(|message| message.len() > 7_000_000)
    })
    .await;
    assert_eq!(long["detail"]["notificationMethod"], "warning");
}

#[tokio::test]
async fn line_over_limit_is_skipped_and_turn_continues() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    assert_completes(&daemon, &session_id, "deltas=4 long-line=70000000").await;
    let skipped = wait_for_event_type(&daemon, "app-server.message.invalid").await;
    assert_eq!(skipped["detail"]["bytes"], 70_000_000);
    let events = daemon.events_on_disk();
    let deltas = events.iter().filter(|event| event["type"] == "app-server.turn.message.delta");
    assert_eq!(deltas.count(), 4);
}

#[tokio::test]
async fn app_server_stderr_is_kept() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    assert_completes(&daemon, &session_id, "stderr=marker stderr-flood=300000").await;
    wait_for_event(&daemon, "the stderr line", |event| {
        event["type"] == "child.stderr" && event["message"].as_str().unwrap().contains("marker")
    })
    .await;
    let stderr = std::fs::read_to_string(daemon.logs_dir().join("stderr.log")).unwrap();
    assert!(stderr.contains("marker"));
}

#[tokio::test]
async fn unknown_thread_notifications_create_no_session() {
    let daemon = Daemon::builder().startup("foreign-thread").start().await;
    let completed = wait_for_event_type(&daemon, "app-server.turn.completed").await;
    assert_eq!(completed["detail"]["status"], "completed");
    assert_eq!(get(&daemon, SESSIONS).await.data(200)["sessions"], json!([]));
    let session_id = new_session(&daemon).await;
    assert_completes(&daemon, &session_id, "hello").await;
}

/// Requests a turn and disconnects without reading the response.
///
/// Waits for `100 Continue` first, so that the daemon has checked the user of the connection by then.
async fn disconnect_after_request(daemon: &Daemon, session_id: &str, prompt: &str) {
    let body = json!({ "sessionId": session_id, "input": prompt });
    let request = request_bytes(daemon, TURN, &body);
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let mut stream = TcpStream::connect(daemon.authority()).await.unwrap();
    stream.write_all(format!("{head}\r\nexpect: 100-continue\r\n\r\n").as_bytes()).await.unwrap();
    let mut status_line = [0; 12];
    stream.read_exact(&mut status_line).await.unwrap();
    assert_eq!(&status_line, b"HTTP/1.1 100");
    stream.write_all(body.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn turn_continues_when_client_disconnects_during_call() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    disconnect_after_request(&daemon, &session_id, "answer-late=300 text=x").await;
    let accepted = wait_for_event_type(&daemon, "turn.accepted").await;
    assert_eq!(accepted["detail"]["sessionId"], session_id);
    wait_for_turn_end(&daemon, &session_id, &accepted["detail"]["turnId"]).await;
}

#[tokio::test]
async fn turn_continues_when_client_disconnects_at_once() {
    let daemon = start_daemon().await;
    for _ in 0..20 {
        let session_id = new_session(&daemon).await;
        disconnect_after_request(&daemon, &session_id, "text=x").await;
        let accepted = wait_for_event(&daemon, "the acceptance", |event| {
            event["type"] == "turn.accepted" && event["detail"]["sessionId"] == session_id
        })
        .await;
        wait_for_turn_end(&daemon, &session_id, &accepted["detail"]["turnId"]).await;
    }
}
