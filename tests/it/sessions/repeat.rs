//! Requests that are repeated with the same `Idempotency-Key`.

use futures_util::future::join_all;
use hyper::Method;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

use super::{RecordingAppServer, ask_with, events_of, post_keyed, queued, restart, started_turns};
use crate::api::{
    SESSIONS, TURN, create_session, new_session, request_bytes, session_record, start_daemon, start_turn,
    text, wait_for_event, wait_for_event_type, wait_for_turn_end, wait_until_idle, wait_until_not_ready,
};
use crate::support::daemon::Daemon;
use crate::support::http::{ApiResponse, Target, get, request};
use crate::support::wait::wait_until;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

fn body(session_id: &str, prompt: &str) -> Value {
    json!({ "sessionId": session_id, "input": prompt })
}

/// Asserts that two responses are equal byte for byte.
fn assert_same(first: &ApiResponse, second: &ApiResponse) {
    assert_eq!((first.status, &first.text), (second.status, &second.text));
}

#[tokio::test]
async fn idempotency_key_returns_first_response_across_restart() {
    let app_server = RecordingAppServer::new();
    let mut daemon = app_server.builder().start().await;
    let fields = json!({ "metadata": { "b": "1", "a": "2" } });
    let created = post_keyed(&daemon, SESSIONS, "create", &fields).await;
    assert_eq!(created.status, 201, "{}", created.text);
    let session_id = text(&created.data(201)["session"]["sessionId"]);
    let request = body(&session_id, "hello");
    let taken = post_keyed(&daemon, TURN, "turn", &request).await;
    assert_eq!(taken.status, 202, "{}", taken.text);
    wait_for_turn_end(&daemon, &session_id, &taken.data(202)["turnId"]).await;

    for round in 0..3 {
        // Neither the order of the fields nor later events change the response.
        let reordered = json!({ "input": "hello", "sessionId": session_id });
        assert_same(&taken, &post_keyed(&daemon, TURN, "turn", &reordered).await);
        assert_same(&created, &post_keyed(&daemon, SESSIONS, "create", &fields).await);
        assert_eq!(app_server.calls("turn/start").len(), 1 + round);
        assert_eq!(app_server.calls("thread/start").len(), 1);
        start_turn(&daemon, &session_id, "another").await;
        wait_until_idle(&daemon, &session_id).await;
        match round {
            0 => assert!(daemon.stop().await.status.success()),
            1 => assert!(!daemon.kill().await.success()),
            _ => break,
        }
        daemon = restart(&app_server, &daemon).await;
    }
    assert_eq!(get(&daemon, SESSIONS).await.data(200)["sessions"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn idempotency_key_is_bound_to_one_request() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let taken = post_keyed(&daemon, TURN, "k", &body(&session_id, "hello")).await;
    wait_for_turn_end(&daemon, &session_id, &taken.data(202)["turnId"]).await;
    for (path, other) in [
        (TURN, body(&session_id, "another")),
        (TURN, json!({ "sessionId": session_id, "input": "hello", "effort": "high" })),
        (SESSIONS, json!({})),
    ] {
        let answer = post_keyed(&daemon, path, "k", &other).await;
        assert!(answer.error(422, "idempotency_key_reused").contains("\"k\""), "{}", answer.text);
    }
    assert_same(&taken, &post_keyed(&daemon, TURN, "k", &body(&session_id, "hello")).await);
    // A different key is a different request.
    let other = post_keyed(&daemon, TURN, "K", &body(&session_id, "hello")).await;
    assert_ne!(other.data(202)["turnId"], taken.data(202)["turnId"]);
}

#[tokio::test]
async fn idempotency_comparison_ignores_field_order() {
    let daemon = start_daemon().await;
    let keyed = async |path: &str, key: &str, body: &str| {
        request(&daemon, Method::POST, path, &[("idempotency-key", key)], body.to_owned()).await
    };
    let created =
        keyed(SESSIONS, "c", r#"{"config": {"a": {"x": 1, "y": [{"p": 1, "q": 2}]}, "b": 2}}"#).await;
    let session_id = text(&created.data(201)["session"]["sessionId"]);
    let reordered =
        keyed(SESSIONS, "c", r#"{"config": {"b": 2, "a": {"y": [{"q": 2, "p": 1}], "x": 1}}}"#).await;
    assert_same(&created, &reordered);
    let turn_body = |item: &str| format!(r#"{{"sessionId": "{session_id}", "input": [{item}]}}"#);
    let taken = keyed(TURN, "t", &turn_body(r#"{"type": "text", "text": "hello"}"#)).await;
    assert_eq!(taken.status, 202, "{}", taken.text);
    assert_same(&taken, &keyed(TURN, "t", &turn_body(r#"{"text": "hello", "type": "text"}"#)).await);
    // The order of items matters.
    let two = |one: &str, other: &str| {
        turn_body(&format!(r#"{{"type": "text", "text": "{one}"}}, {{"text": "{other}", "type": "text"}}"#))
    };
    wait_until_idle(&daemon, &session_id).await;
    let taken = keyed(TURN, "l", &two("a", "b")).await;
    assert_eq!(taken.status, 202, "{}", taken.text);
    keyed(TURN, "l", &two("b", "a")).await.error(422, "idempotency_key_reused");
}

#[tokio::test]
async fn invalid_idempotency_key_is_a_client_error() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let (request_body, long) = (body(&session_id, "hello").to_string(), "x".repeat(201));
    let key = |value| ("idempotency-key", value);
    for headers in
        [vec![key("")], vec![key("  ")], vec![key(&long)], vec![key("é")], vec![key("a"), key("a")]]
    {
        for path in [TURN, SESSIONS] {
            let answer = request(&daemon, Method::POST, path, &headers, request_body.clone()).await;
            assert!(answer.error(400, "bad_request").contains("Idempotency-Key"), "{}", answer.text);
        }
    }
    assert_eq!(started_turns(&daemon), [""; 0]);
    let longest = "x".repeat(200);
    assert_eq!(post_keyed(&daemon, TURN, &longest, &body(&session_id, "hello")).await.status, 202);
}

#[tokio::test]
async fn concurrent_requests_with_one_key_run_once() {
    let app_server = RecordingAppServer::new();
    let daemon = app_server.builder().start().await;
    let sessions = join_all((0..10).map(|_| post_keyed(&daemon, SESSIONS, "create", &Value::Null))).await;
    let sessions_failed = sessions.iter().filter(|answer| answer.status != 201).count();
    assert_eq!(sessions_failed, 10, "a body of null is not an object");
    let fields = json!({});
    let sessions = join_all((0..10).map(|_| post_keyed(&daemon, SESSIONS, "create", &fields))).await;
    let session_id = text(&sessions[0].data(201)["session"]["sessionId"]);
    let request = body(&session_id, "hang");
    let turns = join_all((0..10).map(|_| post_keyed(&daemon, TURN, "turn", &request))).await;
    assert_eq!(turns[0].status, 202, "{}", turns[0].text);
    for answers in [sessions, turns] {
        for answer in &answers {
            assert_same(&answers[0], answer);
        }
    }
    assert_eq!(app_server.calls("thread/start").len(), 1);
    assert_eq!(app_server.calls("turn/start").len(), 1);
}

#[tokio::test]
async fn refused_request_can_be_retried_with_its_key() {
    let app_server = RecordingAppServer::new();
    let daemon = app_server.builder().start().await;
    let session_id = new_session(&daemon).await;
    let invalid = json!({ "sessionId": session_id, "input": "hello", "sandboxPolicy": { "type": "weird" } });
    for _ in 0..2 {
        post_keyed(&daemon, TURN, "invalid", &invalid).await.error(400, "app_server_rejected");
    }
    assert_eq!(app_server.calls("turn/start").len(), 2);
    assert_eq!(events_of(&daemon, "turn.rejected").len(), 2);
    // A rejected request does not occupy its key.
    assert_eq!(post_keyed(&daemon, TURN, "invalid", &body(&session_id, "hang")).await.status, 202);
    let request = body(&session_id, "hello");
    post_keyed(&daemon, TURN, "busy", &request).await.error(409, "turn_in_progress");
    let running = session_record(&daemon, &session_id).await["currentTurnId"].clone();
    ask_with(&daemon, &session_id, "text=end", json!({ "expectedTurnId": running })).await;
    wait_until_idle(&daemon, &session_id).await;
    assert_eq!(post_keyed(&daemon, TURN, "busy", &request).await.status, 202);
    let unknown = json!({ "sessionId": "unknown", "input": "hello" });
    for _ in 0..2 {
        post_keyed(&daemon, TURN, "unknown", &unknown).await.error(404, "not_found");
    }
}

#[tokio::test]
async fn repeated_request_queues_once_and_steers_once() {
    let app_server = RecordingAppServer::new();
    let daemon = app_server.builder().start().await;
    let session_id = new_session(&daemon).await;
    let running = start_turn(&daemon, &session_id, "hang").await;
    let waiting = json!({ "sessionId": session_id, "input": "hello", "whenBusy": "queue" });
    let first = post_keyed(&daemon, TURN, "queue", &waiting).await;
    assert!(first.data(202)["queueId"].is_string(), "{}", first.text);
    assert_same(&first, &post_keyed(&daemon, TURN, "queue", &waiting).await);
    assert_eq!(queued(&daemon, &session_id).await.len(), 1);
    let steering = json!({ "sessionId": session_id, "input": "text=end", "expectedTurnId": running });
    let steered = post_keyed(&daemon, TURN, "steer", &steering).await;
    assert_eq!(steered.data(202)["turnId"], running);
    wait_until("the queued turn", || (started_turns(&daemon).len() == 2).then_some(())).await;
    wait_until_idle(&daemon, &session_id).await;
    assert_same(&steered, &post_keyed(&daemon, TURN, "steer", &steering).await);
    assert_same(&first, &post_keyed(&daemon, TURN, "queue", &waiting).await);
    assert_eq!(app_server.calls("turn/steer").len(), 1);
    assert_eq!(app_server.calls("turn/start").len(), 2);
}

/// Waits until a turn has started; returns its ID, which the response to `turn/start` did not report.
async fn unreported_turn_id(daemon: &Daemon) -> Value {
    let started = wait_for_event_type(daemon, "app-server.turn.started").await;
    started["detail"]["turnId"].clone()
}

/// Sends a request and returns the connection without reading a response. The caller keeps the connection open: the
/// daemon cannot check the user of a closed one.
async fn send(daemon: &Daemon, key: &str, body: &Value) -> TcpStream {
    let request = request_bytes(daemon, TURN, body);
    let request = request.replacen("\r\n", &format!("\r\nidempotency-key: {key}\r\n"), 1);
    let mut stream = TcpStream::connect(daemon.authority()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    stream
}

#[tokio::test]
async fn repeated_request_finds_turn_after_app_server_exit() {
    let app_server = RecordingAppServer::new();
    let mut daemon = app_server.builder_without_user_messages().start().await;
    let session_id = new_session(&daemon).await;
    let request = body(&session_id, "answer-never kill");
    post_keyed(&daemon, TURN, "k", &request).await.error(503, "app_server_unavailable");
    let turn_id = unreported_turn_id(&daemon).await;
    daemon.stop().await;

    let daemon = restart(&app_server, &daemon).await;
    let found = post_keyed(&daemon, TURN, "k", &request).await;
    assert_eq!(found.data(202)["turnId"], turn_id);
    assert_same(&found, &post_keyed(&daemon, TURN, "k", &request).await);
    let record = wait_until_idle(&daemon, &session_id).await;
    assert_eq!((&record["lastTurnId"], &record["lastTurnStatus"]), (&turn_id, &json!("interrupted")));
    assert_eq!(app_server.calls("turn/start").len(), 1);
    start_turn(&daemon, &session_id, "hello").await;
    assert_eq!(wait_until_idle(&daemon, &session_id).await["lastTurnStatus"], "completed");
}

#[tokio::test]
async fn repeated_request_finds_turn_after_daemon_exit() {
    let app_server = RecordingAppServer::new();
    let mut daemon = app_server.builder_without_user_messages().start().await;
    let session_id = new_session(&daemon).await;
    let request = body(&session_id, "answer-never hang");
    let _connection = send(&daemon, "k", &request).await;
    let turn_id = unreported_turn_id(&daemon).await;
    daemon.kill().await;

    let daemon = restart(&app_server, &daemon).await;
    assert_eq!(post_keyed(&daemon, TURN, "k", &request).await.data(202)["turnId"], turn_id);
    assert_eq!(app_server.calls("turn/start").len(), 1);
    assert_eq!(wait_until_idle(&daemon, &session_id).await["lastTurnStatus"], "interrupted");
}

#[tokio::test]
async fn repeated_request_finds_finished_turn_without_notifications() {
    let app_server = RecordingAppServer::new();
    let mut daemon = app_server.builder_without_turn_events().start().await;
    let session = create_session(&daemon, json!({})).await;
    let session_id = text(&session["sessionId"]);
    let request = body(&session_id, "answer-never hang");
    let _connection = send(&daemon, "k", &request).await;
    // The thread has the message, and the daemon was not notified of it.
    let history = app_server.file(&session["threadId"], "json");
    wait_until("the message in the thread", || {
        std::fs::read_to_string(&history).ok().filter(|text| text.contains("userMessage"))
    })
    .await;
    assert_eq!(session_record(&daemon, &session_id).await["lastTurnId"], Value::Null);
    daemon.kill().await;

    let daemon = restart(&app_server, &daemon).await;
    let found = post_keyed(&daemon, TURN, "k", &request).await;
    assert_same(&found, &post_keyed(&daemon, TURN, "k", &request).await);
    let record = wait_for_turn_end(&daemon, &session_id, &found.data(202)["turnId"]).await;
    assert_eq!(record["lastTurnStatus"], "interrupted");
    assert_eq!(record["threadId"], session["threadId"]);
    assert_eq!(app_server.calls("turn/start").len(), 1);
}

#[tokio::test]
async fn repeated_request_runs_turn_that_was_never_sent() {
    let app_server = RecordingAppServer::new();
    let mut daemon = app_server.builder().start().await;
    let session_id = new_session(&daemon).await;
    start_turn(&daemon, &session_id, "deltas=1").await;
    let app_server_pid = wait_until_idle(&daemon, &session_id).await["childPid"].as_i64().unwrap();
    // From now on the app-server reads nothing.
    let stopping_session = crate::api::new_session(&daemon).await;
    start_turn(&daemon, &stopping_session, "stop-reading hang").await;
    let request = body(&session_id, "hello");
    let _connection = send(&daemon, "k", &request).await;
    wait_for_event(&daemon, "the attempt", |event| event["type"] == "turn.submitted").await;
    daemon.kill().await;
    // The app-server does not detect the end of its stdin either.
    let group = Pid::from_raw(i32::try_from(app_server_pid).unwrap()).unwrap();
    kill_process_group(group, Signal::KILL).unwrap();

    let daemon = restart(&app_server, &daemon).await;
    let answer = post_keyed(&daemon, TURN, "k", &request).await;
    let record = wait_for_turn_end(&daemon, &session_id, &answer.data(202)["turnId"]).await;
    assert_eq!(record["lastTurnStatus"], "completed");
    assert_eq!(started_turns(&daemon).len(), 3);
}

#[tokio::test]
async fn repeated_request_finds_turn_while_another_runs() {
    for when_busy in ["refuse", "steer", "queue"] {
        let app_server = RecordingAppServer::new();
        let mut daemon = app_server.builder_without_user_messages().start().await;
        let session_id = new_session(&daemon).await;
        let mut request = body(&session_id, "answer-never kill");
        request["whenBusy"] = json!(when_busy);
        post_keyed(&daemon, TURN, "k", &request).await.error(503, "app_server_unavailable");
        let turn_id = unreported_turn_id(&daemon).await;
        wait_until_not_ready(&daemon, "app-server").await;
        daemon.stop().await;

        let daemon = restart(&app_server, &daemon).await;
        let running = start_turn(&daemon, &session_id, "hang").await;
        let found = post_keyed(&daemon, TURN, "k", &request).await;
        assert_eq!(found.data(202)["turnId"], turn_id, "{when_busy}");
        assert_same(&found, &post_keyed(&daemon, TURN, "k", &request).await);
        let record = session_record(&daemon, &session_id).await;
        assert_eq!((&record["currentTurnId"], &record["lastTurnId"]), (&json!(running), &json!(running)));
        assert_eq!(record["lastTurnStatus"], "inProgress");
        assert_eq!(queued(&daemon, &session_id).await, [""; 0]);
        assert_eq!(app_server.calls("turn/start").len(), 2);
        assert_eq!(app_server.calls("turn/steer").len(), 0);
    }
}
