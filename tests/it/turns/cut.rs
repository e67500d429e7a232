//! Turns whose app-server exits while they run.

use hyper::header::RETRY_AFTER;
use serde_json::{Value, json};

use crate::api::{
    ask_turn, assert_keys, backoff_event, create, idle, logged, logged_type, session, start, text, try_post,
    turn,
};
use crate::sessions::RecordingAppServer;
use crate::support::daemon::Daemon;
use crate::support::http::Target;

/// Everything that the end of a turn without its end says.
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

/// Lets the app-server die in the middle of a turn, and checks what holds however it died; the detail of the event.
async fn cut(daemon: &Daemon, prompt: &str) -> Value {
    let session = create(daemon, json!({})).await;
    let session_id = text(&session["sessionId"]);
    let turn_id = turn(daemon, &session_id, prompt).await;
    let record = idle(daemon, &session_id).await;
    assert_eq!((&record["lastTurnId"], &record["lastTurnStatus"]), (&json!(turn_id), &json!("failed")));
    assert_eq!(record["status"], "active");
    let missing = logged(daemon, "the missing end", |event| {
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
    let closed = logged_type(daemon, "app-server.transport.closed").await;
    let keys = ["exitCode", "flushedTrailingMessage", "signal", "source", "trailingMessageLength"];
    assert_keys(&closed["detail"], &keys);
    assert_eq!(closed["level"], "warn");
    assert!(closed["seq"].as_u64() < missing["seq"].as_u64());
    detail
}

#[tokio::test]
async fn app_server_crash_fails_turn_and_is_reported() {
    let daemon = start().await;
    let detail = cut(&daemon, "deltas=10 stderr=Error:gone crash=7").await;
    assert_eq!(detail["childExitCode"], 7);
    assert_eq!(detail["childSignal"], Value::Null);
    assert_eq!(detail["trailingMessageLength"], 0);

    let backoff_event = backoff_event(&daemon).await;
    assert_eq!(
        (&backoff_event["detail"]["exitCode"], &backoff_event["detail"]["deaths"]),
        (&json!(7), &json!(1))
    );
    assert!(
        backoff_event["message"]
            .as_str()
            .unwrap()
            .contains("exited with code 7. It said last: Error:gone. The next"),
        "{backoff_event}"
    );
    let exited = logged_type(&daemon, "child.exited").await;
    assert_eq!(
        (&exited["level"], &exited["message"]),
        (&json!("error"), &json!("Codex child exited with code 7."))
    );
}

#[tokio::test]
async fn app_server_kill_is_reported_by_signal_name() {
    let daemon = start().await;
    let detail = cut(&daemon, "stderr=unrelated kill").await;
    assert_eq!((&detail["childExitCode"], &detail["childSignal"]), (&Value::Null, &json!("SIGKILL")));
    let backoff_event = backoff_event(&daemon).await;
    assert_eq!(backoff_event["detail"]["signal"], "SIGKILL");
    // Whoever is killed does not say why.
    assert!(!backoff_event["message"].as_str().unwrap().contains("unrelated"), "{backoff_event}");
    let exited = logged_type(&daemon, "child.exited").await;
    assert_eq!(exited["detail"]["signal"], "SIGKILL");
    assert!(exited["message"].as_str().unwrap().contains("SIGKILL"), "{exited}");
}

#[tokio::test]
async fn app_server_abort_is_reported_by_signal_name() {
    let daemon = start().await;
    assert_eq!(cut(&daemon, "abort").await["childSignal"], "SIGABRT");
}

#[tokio::test]
async fn partial_message_is_counted_and_ignored() {
    let daemon = start().await;
    let detail = cut(&daemon, "half-line crash=3").await;
    assert!(detail["trailingMessageLength"].as_u64() > Some(0), "{detail}");
    assert_eq!(detail["flushedTrailingMessage"], false);
    assert_eq!(detail["childExitCode"], 3);
}

#[tokio::test]
async fn app_server_is_terminated_after_closing_stdout() {
    let daemon = start().await;
    let detail = cut(&daemon, "close-stdout").await;
    assert_eq!(detail["transportCloseSource"], "stdout.end");
    let exited = logged_type(&daemon, "child.exited").await;
    assert!(exited["detail"].is_object(), "{exited}");
    backoff_event(&daemon).await;
}

#[tokio::test]
async fn app_server_exit_fails_all_its_turns() {
    let daemon = start().await;
    let mut session_ids = Vec::new();
    for _ in 0..5 {
        let session_id = session(&daemon).await;
        turn(&daemon, &session_id, "hang").await;
        session_ids.push(session_id);
    }
    let idle_one = session(&daemon).await;
    cut(&daemon, "crash").await;
    for session_id in &session_ids {
        assert_eq!(idle(&daemon, session_id).await["lastTurnStatus"], "failed");
    }
    assert_eq!(idle(&daemon, &idle_one).await["lastTurnStatus"], Value::Null);
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
    let silent = session(&daemon).await;
    let other = session(&daemon).await;
    let (waiting, ()) = tokio::join!(ask_turn(&daemon, &silent, "hang answer-never"), async {
        // The turn runs though nobody was told so; only then does the other one end the process.
        logged(&daemon, "the start of the turn", |event| event["type"] == "app-server.turn.started").await;
        let body = json!({ "sessionId": other, "input": "crash=9" });
        try_post(daemon.base_url(), crate::api::TURN, &body).await;
    });
    waiting.error(503, "app_server_unavailable");
    assert!(waiting.headers.get(RETRY_AFTER).is_some());
    assert_eq!(idle(&daemon, &silent).await["lastTurnStatus"], "failed");
}
