//! Held turn queues: no queued turn is lost, and the cause of the hold is reported.

use std::fs;

use hyper::Method;
use serde_json::{Value, json};

use super::queue::{drained_queue, end_hanging_turn, user_messages};
use super::{RecordingAppServer, ask_with, events_of, post_keyed, queue, queued, restart, started_turns};
use crate::api::{
    SESSIONS, TURN, keys, new_session, request_turn, session_record, start_daemon, start_turn, text,
    wait_for_event_type, wait_for_turn_end, wait_until_idle,
};
use crate::duplex::delete;
use crate::support::daemon::Daemon;
use crate::support::http::{ApiResponse, post, request};
use crate::support::wait::{wait_until, wait_until_async};

/// Requests that a held queue is resumed; returns the response of any status.
async fn resume(daemon: &Daemon, session_id: &str) -> ApiResponse {
    let path = format!("{SESSIONS}/{session_id}/queue/resume");
    request(daemon, Method::POST, &path, &[], "").await
}

/// Waits until the queue of a session is held for this cause; returns the `held` object.
async fn wait_for_hold(daemon: &Daemon, session_id: &str, cause: &str) -> Value {
    wait_until_async(&format!("a queue that is held: {cause}"), async || {
        let held = session_record(daemon, session_id).await["held"].clone();
        (held["cause"] == cause).then_some(held)
    })
    .await
}

#[tokio::test]
async fn turn_queue_resumes_when_missing_thread_returns() {
    let app_server = RecordingAppServer::new();
    let mut daemon = app_server.builder().start().await;
    let session_id = new_session(&daemon).await;
    start_turn(&daemon, &session_id, "hang").await;
    let mut waiting =
        vec![queue(&daemon, &session_id, "one").await, queue(&daemon, &session_id, "two").await];
    let thread_id = session_record(&daemon, &session_id).await["threadId"].clone();
    daemon.stop().await;
    let history = app_server.file(&thread_id, "json");
    fs::rename(&history, history.with_extension("away")).unwrap();

    let mut daemon = restart(&app_server, &daemon).await;
    let hold = wait_for_hold(&daemon, &session_id, "threadUnavailable").await;
    assert_eq!(keys(&hold), ["cause", "reason", "since", "until", "automatic", "queueId", "turnId"]);
    assert!(text(&hold["reason"]).contains("no rollout found"), "{hold}");
    assert_eq!((&hold["automatic"], &hold["until"]), (&json!(true), &Value::Null));
    let event = wait_for_event_type(&daemon, "session.held").await;
    assert_eq!((&event["level"], &event["detail"]["waiting"]), (&json!("warn"), &json!(2)));
    assert_eq!(event["detail"]["held"], hold);
    // A new turn is rejected with the same reason, and the queued turns stay queued.
    resume(&daemon, &session_id).await.error(409, "thread_unavailable");
    request_turn(&daemon, &session_id, "now").await.error(409, "thread_unavailable");
    waiting.push(queue(&daemon, &session_id, "three").await);
    daemon.kill().await;

    let daemon = restart(&app_server, &daemon).await;
    assert_eq!(queued(&daemon, &session_id).await, waiting);
    assert_eq!(session_record(&daemon, &session_id).await["held"]["cause"], "threadUnavailable");
    fs::rename(history.with_extension("away"), &history).unwrap();
    let last = drained_queue(&daemon, &session_id).await;
    assert_eq!(
        (&last["status"], &last["threadId"], &last["held"]),
        (&json!("active"), &thread_id, &Value::Null)
    );
    let turn_starts = app_server.calls("turn/start");
    let order: Vec<_> = turn_starts.iter().skip(1).map(|turn| text(&turn["clientUserMessageId"])).collect();
    assert_eq!(order, waiting);
    assert_eq!(events_of(&daemon, "session.held").len(), 1, "the hold is recorded once for all attempts");
    assert_eq!(wait_for_event_type(&daemon, "session.released").await["detail"]["sessionId"], session_id);
    for event_type in ["turn.rejected", "session.closed"] {
        assert_eq!(events_of(&daemon, event_type), [Value::Null; 0], "{event_type}");
    }
}

#[tokio::test]
async fn queue_resume_request_retries_at_once() {
    let app_server = RecordingAppServer::new();
    let mut daemon = app_server.builder().start().await;
    let session_id = new_session(&daemon).await;
    start_turn(&daemon, &session_id, "hang").await;
    queue(&daemon, &session_id, "one").await;
    // Resuming a queue that is not held changes nothing.
    let answer = resume(&daemon, &session_id).await;
    assert_eq!(keys(answer.data(202)), ["recentEvents", "session", "queuedTurns", "requests", "mcpServers"]);
    resume(&daemon, "unknown").await.error(404, "not_found");
    let thread_id = session_record(&daemon, &session_id).await["threadId"].clone();
    daemon.stop().await;
    let history = app_server.file(&thread_id, "json");
    fs::rename(&history, history.with_extension("away")).unwrap();
    let daemon = restart(&app_server, &daemon).await;
    wait_for_hold(&daemon, &session_id, "threadUnavailable").await;
    fs::rename(history.with_extension("away"), &history).unwrap();
    assert_eq!(resume(&daemon, &session_id).await.data(202)["session"]["held"], Value::Null);
    drained_queue(&daemon, &session_id).await;
    assert_eq!(started_turns(&daemon).len(), 2);
    delete(&daemon, &format!("{SESSIONS}/{session_id}")).await.data(200);
    resume(&daemon, &session_id).await.error(409, "session_not_active");
}

#[tokio::test]
async fn refused_turn_holds_queue_until_withdrawn() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let running = start_turn(&daemon, &session_id, "hang").await;
    let fields = json!({ "whenBusy": "queue", "sandboxPolicy": { "type": "weird" } });
    let invalid = text(&ask_with(&daemon, &session_id, "invalid", fields).await.data(202)["queueId"]);
    let valid = queue(&daemon, &session_id, "valid").await;
    end_hanging_turn(&daemon, &session_id, &running).await;
    let hold = wait_for_hold(&daemon, &session_id, "turnRefused").await;
    assert!(text(&hold["reason"]).contains("weird"), "{hold}");
    assert_eq!((&hold["queueId"], &hold["automatic"]), (&json!(invalid), &json!(false)));
    assert_eq!(queued(&daemon, &session_id).await, [invalid.clone(), valid]);

    // The app-server rejects the turn again on the next attempt.
    resume(&daemon, &session_id).await.data(202);
    wait_until("the second refusal", || (events_of(&daemon, "session.held").len() == 2).then_some(())).await;
    delete(&daemon, &format!("{SESSIONS}/{session_id}/queue/{invalid}")).await.data(200);
    drained_queue(&daemon, &session_id).await;
    assert_eq!(user_messages(&daemon), ["hang", "text=end", "valid"]);
    assert_eq!(session_record(&daemon, &session_id).await["held"], Value::Null);
    assert_eq!(events_of(&daemon, "turn.rejected").len(), 1, "only the withdrawn turn is rejected");
}

#[tokio::test]
async fn failed_turn_holds_queue_until_next_turn_completes() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let running = start_turn(&daemon, &session_id, "hang").await;
    let waiting = [queue(&daemon, &session_id, "one").await, queue(&daemon, &session_id, "two").await];
    let steered = ask_with(&daemon, &session_id, "fail", json!({ "expectedTurnId": running })).await;
    assert_eq!(steered.status, 202, "{}", steered.text);
    let hold = wait_for_hold(&daemon, &session_id, "modelUnavailable").await;
    assert_eq!((&hold["turnId"], &hold["automatic"]), (&json!(running), &json!(false)));
    let failed = wait_for_turn_end(&daemon, &session_id, &json!(running)).await;
    assert_eq!(failed["lastTurnStatus"], "failed");
    assert_eq!(queued(&daemon, &session_id).await, waiting);
    // The hold is recorded before the thread is idle, so no queued turn can start in between.
    let events = daemon.events_on_disk();
    let position = |event_type: &str| events.iter().position(|event| event["type"] == event_type).unwrap();
    assert!(position("session.held") < position("app-server.turn.error"));

    // A completed turn of a client releases the queue.
    start_turn(&daemon, &session_id, "better").await;
    drained_queue(&daemon, &session_id).await;
    assert_eq!(user_messages(&daemon), ["hang", "fail", "better", "one", "two"]);
    assert_eq!(events_of(&daemon, "session.held").len(), 1);
    // An empty queue is not held.
    start_turn(&daemon, &session_id, "fail").await;
    assert_eq!(wait_until_idle(&daemon, &session_id).await["held"], Value::Null);
}

#[tokio::test]
async fn repeated_request_finds_turn_after_many_later_turns() {
    let app_server = RecordingAppServer::new();
    let mut daemon = app_server.builder_without_user_messages().start().await;
    let session_id = new_session(&daemon).await;
    let body = json!({ "sessionId": session_id, "input": "answer-never kill" });
    post_keyed(&daemon, TURN, "k", &body).await.error(503, "app_server_unavailable");
    let turn_id = wait_for_event_type(&daemon, "app-server.turn.started").await["detail"]["turnId"].clone();
    daemon.stop().await;

    let daemon = restart(&app_server, &daemon).await;
    for _ in 0..41 {
        start_turn(&daemon, &session_id, "deltas=0").await;
        wait_until_idle(&daemon, &session_id).await;
    }
    let found = post_keyed(&daemon, TURN, "k", &body).await;
    assert_eq!(found.data(202)["turnId"], turn_id);
    assert_eq!(app_server.calls("turn/start").len(), 42, "the turn ran more than once");
}

#[tokio::test]
async fn turn_with_unknown_outcome_is_not_rerun_on_old_codex() {
    let app_server = RecordingAppServer::new();
    // An old Codex does not report the IDs that a newer one has stored.
    let old = |app_server: &RecordingAppServer| {
        app_server.builder_with_script(
            "\"$1\" record \"$0\" | { \"$1\" app-server --store \"$2\" --startup version=0.130.0 || kill -KILL 0; } \
             | sed -u 's/\"clientId\":\"[^\"]*\"/\"clientId\":null/g'",
        )
    };
    let mut daemon = app_server.builder_without_user_messages().start().await;
    let session_id = new_session(&daemon).await;
    let body = json!({ "sessionId": session_id, "input": "answer-never kill" });
    post_keyed(&daemon, TURN, "k", &body).await.error(503, "app_server_unavailable");
    daemon.stop().await;

    let mut daemon = old(&app_server).state_from(&daemon).start().await;
    let unknown = post_keyed(&daemon, TURN, "k", &body).await;
    assert!(unknown.error(409, "outcome_unknown").contains("0.130.0"), "{}", unknown.text);
    // What could start twice is refused, with the version to install; the rest is accepted.
    let hello = json!({ "sessionId": session_id, "input": "hello" });
    let refused = post_keyed(&daemon, TURN, "other", &hello).await;
    assert!(refused.error(409, "codex_too_old").contains("install version 0.140.0"), "{}", refused.text);
    let running = start_turn(&daemon, &session_id, "hang").await;
    let queued_turn = json!({ "sessionId": session_id, "input": "hello", "whenBusy": "queue" });
    let refused = post(&daemon, TURN, &queued_turn).await;
    assert_eq!(refused.json["details"]["version"], "0.130.0");
    refused.error(409, "codex_too_old");
    end_hanging_turn(&daemon, &session_id, &running).await;
    wait_until_idle(&daemon, &session_id).await;
    daemon.stop().await;

    let mut daemon = app_server.builder_without_user_messages().state_from(&daemon).start().await;
    post_keyed(&daemon, TURN, "other", &hello).await.data(202);
    wait_until_idle(&daemon, &session_id).await;
    let running = start_turn(&daemon, &session_id, "hang").await;
    let unknown_turn = queue(&daemon, &session_id, "hang answer-never").await;
    let next = queue(&daemon, &session_id, "next").await;
    let before = started_turns(&daemon).len();
    end_hanging_turn(&daemon, &session_id, &running).await;
    wait_until_async("the turn without a response", async || {
        (started_turns(&daemon).len() == before + 1).then_some(())
    })
    .await;
    daemon.kill().await;

    let mut daemon = old(&app_server).state_from(&daemon).start().await;
    let hold = wait_for_hold(&daemon, &session_id, "outcomeUnknown").await;
    assert_eq!((&hold["queueId"], &hold["automatic"]), (&json!(unknown_turn), &json!(false)));
    assert_eq!(queued(&daemon, &session_id).await, [unknown_turn.clone(), next.clone()]);
    let path = format!("{SESSIONS}/{session_id}/queue/{unknown_turn}");
    delete(&daemon, &path).await.data(200);
    let hold = wait_for_hold(&daemon, &session_id, "turnRefused").await;
    assert_eq!(hold["queueId"], json!(next));
    assert!(hold["reason"].as_str().unwrap().contains("Codex 0.130.0"), "{hold}");
    daemon.stop().await;

    let daemon = app_server.builder().state_from(&daemon).start().await;
    resume(&daemon, &session_id).await.data(202);
    drained_queue(&daemon, &session_id).await;
    wait_until_idle(&daemon, &session_id).await;
    assert_eq!(app_server.calls("turn/start").len(), 6, "a turn ran more than once");
}
