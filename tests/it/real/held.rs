//! Held turn queues with the real app-server.

use std::fs;

use hyper::Method;
use serde_json::{Value, json};

use super::Stage;
use super::sessions::{events_of, rollout, submit_with};
use crate::support::http::{get, post, request};
use crate::support::skip::runs_long;
use crate::support::wait::wait_until_async;

/// Creates a session with a hanging turn and queues these turns behind it; returns the session.
async fn with_queue(stage: &mut Stage, prompts: &[&str]) -> Value {
    let session = stage.session(&json!({})).await;
    stage.start_turn(&session, "mock:hang").await;
    stage.events.wait_for("the start of the turn", |event| event["type"] == "app-server.turn.started").await;
    for prompt in prompts {
        submit_with(stage, &session, prompt, json!({ "whenBusy": "queue" })).await.data(202);
    }
    session
}

/// Interrupts the hanging turn, so that the next turn starts.
async fn interrupt(stage: &Stage, session: &Value) {
    let body = json!({ "sessionId": session["sessionId"] });
    post(&stage.daemon, "/v1/codexd/turn/interrupt", &body).await.data(202);
}

/// Waits until a turn has failed; returns the record of the session.
async fn record_after_failure(stage: &mut Stage, session: &Value) -> Value {
    let is_failed =
        |event: &Value| event["type"] == "app-server.turn.completed" && event["detail"]["status"] == "failed";
    stage.events.wait_for("the failed turn", is_failed).await;
    stage.record(session).await
}

/// Waits until the view of a session satisfies `condition`; returns the view.
async fn view(stage: &Stage, session: &Value, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
    let path = format!("/v1/codexd/sessions/{}", session["sessionId"].as_str().unwrap());
    wait_until_async(what, async || {
        let view = get(&stage.daemon, &path).await.data(200).clone();
        condition(&view).then_some(view)
    })
    .await
}

/// The number of queued turns in a view.
fn queued_turns(view: &Value) -> usize {
    view["queuedTurns"].as_array().unwrap().len()
}

/// Returns the number of requests to the model that contain this text.
fn model_requests(stage: &Stage, text: &str) -> usize {
    stage.model.requests().iter().filter(|request| request.to_string().contains(text)).count()
}

#[tokio::test]
async fn sessions_and_queued_turns_survive_start_with_empty_home() {
    if !runs_long() {
        return;
    }
    let mut stage = Stage::start().await;
    let mut sessions = Vec::new();
    for _ in 0..3 {
        sessions.push(with_queue(&mut stage, &["mock:deltas=1", "mock:deltas=1", "mock:deltas=1"]).await);
    }
    stage.stop().await;
    let (home, away) = (stage.home.path(), stage.home.path().with_extension("away"));
    fs::rename(&home, &away).unwrap();
    fs::create_dir(&home).unwrap();
    fs::copy(away.join("config.toml"), home.join("config.toml")).unwrap();

    let mut stage = stage.restart().await;
    for session in &sessions {
        let view =
            view(&stage, session, "a queue that is held", |view| view["session"]["held"].is_object()).await;
        assert_eq!((view["session"]["status"].as_str(), queued_turns(&view)), (Some("active"), 3));
        let held = &view["session"]["held"];
        assert_eq!((&held["cause"], &held["automatic"]), (&json!("threadUnavailable"), &json!(true)));
        let answer = submit_with(&stage, session, "mock:deltas=1", json!({})).await;
        answer.error(409, "thread_unavailable");
    }
    stage.stop().await;
    fs::remove_dir_all(&home).unwrap();
    fs::rename(&away, &home).unwrap();

    let stage = stage.restart().await;
    for session in &sessions {
        let is_done = |view: &Value| queued_turns(view) == 0 && view["session"]["currentTurnId"].is_null();
        let view = view(&stage, session, "the end of the queue", is_done).await;
        assert_eq!(view["session"]["threadId"], session["threadId"]);
        assert_eq!(view["session"]["lastTurnStatus"], "completed");
    }
    for event_type in ["turn.rejected", "session.closed", "session.recreated"] {
        assert!(events_of(&stage, event_type).is_empty(), "{event_type}");
    }
}

#[tokio::test]
async fn turn_queue_resumes_when_thread_returns() {
    let mut stage = Stage::start().await;
    let session = with_queue(&mut stage, &["one mock:deltas=1"]).await;
    stage.stop().await;
    let history = rollout(&stage.home, &session);
    let away = history.with_extension("away");
    fs::rename(&history, &away).unwrap();
    let stage = stage.restart().await;
    view(&stage, &session, "a queue that is held", |view| view["session"]["held"].is_object()).await;
    fs::rename(&away, &history).unwrap();
    // The daemon retries from time to time without a request.
    let is_done = |view: &Value| queued_turns(view) == 0 && view["session"]["currentTurnId"].is_null();
    let view = view(&stage, &session, "the end of the queue", is_done).await;
    assert_eq!(view["session"]["lastTurnStatus"], "completed");
    assert_eq!(events_of(&stage, "session.released").len(), 1);
}

#[tokio::test]
async fn archived_thread_holds_queue_with_codex_error_text() {
    let mut stage = Stage::start().await;
    let session = with_queue(&mut stage, &["one mock:deltas=1"]).await;
    stage.stop().await;
    let history = rollout(&stage.home, &session);
    let archive = stage.home.path().join("archived_sessions");
    fs::create_dir_all(&archive).unwrap();
    fs::rename(&history, archive.join(history.file_name().unwrap())).unwrap();
    let stage = stage.restart().await;
    let view =
        view(&stage, &session, "a queue that is held", |view| view["session"]["held"].is_object()).await;
    assert_eq!(view["session"]["held"]["cause"], "threadUnavailable");
    let answer = submit_with(&stage, &session, "mock:deltas=1", json!({})).await;
    assert!(answer.error(409, "thread_unavailable").contains("archive"), "{}", answer.text);
}

#[tokio::test]
async fn usage_limit_fails_one_turn_and_holds_queue() {
    let mut stage = Stage::start().await;
    let prompts = ["mock:limit=3600", "one mock:deltas=1", "two mock:deltas=1", "three mock:deltas=1"];
    let session = with_queue(&mut stage, &prompts).await;
    interrupt(&stage, &session).await;
    let record = record_after_failure(&mut stage, &session).await;
    assert_eq!(record["lastTurnStatus"], "failed");
    let held = &record["held"];
    assert_eq!((&held["cause"], &held["automatic"]), (&json!("usageLimit"), &json!(true)));
    assert!(held["reason"].as_str().unwrap().contains("usage limit"), "{held}");
    let until: jiff::Timestamp = held["until"].as_str().unwrap().parse().unwrap();
    let left = until.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((3500..=3720).contains(&left), "{held}");
    // The limit is that of the account: a turn that may wait does not start in an idle session either.
    let idle = stage.session(&json!({})).await;
    let waiting = submit_with(&stage, &idle, "idle mock:deltas=1", json!({ "whenBusy": "queue" })).await;
    assert!(waiting.data(202)["queueId"].is_string(), "{}", waiting.text);
    view(&stage, &idle, "a queue that is held", |view| view["session"]["held"].is_object()).await;
    assert_eq!(model_requests(&stage, "mock:deltas=1"), 0, "another queued turn reached the model");

    let path = format!("/v1/codexd/sessions/{}/queue/resume", session["sessionId"].as_str().unwrap());
    request(&stage.daemon, Method::POST, &path, &[], "").await.data(202);
    let is_done = |view: &Value| queued_turns(view) == 0 && view["session"]["currentTurnId"].is_null();
    view(&stage, &idle, "the end of the other queue", is_done).await;
    let view = view(&stage, &session, "the end of the queue", is_done).await;
    assert_eq!(
        (&view["session"]["lastTurnStatus"], &view["session"]["held"]),
        (&json!("completed"), &Value::Null)
    );
    assert_eq!(events_of(&stage, "app-server.turn.completed").len(), 6);
    assert!(events_of(&stage, "turn.rejected").is_empty());
    let trial = &events_of(&stage, "usage_limit.trial")[0];
    assert_eq!(trial["detail"]["isRequested"], true);
}

/// Queues a turn that reaches a usage limit of so many seconds and is to be continued, and one behind it.
async fn reach_limit(stage: &mut Stage, seconds: u32) -> Value {
    let session = stage.session(&json!({})).await;
    stage.start_turn(&session, "mock:hang").await;
    stage.events.wait_for("the start of the turn", |event| event["type"] == "app-server.turn.started").await;
    let limited = format!("mock:limit={seconds}");
    let fields = json!({ "whenBusy": "queue", "onUsageLimit": "continue" });
    submit_with(stage, &session, &limited, fields).await.data(202);
    submit_with(stage, &session, "behind mock:deltas=1", json!({ "whenBusy": "queue" })).await.data(202);
    interrupt(stage, &session).await;
    record_after_failure(stage, &session).await;
    session
}

/// What the client and codexd asked of the model after the turn that reached the limit, in order.
fn prompts_after_limit(stage: &Stage) -> Vec<&'static str> {
    let requests = stage.model.requests();
    let last_input = |request: &Value| {
        let mut inputs = request["input"].as_array().unwrap().iter();
        inputs.rfind(|item| item["role"] == "user").unwrap().to_string()
    };
    let inputs = requests.iter().map(last_input);
    let known = |input: String| {
        ["mock:limit", "Continue: your last turn", "behind"].into_iter().find(|part| input.contains(part))
    };
    inputs.filter_map(known).collect()
}

#[tokio::test]
async fn turn_that_reached_limit_is_continued_once_also_after_kill() {
    let mut stage = Stage::start().await;
    let session = reach_limit(&mut stage, 3600).await;
    let view = view(&stage, &session, "the queue", |view| queued_turns(view) == 2).await;
    let waiting = &view["queuedTurns"];
    assert_eq!(waiting[1]["input"][0]["text"], "behind mock:deltas=1");
    let failed = events_of(&stage, "usage_limit.reached")[0]["detail"]["turnId"].clone();
    assert_eq!((&waiting[0]["continues"], &waiting[0]["onUsageLimit"]), (&failed, &json!("continue")));
    stage.daemon.kill().await;
    let stage = stage.restart().await;
    let record = stage.record(&session).await;
    assert_eq!(record["held"]["cause"], "usageLimit", "{record}");
    let path = format!("/v1/codexd/sessions/{}/queue/resume", session["sessionId"].as_str().unwrap());
    request(&stage.daemon, Method::POST, &path, &[], "").await.data(202);
    let is_done = |view: &Value| queued_turns(view) == 0 && view["session"]["currentTurnId"].is_null();
    let view = self::view(&stage, &session, "the end of the queue", is_done).await;
    assert_eq!(view["session"]["held"], Value::Null);
    let prompts = prompts_after_limit(&stage);
    let limited = prompts.iter().filter(|prompt| **prompt == "mock:limit").count();
    assert_eq!(
        prompts[limited..],
        ["Continue: your last turn", "behind"],
        "the limited turn is not sent again"
    );
}

#[tokio::test]
async fn queues_continue_by_themselves_when_the_limit_ends_one_turn_first() {
    if !runs_long() {
        return;
    }
    let mut stage = Stage::start().await;
    // Codex names the minute in which it ends.
    let session = reach_limit(&mut stage, 1).await;
    let other = with_queue(&mut stage, &["other mock:deltas=1"]).await;
    interrupt(&stage, &other).await;
    view(&stage, &other, "another queue that is held", |view| view["session"]["held"].is_object()).await;
    let until = stage.record(&session).await["held"]["until"].as_str().unwrap().to_owned();
    for _ in 0..140 {
        let record = stage.record(&other).await;
        if record["held"].is_null() && record["lastTurnStatus"] == "completed" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    let is_done = |view: &Value| queued_turns(view) == 0 && view["session"]["currentTurnId"].is_null();
    for session in [&session, &other] {
        view(&stage, session, "the end of the queue", is_done).await;
    }
    assert_eq!(events_of(&stage, "usage_limit.trial").len(), 1);
    let trial = &events_of(&stage, "usage_limit.trial")[0];
    assert!(trial["createdAt"].as_str().unwrap() >= until.as_str(), "{trial} is before {until}");
    assert_eq!(events_of(&stage, "usage_limit.reached").len(), 1);
}

#[tokio::test]
async fn refused_login_and_unavailable_model_hold_queue() {
    for (prompt, cause) in [("mock:fail=401", "unauthorized"), ("mock:fail=429", "modelUnavailable")] {
        let mut stage = Stage::start().await;
        let session = with_queue(&mut stage, &[prompt, "mock:deltas=1"]).await;
        interrupt(&stage, &session).await;
        let record = record_after_failure(&mut stage, &session).await;
        assert_eq!(record["held"]["cause"], cause, "{prompt}");
        assert_eq!(model_requests(&stage, "mock:deltas=1"), 0, "{prompt}");
    }
}
