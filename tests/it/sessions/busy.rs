//! Turns that are requested in a busy session, and an overloaded app-server.

use serde_json::{Value, json};

use super::{RecordingAppServer, ask_with, events_of};
use crate::api::{
    new_session, request_turn, session_record, start_daemon, start_turn, wait_for_turn_end, wait_until_idle,
};
use crate::support::wait::wait_until;
use hyper::header::RETRY_AFTER;

#[tokio::test]
async fn busy_session_refuses_turns_by_default() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "hang").await;
    for fields in
        [json!({}), json!({ "whenBusy": "refuse" }), json!({ "whenBusy": null }), json!({ "whenBusy": " " })]
    {
        let answer = ask_with(&daemon, &session_id, "hello", fields).await;
        let message = answer.error(409, "turn_in_progress");
        assert!(message.contains(&turn_id) && message.contains("whenBusy"), "{message}");
        assert_eq!(answer.json["details"], json!({ "sessionId": session_id, "turnId": turn_id }));
    }
    for wrong in [json!("wait"), json!("Queue"), json!(1), json!(true)] {
        let answer = ask_with(&daemon, &session_id, "hello", json!({ "whenBusy": wrong })).await;
        assert!(answer.error(400, "bad_request").contains("whenBusy"), "{}", answer.text);
    }
    assert_eq!(session_record(&daemon, &session_id).await["currentTurnId"], turn_id);
}

#[tokio::test]
async fn turn_request_can_steer_the_running_turn() {
    let app_server = RecordingAppServer::new();
    let daemon = app_server.builder().start().await;
    let session_id = new_session(&daemon).await;
    let steer = json!({ "whenBusy": "steer", "model": "embedded-model-mini" });
    // No turn runs, so this starts one.
    let first = ask_with(&daemon, &session_id, "hang", steer.clone()).await;
    let turn_id = first.data(202)["turnId"].clone();
    let answer = ask_with(&daemon, &session_id, "text=end", steer).await;
    assert_eq!(answer.data(202)["turnId"], turn_id);
    assert_eq!(answer.data(202).get("queueId"), None);
    assert_eq!(wait_until_idle(&daemon, &session_id).await["lastTurnId"], turn_id);
    let thread_id = session_record(&daemon, &session_id).await["threadId"].clone();
    let expected = json!({
        "threadId": thread_id,
        "expectedTurnId": turn_id,
        "input": [{ "type": "text", "text": "text=end", "text_elements": [] }],
    });
    assert_eq!(app_server.calls("turn/steer"), [expected]);
    assert_eq!(app_server.calls("turn/start").len(), 1);
}

#[tokio::test]
async fn steer_of_a_just_ended_turn_starts_a_new_turn() {
    let app_server = RecordingAppServer::new();
    // This daemon does not receive the end of the turn.
    let daemon = app_server.builder_without_turn_events().start().await;
    let session_id = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "hello").await;
    let history = app_server.file(&session_record(&daemon, &session_id).await["threadId"], "json");
    wait_until("the end of the turn", || {
        std::fs::read_to_string(&history).ok().filter(|text| text.contains("\"completed\""))
    })
    .await;
    let answer = ask_with(&daemon, &session_id, "hello again", json!({ "whenBusy": "steer" })).await;
    assert_ne!(answer.data(202)["turnId"], turn_id);
    let fields = json!({ "expectedTurnId": turn_id, "whenBusy": "steer" });
    ask_with(&daemon, &session_id, "hello", fields).await.error(400, "app_server_rejected");
}

#[tokio::test]
async fn expected_turn_id_takes_precedence_over_when_busy() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "hang").await;
    let fields = json!({ "expectedTurnId": "another", "whenBusy": "queue" });
    ask_with(&daemon, &session_id, "text=end", fields).await.error(400, "app_server_rejected");
    let fields = json!({ "expectedTurnId": turn_id, "whenBusy": "queue" });
    assert_eq!(ask_with(&daemon, &session_id, "text=end", fields).await.data(202)["turnId"], turn_id);
    assert_eq!(wait_until_idle(&daemon, &session_id).await["lastTurnStatus"], "completed");
}

#[tokio::test]
async fn overloaded_app_server_call_is_retried() {
    let app_server = RecordingAppServer::new();
    let daemon = app_server.builder().start().await;
    let session_id = new_session(&daemon).await;
    start_turn(&daemon, &session_id, "overload=2").await;
    wait_until_idle(&daemon, &session_id).await;
    let turn_id = start_turn(&daemon, &session_id, "hello").await;
    assert_eq!(wait_for_turn_end(&daemon, &session_id, &json!(turn_id)).await["lastTurnStatus"], "completed");
    assert_eq!(
        app_server.calls("turn/start").len(),
        4,
        "the first turn, two rejected calls, the second turn"
    );
    assert_eq!(events_of(&daemon, "turn.accepted").len(), 2);
}

#[tokio::test]
async fn persistent_overload_returns_503_with_retry_after() {
    let app_server = RecordingAppServer::new();
    let daemon = app_server.builder().start().await;
    let session_id = new_session(&daemon).await;
    start_turn(&daemon, &session_id, "overload=9").await;
    wait_until_idle(&daemon, &session_id).await;
    let answer = request_turn(&daemon, &session_id, "hello").await;
    answer.error(503, "overloaded");
    assert!(answer.headers.get(RETRY_AFTER).is_some(), "no Retry-After: {}", answer.text);
    let attempts = app_server.calls("turn/start").len() - 1;
    assert!((2..=9).contains(&attempts), "{attempts} attempts");
    assert_eq!(session_record(&daemon, &session_id).await["currentTurnId"], Value::Null);
    // The overload ends after 9 rejected calls.
    let mut answer = request_turn(&daemon, &session_id, "hello").await;
    for _ in 0..9 {
        if answer.status == 202 {
            break;
        }
        answer.error(503, "overloaded");
        answer = request_turn(&daemon, &session_id, "hello").await;
    }
    wait_for_turn_end(&daemon, &session_id, &answer.data(202)["turnId"]).await;
}
