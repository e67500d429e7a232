//! Turns whose app-server exits while they run.

use hyper::header::RETRY_AFTER;
use serde_json::{Value, json};

use crate::api::{
    assert_keys, create_session, new_session, request_turn, start_daemon, start_turn, text, try_post,
    wait_for_backoff_event, wait_for_event, wait_for_event_type, wait_until_idle,
};
use crate::sessions::RecordingAppServer;
use crate::support::daemon::Daemon;
use crate::support::http::Target;

/// The keys in the detail of `app-server.turn.completed.missing`.
const MISSING_KEYS: [&str; 13] = [
    "childExitCode",
    "childPid",
    "childSignal",
    "childStatus",
    "failureClass",
    "flushedTrailingMessage",
    "sessionId",
    "threadId",
    "trailingMessageLength",
    "transportCloseMessage",
    "transportCloseSource",
    "turnId",
    "turnStatusAtClose",
];

/// Ends the app-server during a turn with this prompt and checks what holds for every kind of exit.
///
/// Returns the detail of `app-server.turn.completed.missing`.
async fn end_during_turn(daemon: &Daemon, prompt: &str) -> Value {
    let session = create_session(daemon, json!({})).await;
    let session_id = text(&session["sessionId"]);
    let turn_id = start_turn(daemon, &session_id, prompt).await;
    let record = wait_until_idle(daemon, &session_id).await;
    assert_eq!((&record["lastTurnId"], &record["lastTurnStatus"]), (&json!(turn_id), &json!("failed")));
    assert_eq!(record["status"], "active");
    let missing = wait_for_event(daemon, "the missing completion", |event| {
        event["type"] == "app-server.turn.completed.missing" && event["detail"]["sessionId"] == session_id
    })
    .await;
    assert_eq!(missing["level"], "error");
    assert_eq!(missing["message"], format!("App-server transport closed before turn {turn_id} completed."));
    let detail = missing["detail"].clone();
    assert_keys(&detail, &MISSING_KEYS);
    assert_eq!(detail["failureClass"], "transport_closed_before_turn_completed");
    assert_eq!(detail["sessionId"], session_id);
    assert_eq!(detail["threadId"], session["threadId"]);
    assert_eq!(detail["turnId"], turn_id);
    assert_eq!(detail["turnStatusAtClose"], "inProgress");
    let closed = wait_for_event_type(daemon, "app-server.transport.closed").await;
    let keys = ["exitCode", "flushedTrailingMessage", "signal", "source", "trailingMessageLength"];
    assert_keys(&closed["detail"], &keys);
    assert_eq!(closed["level"], "warn");
    assert!(closed["seq"].as_u64() < missing["seq"].as_u64());
    detail
}

#[tokio::test]
async fn app_server_crash_fails_turn_and_is_reported() {
    let daemon = start_daemon().await;
    let detail = end_during_turn(&daemon, "deltas=10 stderr=Error:gone crash=7").await;
    assert_eq!(detail["childExitCode"], 7);
    assert_eq!(detail["childSignal"], Value::Null);
    assert_eq!(detail["trailingMessageLength"], 0);

    let backoff_event = wait_for_backoff_event(&daemon).await;
    assert_eq!(
        (&backoff_event["detail"]["exitCode"], &backoff_event["detail"]["deaths"]),
        (&json!(7), &json!(1))
    );
    assert!(
        backoff_event["message"]
            .as_str()
            .unwrap()
            .contains("exited with code 7. Error output: Error:gone. The next"),
        "{backoff_event}"
    );
    let exited = wait_for_event_type(&daemon, "child.exited").await;
    assert_eq!(
        (&exited["level"], &exited["message"]),
        (&json!("error"), &json!("Codex child exited with code 7."))
    );
}

#[tokio::test]
async fn app_server_kill_is_reported_by_signal_name() {
    let daemon = start_daemon().await;
    let detail = end_during_turn(&daemon, "stderr=unrelated kill").await;
    assert_eq!((&detail["childExitCode"], &detail["childSignal"]), (&Value::Null, &json!("SIGKILL")));
    let backoff_event = wait_for_backoff_event(&daemon).await;
    assert_eq!(backoff_event["detail"]["signal"], "SIGKILL");
    // The stderr of a killed app-server does not explain its exit.
    assert!(!backoff_event["message"].as_str().unwrap().contains("unrelated"), "{backoff_event}");
    let exited = wait_for_event_type(&daemon, "child.exited").await;
    assert_eq!(exited["detail"]["signal"], "SIGKILL");
    assert!(exited["message"].as_str().unwrap().contains("SIGKILL"), "{exited}");
}

#[tokio::test]
async fn app_server_abort_is_reported_by_signal_name() {
    let daemon = start_daemon().await;
    assert_eq!(end_during_turn(&daemon, "abort").await["childSignal"], "SIGABRT");
}

#[tokio::test]
async fn partial_message_is_counted_and_ignored() {
    let daemon = start_daemon().await;
    let detail = end_during_turn(&daemon, "half-line crash=3").await;
    assert!(detail["trailingMessageLength"].as_u64() > Some(0), "{detail}");
    assert_eq!(detail["flushedTrailingMessage"], false);
    assert_eq!(detail["childExitCode"], 3);
}

#[tokio::test]
async fn app_server_is_terminated_after_closing_stdout() {
    let daemon = start_daemon().await;
    let detail = end_during_turn(&daemon, "close-stdout").await;
    assert_eq!(detail["transportCloseSource"], "stdout.end");
    let exited = wait_for_event_type(&daemon, "child.exited").await;
    assert!(exited["detail"].is_object(), "{exited}");
    wait_for_backoff_event(&daemon).await;
}

#[tokio::test]
async fn app_server_exit_fails_all_its_turns() {
    let daemon = start_daemon().await;
    let mut session_ids = Vec::new();
    for _ in 0..5 {
        let session_id = new_session(&daemon).await;
        start_turn(&daemon, &session_id, "hang").await;
        session_ids.push(session_id);
    }
    let idle_session = new_session(&daemon).await;
    end_during_turn(&daemon, "crash").await;
    for session_id in &session_ids {
        assert_eq!(wait_until_idle(&daemon, session_id).await["lastTurnStatus"], "failed");
    }
    assert_eq!(wait_until_idle(&daemon, &idle_session).await["lastTurnStatus"], Value::Null);
    let events = daemon.events_on_disk();
    let missing = events.iter().filter(|event| event["type"] == "app-server.turn.completed.missing").count();
    assert_eq!(missing, 6);
    let closed = events.iter().filter(|event| event["type"] == "app-server.transport.closed").count();
    assert_eq!(closed, 1);
}

#[tokio::test]
async fn app_server_exit_fails_pending_call() {
    let app_server = RecordingAppServer::new();
    let daemon = app_server.builder_without_user_messages().start().await;
    let pending_session = new_session(&daemon).await;
    let other = new_session(&daemon).await;
    let (response, ()) = tokio::join!(request_turn(&daemon, &pending_session, "hang answer-never"), async {
        // The turn runs, although its call has no response yet. Then a turn of the other session ends the app-server.
        wait_for_event(&daemon, "the start of the turn", |event| event["type"] == "app-server.turn.started")
            .await;
        let body = json!({ "sessionId": other, "input": "crash=9" });
        try_post(daemon.base_url(), crate::api::TURN, &body).await;
    });
    response.error(503, "app_server_unavailable");
    assert!(response.headers.get(RETRY_AFTER).is_some());
    assert_eq!(wait_until_idle(&daemon, &pending_session).await["lastTurnStatus"], "failed");
}
