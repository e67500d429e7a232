//! Sessions across restarts, the turn queue, and repeated requests, with the real app-server.

use std::fs;
use std::path::PathBuf;

use hyper::Method;
use serde_json::{Value, json};

use super::app_server::AppServer;
use super::{Stage, WAITING_PROMPT, create_session, submit};
use crate::support::codex::CodexHome;
use crate::support::daemon::Daemon;
use crate::support::http::{ApiResponse, get, post, request};
use crate::support::model::MockModel;
use crate::support::wait::wait_until;
use crate::support::websocket::EventStream;

pub(super) async fn submit_with(stage: &Stage, session: &Value, prompt: &str, fields: Value) -> ApiResponse {
    let mut body = json!({ "sessionId": session["sessionId"], "input": prompt });
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    submit(&stage.daemon, &body).await
}

async fn submit_keyed(daemon: &Daemon, session: &Value, prompt: &str, key: &str) -> ApiResponse {
    let body = json!({ "sessionId": session["sessionId"], "input": prompt });
    let headers = [("idempotency-key", key)];
    request(daemon, Method::POST, "/v1/codexd/turn", &headers, body.to_string()).await
}

/// The turn ID in a response.
fn turn_id_of(answer: &ApiResponse) -> String {
    answer.data(202)["turnId"].as_str().unwrap_or_else(|| panic!("no turn in {}", answer.text)).to_owned()
}

/// The events of this type in the log.
pub(super) fn events_of(stage: &Stage, event_type: &str) -> Vec<Value> {
    let mut events = stage.daemon.events_on_disk();
    events.retain(|event| event["type"] == event_type);
    events
}

/// The file with the history of a thread.
pub(super) fn rollout(home: &CodexHome, session: &Value) -> PathBuf {
    let thread_id = session["threadId"].as_str().unwrap();
    let mut directories = vec![home.path().join("sessions")];
    while let Some(directory) = directories.pop() {
        for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                directories.push(path);
            } else if path.file_name().unwrap().to_string_lossy().contains(thread_id) {
                return path;
            }
        }
    }
    panic!("thread {thread_id} has no file")
}

/// Waits until a turn has started.
async fn wait_for_start(stage: &mut Stage) {
    stage.events.wait_for("the start of the turn", |event| event["type"] == "app-server.turn.started").await;
}

#[tokio::test]
async fn session_keeps_its_history_across_restart() {
    let mut stage = Stage::start().await;
    let session = stage.session(&json!({ "developerInstructions": "obey the green otter" })).await;
    let turn = stage.turn(&session, "remember the blue heron mock:shell=[echo from-the-shell]").await;
    assert_eq!(turn.status(), "completed");
    let requests_before = stage.model.requests().len();
    stage.stop().await;

    let mut stage = stage.restart().await;
    let turn = stage.turn(&session, "which bird was it mock:deltas=2").await;
    assert_eq!(turn.status(), "completed");
    let requests = stage.model.requests();
    assert_eq!(requests.len(), requests_before + 1);
    let request = requests.last().unwrap().to_string();
    for earlier in ["remember the blue heron", "from-the-shell", "which bird was it", "obey the green otter"]
    {
        assert!(request.contains(earlier), "the request to the model lacks {earlier:?}");
    }
    let record = stage.record(&session).await;
    assert_eq!((&record["sessionId"], &record["threadId"]), (&session["sessionId"], &session["threadId"]));
    assert_eq!(record["lastTurnStatus"], "completed");
    for event_type in ["session.recreated", "session.resumed", "turn.settled"] {
        assert!(events_of(&stage, event_type).is_empty(), "{event_type}");
    }
    assert_eq!(stage.turn(&session, "mock:deltas=1").await.status(), "completed");
    stage.stop().await;
}

#[tokio::test]
async fn session_without_turns_is_recreated_after_restart() {
    let mut stage = Stage::start().await;
    let session = stage.session(&json!({ "developerInstructions": "obey the green otter" })).await;
    stage.stop().await;
    let mut stage = stage.restart().await;
    assert_eq!(stage.turn(&session, "mock:deltas=2").await.status(), "completed");
    let record = stage.record(&session).await;
    assert_ne!(record["threadId"], session["threadId"]);
    for same in ["sessionId", "createdAt", "cwd", "model", "metadata"] {
        assert_eq!(record[same], session[same], "{same}");
    }
    let recreated = events_of(&stage, "session.recreated");
    assert_eq!(recreated.len(), 1);
    assert_eq!(recreated[0]["detail"]["previousThreadId"], session["threadId"]);
    assert!(stage.model.requests()[0].to_string().contains("obey the green otter"));
}

#[tokio::test]
async fn turn_cut_off_by_kill_fails_and_then_takes_thread_outcome() {
    let mut stage = Stage::start().await;
    let session = stage.session(&json!({})).await;
    let turn_id = stage.start_turn(&session, "mock:hang").await;
    wait_for_start(&mut stage).await;
    stage.daemon.kill().await;

    let mut stage = stage.restart().await;
    let cut = stage.record(&session).await;
    assert_eq!((&cut["lastTurnId"], &cut["lastTurnStatus"]), (&json!(turn_id), &json!("failed")));
    assert_eq!(cut["currentTurnId"], Value::Null);
    assert_eq!(stage.turn(&session, "mock:deltas=1").await.status(), "completed");
    let settled = events_of(&stage, "turn.settled");
    assert_eq!(settled.len(), 1);
    let detail = &settled[0]["detail"];
    assert_eq!((&detail["turnId"], &detail["status"]), (&json!(turn_id), &json!("interrupted")));
}

#[tokio::test]
async fn turn_queue_runs_in_order_and_survives_restart() {
    let mut stage = Stage::start().await;
    let session = stage.session(&json!({})).await;
    let running = stage.start_turn(&session, &format!("zero {WAITING_PROMPT}")).await;
    wait_for_start(&mut stage).await;
    for prompt in ["one mock:deltas=1", "two mock:deltas=1"] {
        let answer = submit_with(&stage, &session, prompt, json!({ "whenBusy": "queue" })).await;
        assert_eq!(answer.data(202)["turnId"], Value::Null);
        assert!(answer.data(202)["queueId"].is_string(), "{}", answer.text);
    }
    let steered = submit_with(&stage, &session, "mock:deltas=1", json!({ "whenBusy": "steer" })).await;
    assert_eq!(turn_id_of(&steered), running, "a steer of the running turn is not queued");
    stage.end_waiting_command();
    assert_eq!(stage.rest_of(&running).await.status(), "completed");
    for prompt in ["one", "two"] {
        let is_started = |event: &Value| event["type"] == "app-server.turn.started";
        let turn_id = stage.events.wait_for("the next turn", is_started).await["detail"]["turnId"].clone();
        assert_eq!(stage.rest_of(turn_id.as_str().unwrap()).await.status(), "completed");
        assert!(stage.model.requests().last().unwrap().to_string().contains(prompt));
    }

    stage.start_turn(&session, "mock:hang").await;
    wait_for_start(&mut stage).await;
    submit_with(&stage, &session, "three mock:deltas=1", json!({ "whenBusy": "queue" })).await.data(202);
    stage.stop().await;
    let stage = stage.restart().await;
    wait_until("the queued turn", || {
        events_of(&stage, "app-server.turn.completed").len().eq(&5).then_some(())
    })
    .await;
    assert!(stage.model.requests().last().unwrap().to_string().contains("three"));
    let path = format!("/v1/codexd/sessions/{}", session["sessionId"].as_str().unwrap());
    let read = get(&stage.daemon, &path).await;
    assert_eq!(read.data(200)["queuedTurns"], json!([]));
    assert_eq!(read.data(200)["session"]["lastTurnStatus"], "completed");
}

#[tokio::test]
async fn repeated_request_reaches_model_once_across_restart() {
    let mut stage = Stage::start().await;
    let session = stage.session(&json!({})).await;
    let prompt = "mock:deltas=2";
    let first = submit_keyed(&stage.daemon, &session, prompt, "k").await;
    assert_eq!(stage.rest_of(&turn_id_of(&first)).await.status(), "completed");
    assert_eq!(submit_keyed(&stage.daemon, &session, prompt, "k").await.text, first.text);
    stage.stop().await;
    let stage = stage.restart().await;
    assert_eq!(submit_keyed(&stage.daemon, &session, prompt, "k").await.text, first.text);
    submit_keyed(&stage.daemon, &session, "other", "k").await.error(422, "idempotency_key_reused");
    assert_eq!(stage.model.requests().len(), 1);
}

#[tokio::test]
async fn submitted_turn_is_found_in_its_thread_after_kill() {
    let mut stage = Stage::start().await;
    let session = stage.session(&json!({})).await;
    let first = submit_keyed(&stage.daemon, &session, "find me mock:hang", "k").await;
    let turn_id = turn_id_of(&first);
    wait_for_start(&mut stage).await;
    wait_until("the request to the model", || stage.model.requests().first().map(drop)).await;
    stage.daemon.kill().await;
    // Restore the log to its state before the daemon received the response.
    let log = stage.daemon.logs_dir().join("events.jsonl");
    let text = fs::read_to_string(&log).unwrap();
    let mut kept: Vec<&str> =
        text.split_inclusive('\n').take_while(|line| !line.contains("\"turn.submitted\"")).collect();
    let submitted = text.lines().find(|line| line.contains("\"turn.submitted\"")).unwrap().to_owned() + "\n";
    kept.push(&submitted);
    fs::write(&log, kept.concat()).unwrap();
    for snapshot in ["session-registry.json", "records.json", "daemon-state.json", "recent-events.json"] {
        let _ = fs::remove_file(stage.daemon.state_dir().join(snapshot));
    }

    let mut stage = stage.restart().await;
    assert_eq!(stage.record(&session).await["lastTurnId"], Value::Null);
    let found = submit_keyed(&stage.daemon, &session, "find me mock:hang", "k").await;
    assert_eq!(turn_id_of(&found), turn_id);
    let record = stage.record(&session).await;
    assert_eq!(
        (&record["lastTurnId"], &record["lastTurnStatus"], &record["currentTurnId"]),
        (&json!(turn_id), &json!("interrupted"), &Value::Null)
    );
    assert_eq!(record["threadId"], session["threadId"]);
    assert_eq!(stage.model.requests().len(), 1);
    assert_eq!(stage.turn(&session, "mock:deltas=1").await.status(), "completed");
}

#[tokio::test]
async fn thread_is_locked_while_another_codex_writes_it() {
    let mut stage = Stage::start().await;
    let session = stage.session(&json!({})).await;
    assert_eq!(stage.turn(&session, "mock:deltas=1").await.status(), "completed");
    stage.stop().await;

    let server = AppServer::on_tcp(&stage.home).await;
    let mut other = Daemon::builder().external(&server.endpoint).start().await;
    create_session(&other, &stage.home, &json!({ "threadId": session["threadId"] })).await;
    let mut stage = stage.restart().await;
    let answer = submit_with(&stage, &session, "mock:deltas=1", json!({})).await;
    answer.error(409, "thread_locked");
    assert_eq!(answer.json["details"]["threadId"], session["threadId"]);
    let body = json!({ "threadId": session["threadId"] });
    post(&stage.daemon, "/v1/codexd/sessions", &body).await.error(409, "thread_locked");
    assert_eq!(stage.record(&session).await["status"], "active");
    other.stop().await;
    drop(server);
    assert_eq!(stage.turn(&session, "mock:deltas=1").await.status(), "completed");
}

#[tokio::test]
async fn silent_turn_is_not_settled() {
    let mut stage = Stage::start().await;
    let session = stage.session(&json!({})).await;
    // The command runs long enough for the daemon to read the thread.
    let turn = stage.turn(&session, "mock:shell=[sleep 6; echo at-last]").await;
    assert_eq!(turn.status(), "completed");
    assert!(events_of(&stage, "turn.settled").is_empty());
    assert_eq!(stage.record(&session).await["lastTurnStatus"], "completed");
}

#[tokio::test]
async fn drain_finishes_running_turn() {
    let model = MockModel::start();
    let home = CodexHome::new(&model);
    let builder = Daemon::builder().real(&home).env("BAA_CODEXD_DRAIN_TIMEOUT", "60");
    let mut daemon = builder.start().await;
    let mut events = EventStream::connect(&daemon).await;
    events.hello().await;
    let session = create_session(&daemon, &home, &json!({})).await;
    let body = json!({ "sessionId": session["sessionId"], "input": "mock:deltas=20 mock:delay=50" });
    let turn_id = turn_id_of(&submit(&daemon, &body).await);
    let is_started = |event: &Value| event["type"] == "app-server.turn.started";
    events.wait_for("the start of the turn", is_started).await;
    assert!(daemon.stop().await.status.success());
    let ended =
        daemon.events_on_disk().into_iter().find(|event| event["type"] == "app-server.turn.completed");
    let ended = ended.unwrap();
    assert_eq!(
        (&ended["detail"]["turnId"], &ended["detail"]["status"]),
        (&json!(turn_id), &json!("completed"))
    );
}
