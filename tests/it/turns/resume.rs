//! Threads that are resumed after a restart, and unknown threads.

use serde_json::{Value, json};

use crate::api::{
    SESSIONS, create_session, new_session, session_record, start_daemon, start_turn, text, wait_for_event,
    wait_until_idle,
};
use crate::support::daemon::Daemon;
use crate::support::http::{get, post};

#[tokio::test]
async fn thread_is_resumed_after_restart_with_its_last_turn() {
    let mut daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let first_turn = start_turn(&daemon, &session_id, "fail").await;
    wait_until_idle(&daemon, &session_id).await;
    let last_turn = start_turn(&daemon, &session_id, "hello").await;
    let before = wait_until_idle(&daemon, &session_id).await;
    assert_ne!(first_turn, last_turn);
    daemon.stop().await;

    let daemon = Daemon::builder().state_from(&daemon).start().await;
    let resumed = create_session(
        &daemon,
        json!({ "threadId": before["threadId"], "purpose": "worker", "metadata": { "a": "b" } }),
    )
    .await;
    let resumed_id = text(&resumed["sessionId"]);
    assert_ne!(resumed_id, session_id, "the thread was resumed in the old session");
    assert_eq!(resumed["threadId"], before["threadId"]);
    assert_eq!(resumed["lastTurnId"], last_turn);
    assert_eq!(resumed["lastTurnStatus"], "completed");
    assert_eq!(resumed["currentTurnId"], Value::Null);
    assert_eq!((&resumed["purpose"], &resumed["metadata"]), (&json!("worker"), &json!({ "a": "b" })));
    assert_ne!(resumed["childPid"], before["childPid"]);
    let event = wait_for_event(&daemon, "the session", |event| event["type"] == "session.resumed").await;
    let thread_id = text(&before["threadId"]);
    assert_eq!(event["message"], format!("Resumed session {resumed_id} for thread {thread_id}."));

    let turn_id = start_turn(&daemon, &resumed_id, "hello again").await;
    assert_eq!(wait_until_idle(&daemon, &resumed_id).await["lastTurnId"], turn_id);
    // The older session is on the same thread, so its record has the same turn.
    assert_eq!(session_record(&daemon, &session_id).await["lastTurnId"], turn_id);
}

#[tokio::test]
async fn running_thread_is_resumed_as_running() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "hang").await;
    let thread_id = session_record(&daemon, &session_id).await["threadId"].clone();
    let resumed = create_session(&daemon, json!({ "threadId": thread_id, "ephemeral": true })).await;
    assert_eq!(resumed["currentTurnId"], turn_id);
    assert_eq!(resumed["lastTurnStatus"], "inProgress");
}

#[tokio::test]
async fn unknown_thread_is_a_client_error() {
    let daemon = start_daemon().await;
    let thread_id = "01234567-89ab-7def-8123-456789abcdef";
    let answer = post(&daemon, SESSIONS, &json!({ "threadId": thread_id })).await;
    let message = answer.error(400, "app_server_rejected");
    assert!(message.contains(thread_id), "{message}");
    assert_eq!(answer.json["details"]["code"], -32600);
    assert!(answer.json["details"]["message"].as_str().unwrap().contains(thread_id));
    assert_eq!(get(&daemon, SESSIONS).await.data(200)["sessions"], json!([]));
    assert!(!daemon.events_on_disk().iter().any(|event| event["type"] == "session.resumed"));
}
