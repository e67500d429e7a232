//! Held turn queues: no queued turn is lost, and the cause of the hold is reported.

use std::fs;

use hyper::Method;
use serde_json::{Value, json};

use super::queue::{drained_queue, end_hanging_turn, user_messages};
use super::{RecordingAppServer, ask_with, events_of, post_keyed, queue, queued, restart, started_turns};
use crate::api::{
    SESSIONS, TURN, ask_turn, ended, idle, keys, logged, logged_type, record, session, start, text, turn,
};
use crate::duplex::delete;
use crate::support::daemon::Daemon;
use crate::support::http::{Answer, request};
use crate::support::wait::wait_until_async;

/// Asks for a held queue to go on.
async fn resume(daemon: &Daemon, session_id: &str) -> Answer {
    let path = format!("{SESSIONS}/{session_id}/queue/resume");
    request(daemon, Method::POST, &path, &[], "").await
}

/// Why a session's queue is held, once it is for this cause.
async fn held(daemon: &Daemon, session_id: &str, cause: &str) -> Value {
    wait_until_async(&format!("a queue that is held: {cause}"), async || {
        let held = record(daemon, session_id).await["held"].clone();
        (held["cause"] == cause).then_some(held)
    })
    .await
}

#[tokio::test]
async fn turn_queue_resumes_when_missing_thread_returns() {
    let app_server = RecordingAppServer::new();
    let mut daemon = app_server.builder().start().await;
    let session_id = session(&daemon).await;
    turn(&daemon, &session_id, "hang").await;
    let mut waiting =
        vec![queue(&daemon, &session_id, "one").await, queue(&daemon, &session_id, "two").await];
    let thread_id = record(&daemon, &session_id).await["threadId"].clone();
    daemon.stop().await;
    let history = app_server.file(&thread_id, "json");
    fs::rename(&history, history.with_extension("away")).unwrap();

    let mut daemon = restart(&app_server, &daemon).await;
    let why = held(&daemon, &session_id, "threadUnavailable").await;
    assert_eq!(keys(&why), ["cause", "reason", "since", "until", "automatic", "queueId", "turnId"]);
    assert!(text(&why["reason"]).contains("no rollout found"), "{why}");
    assert_eq!((&why["automatic"], &why["until"]), (&json!(true), &Value::Null));
    let told = logged_type(&daemon, "session.held").await;
    assert_eq!((&told["level"], &told["detail"]["waiting"]), (&json!("warn"), &json!(2)));
    assert_eq!(told["detail"]["held"], why);
    // What a client asks for is refused with the same reason, and what waits waits on.
    resume(&daemon, &session_id).await.error(409, "thread_unavailable");
    ask_turn(&daemon, &session_id, "now").await.error(409, "thread_unavailable");
    waiting.push(queue(&daemon, &session_id, "three").await);
    daemon.kill().await;

    let daemon = restart(&app_server, &daemon).await;
    assert_eq!(queued(&daemon, &session_id).await, waiting);
    assert_eq!(record(&daemon, &session_id).await["held"]["cause"], "threadUnavailable");
    fs::rename(history.with_extension("away"), &history).unwrap();
    let last = drained_queue(&daemon, &session_id).await;
    assert_eq!(
        (&last["status"], &last["threadId"], &last["held"]),
        (&json!("active"), &thread_id, &Value::Null)
    );
    let told = app_server.calls("turn/start");
    let order: Vec<_> = told.iter().skip(1).map(|turn| text(&turn["clientUserMessageId"])).collect();
    assert_eq!(order, waiting);
    assert_eq!(events_of(&daemon, "session.held").len(), 1, "it is told once, however often it is tried");
    assert_eq!(logged_type(&daemon, "session.released").await["detail"]["sessionId"], session_id);
    for event_type in ["turn.rejected", "session.closed"] {
        assert_eq!(events_of(&daemon, event_type), [Value::Null; 0], "{event_type}");
    }
}

#[tokio::test]
async fn queue_resume_request_retries_at_once() {
    let app_server = RecordingAppServer::new();
    let mut daemon = app_server.builder().start().await;
    let session_id = session(&daemon).await;
    turn(&daemon, &session_id, "hang").await;
    queue(&daemon, &session_id, "one").await;
    // A queue that is not held stays as it is.
    let answer = resume(&daemon, &session_id).await;
    assert_eq!(keys(answer.data(202)), ["recentEvents", "session", "queuedTurns", "requests", "mcpServers"]);
    resume(&daemon, "nobody").await.error(404, "not_found");
    let thread_id = record(&daemon, &session_id).await["threadId"].clone();
    daemon.stop().await;
    let history = app_server.file(&thread_id, "json");
    fs::rename(&history, history.with_extension("away")).unwrap();
    let daemon = restart(&app_server, &daemon).await;
    held(&daemon, &session_id, "threadUnavailable").await;
    fs::rename(history.with_extension("away"), &history).unwrap();
    assert_eq!(resume(&daemon, &session_id).await.data(202)["session"]["held"], Value::Null);
    drained_queue(&daemon, &session_id).await;
    assert_eq!(started_turns(&daemon).len(), 2);
    delete(&daemon, &format!("{SESSIONS}/{session_id}")).await.data(200);
    resume(&daemon, &session_id).await.error(409, "session_not_active");
}

#[tokio::test]
async fn refused_turn_holds_queue_until_withdrawn() {
    let daemon = start().await;
    let session_id = session(&daemon).await;
    let running = turn(&daemon, &session_id, "hang").await;
    let fields = json!({ "whenBusy": "queue", "sandboxPolicy": { "type": "weird" } });
    let wrong = text(&ask_with(&daemon, &session_id, "wrong", fields).await.data(202)["queueId"]);
    let right = queue(&daemon, &session_id, "right").await;
    end_hanging_turn(&daemon, &session_id, &running).await;
    let why = held(&daemon, &session_id, "turnRefused").await;
    assert!(text(&why["reason"]).contains("weird"), "{why}");
    assert_eq!((&why["queueId"], &why["automatic"]), (&json!(wrong), &json!(false)));
    assert_eq!(queued(&daemon, &session_id).await, [wrong.clone(), right]);

    // It is refused again when it is tried again.
    resume(&daemon, &session_id).await.data(202);
    logged(&daemon, "the second refusal", {
        let mut count = 0;
        move |event| {
            count += usize::from(event["type"] == "session.held");
            count == 2
        }
    })
    .await;
    delete(&daemon, &format!("{SESSIONS}/{session_id}/queue/{wrong}")).await.data(200);
    drained_queue(&daemon, &session_id).await;
    assert_eq!(user_messages(&daemon), ["hang", "text=end", "right"]);
    assert_eq!(record(&daemon, &session_id).await["held"], Value::Null);
    assert_eq!(events_of(&daemon, "turn.rejected").len(), 1, "only what a client took back");
}

#[tokio::test]
async fn failed_turn_holds_queue_until_next_turn_completes() {
    let daemon = start().await;
    let session_id = session(&daemon).await;
    let running = turn(&daemon, &session_id, "hang").await;
    let waiting = [queue(&daemon, &session_id, "one").await, queue(&daemon, &session_id, "two").await];
    let steered = ask_with(&daemon, &session_id, "fail", json!({ "expectedTurnId": running })).await;
    assert_eq!(steered.status, 202, "{}", steered.text);
    let why = held(&daemon, &session_id, "modelUnavailable").await;
    assert_eq!((&why["turnId"], &why["automatic"]), (&json!(running), &json!(false)));
    let failed = ended(&daemon, &session_id, &json!(running)).await;
    assert_eq!(failed["lastTurnStatus"], "failed");
    assert_eq!(queued(&daemon, &session_id).await, waiting);
    // It is held before its thread is idle, so nothing can slip through.
    let events = daemon.events_on_disk();
    let place = |event_type: &str| events.iter().position(|event| event["type"] == event_type).unwrap();
    assert!(place("session.held") < place("app-server.turn.error"));

    // A turn that a client sends shows that the cause is gone.
    turn(&daemon, &session_id, "better").await;
    drained_queue(&daemon, &session_id).await;
    assert_eq!(user_messages(&daemon), ["hang", "fail", "better", "one", "two"]);
    assert_eq!(events_of(&daemon, "session.held").len(), 1);
    // Where nothing waits, nothing is held.
    turn(&daemon, &session_id, "fail").await;
    assert_eq!(idle(&daemon, &session_id).await["held"], Value::Null);
}

#[tokio::test]
async fn repeated_request_finds_turn_after_many_later_turns() {
    let app_server = RecordingAppServer::new();
    let mut daemon = app_server.builder_without_user_messages().start().await;
    let session_id = session(&daemon).await;
    let body = json!({ "sessionId": session_id, "input": "answer-never kill" });
    post_keyed(&daemon, TURN, "k", &body).await.error(503, "app_server_unavailable");
    let began = logged_type(&daemon, "app-server.turn.started").await["detail"]["turnId"].clone();
    daemon.stop().await;

    let daemon = restart(&app_server, &daemon).await;
    for _ in 0..41 {
        turn(&daemon, &session_id, "deltas=0").await;
        idle(&daemon, &session_id).await;
    }
    let found = post_keyed(&daemon, TURN, "k", &body).await;
    assert_eq!(found.data(202)["turnId"], began);
    assert_eq!(app_server.calls("turn/start").len(), 42, "it ran once");
}

#[tokio::test]
async fn turn_with_unknown_outcome_is_not_rerun_on_old_codex() {
    let app_server = RecordingAppServer::new();
    let old = |app_server: &RecordingAppServer| {
        app_server.builder_with_script(
            "tee -a \"$0\" | { \"$1\" app-server --store \"$2\" --startup version=0.130.0 || kill -KILL 0; }",
        )
    };
    let mut daemon = old(&app_server).start().await;
    let session_id = session(&daemon).await;
    let body = json!({ "sessionId": session_id, "input": "answer-never kill" });
    post_keyed(&daemon, TURN, "k", &body).await.error(503, "app_server_unavailable");
    daemon.stop().await;
    let mut daemon = old(&app_server).state_from(&daemon).start().await;
    let unknown = post_keyed(&daemon, TURN, "k", &body).await;
    assert!(unknown.error(409, "outcome_unknown").contains("0.130.0"), "{}", unknown.text);
    let running = turn(&daemon, &session_id, "hang").await;
    let doubtful = queue(&daemon, &session_id, "hang answer-never").await;
    let next = queue(&daemon, &session_id, "next").await;
    end_hanging_turn(&daemon, &session_id, &running).await;
    logged_type(&daemon, "turn.submitted").await;
    wait_until_async("the turn that nobody was told of", async || {
        (started_turns(&daemon).len() == 3).then_some(())
    })
    .await;
    daemon.kill().await;

    let daemon = old(&app_server).state_from(&daemon).start().await;
    let why = held(&daemon, &session_id, "outcomeUnknown").await;
    assert_eq!((&why["queueId"], &why["automatic"]), (&json!(doubtful), &json!(false)));
    assert_eq!(queued(&daemon, &session_id).await, [doubtful.clone(), next]);
    let path = format!("{SESSIONS}/{session_id}/queue/{doubtful}");
    delete(&daemon, &path).await.data(200);
    drained_queue(&daemon, &session_id).await;
    assert_eq!(app_server.calls("turn/start").len(), 4, "none of them ran twice");
}
