//! Restarts of the app-server that a client requests.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{child, generation, signal};
use crate::api::{
    TURN, create_session, new_session, start_daemon, start_turn, text, try_post, wait_for_event_type,
    wait_for_turn_end, wait_until_idle, wait_until_ready,
};
use crate::cli::CliUser;
use crate::support::daemon::Daemon;
use crate::support::http::{Target, get, post};
use crate::support::wait::{wait_until, wait_until_async};

const RESTART: &str = "/v1/codexd/app-server/restart";

async fn restart(daemon: &Daemon, body: Value) -> Value {
    post(daemon, RESTART, &body).await.data(202)["restart"].clone()
}

/// Ends a turn that hangs.
async fn release(daemon: &Daemon, session_id: &str, turn_id: &str) {
    let body = json!({ "sessionId": session_id, "input": "deltas=1", "expectedTurnId": turn_id });
    post(daemon, TURN, &body).await.data(202);
}

/// Asserts that the app-server was replaced once, deliberately.
async fn assert_restarted_once(daemon: &Daemon) {
    let child = generation(daemon, 2).await;
    assert_eq!(
        (&child["generation"], &child["deaths"], &child["lastError"]),
        (&json!(2), &json!(0), &Value::Null)
    );
    let events = daemon.events_on_disk();
    let count = |event_type: &str| events.iter().filter(|event| event["type"] == event_type).count();
    let (restarts, failures) = (count("app-server.restarting"), count("child.backoff"));
    assert_eq!((restarts, failures, count("app-server.transport.closed")), (1, 0, 0));
    assert_eq!(count("session.closed"), 0);
    let exited = events.iter().find(|event| event["type"] == "child.exited").unwrap();
    assert_eq!(exited["detail"]["expected"], true);
    assert_eq!(get(daemon, "/v1/codexd/app-server").await.data(200)["appServer"]["restart"], Value::Null);
}

async fn last_status(daemon: &Daemon, session_id: &str) -> Value {
    wait_until_idle(daemon, session_id).await["lastTurnStatus"].clone()
}

#[tokio::test]
async fn idle_app_server_is_restarted_at_once_and_sessions_continue() {
    let daemon = start_daemon().await;
    let session = new_session(&daemon).await;
    start_turn(&daemon, &session, "hello").await;
    wait_until_idle(&daemon, &session).await;
    let answer = restart(&daemon, json!({ "drainSeconds": 60 })).await;
    assert_eq!(
        answer,
        json!({ "state": "restarting", "generation": 1, "force": false, "turns": [], "requests": [] })
    );
    assert_restarted_once(&daemon).await;
    start_turn(&daemon, &session, "hello").await;
    assert_eq!(last_status(&daemon, &session).await, "completed");
}

#[tokio::test]
async fn drained_restart_waits_for_turn_and_holds_new_and_queued_ones() {
    let daemon = start_daemon().await;
    let (session, other) = (new_session(&daemon).await, new_session(&daemon).await);
    let turn_id = start_turn(&daemon, &session, "hang").await;
    let queued = json!({ "sessionId": session, "input": "queued", "whenBusy": "queue" });
    post(&daemon, TURN, &queued).await.data(202);
    let answer = restart(&daemon, json!({ "drainSeconds": 600 })).await;
    assert_eq!(answer["state"], "draining");
    assert_eq!(
        (&answer["turns"][0]["sessionId"], &answer["turns"][0]["turnId"]),
        (&json!(session), &json!(turn_id))
    );
    let shown = get(&daemon, "/v1/codexd/app-server").await.data(200)["appServer"].clone();
    assert_eq!(shown["restart"], answer);
    assert_eq!(shown["notes"], json!(["The app-server is restarted as soon as no turn runs."]));
    let (target, body) = (daemon.base_url().to_owned(), json!({ "sessionId": other, "input": "new" }));
    let new = tokio::spawn(async move { try_post(&target, TURN, &body).await });
    // The running turn can still be steered.
    release(&daemon, &session, &turn_id).await;
    let (status, answer) = new.await.unwrap().unwrap();
    assert_eq!(status, 202, "{answer}");
    assert_restarted_once(&daemon).await;
    assert_eq!(last_status(&daemon, &other).await, "completed");
    let turns = wait_until("three turns", || {
        let events = daemon.events_on_disk();
        let ended = events.iter().filter(|event| event["type"] == "app-server.turn.completed");
        Some(ended.cloned().collect::<Vec<_>>()).filter(|ended| ended.len() == 3)
    })
    .await;
    assert!(turns.iter().all(|turn| turn["detail"]["status"] == "completed"), "{turns:#?}");
    // Only the turn that ran before it ended before it.
    let events = daemon.events_on_disk();
    let connected = events.iter().rposition(|event| event["type"] == "app-server.connected").unwrap();
    let started = |event: &&Value| event["type"] == "app-server.turn.started";
    assert_eq!(events[..connected].iter().filter(started).count(), 1);
    assert_eq!(events[connected..].iter().filter(started).count(), 2);
}

#[tokio::test]
async fn restart_is_accepted_while_the_app_server_is_being_restarted() {
    let daemon = start_daemon().await;
    let mut answers = Vec::new();
    for _ in 0..20 {
        answers.push(restart(&daemon, json!({ "drainSeconds": 0, "force": true })).await);
    }
    assert!(answers.iter().all(|answer| answer["state"] == "restarting"), "{answers:#?}");
    wait_until_ready(&daemon).await;
    let session = new_session(&daemon).await;
    start_turn(&daemon, &session, "hello").await;
    assert_eq!(last_status(&daemon, &session).await, "completed");
    assert_eq!(child(&daemon).await["deaths"], 0);
    assert!(!daemon.events_on_disk().iter().any(|event| event["type"] == "child.backoff"));
}

#[tokio::test]
async fn new_turn_is_refused_when_the_drain_takes_long() {
    let daemon = start_daemon().await;
    let (session, other) = (new_session(&daemon).await, new_session(&daemon).await);
    start_turn(&daemon, &session, "hang").await;
    restart(&daemon, json!({ "drainSeconds": 600 })).await;
    let refused = post(&daemon, TURN, &json!({ "sessionId": other, "input": "new" })).await;
    refused.error(503, "app_server_unavailable");
    assert!(refused.json["message"].as_str().unwrap().contains("restarted as soon as"), "{}", refused.json);
    // A busy session gets its usual answer at once.
    post(&daemon, TURN, &json!({ "sessionId": session, "input": "new" }))
        .await
        .error(409, "turn_in_progress");
    assert_eq!(child(&daemon).await["generation"], 1);
}

#[tokio::test]
async fn restart_when_idle_accepts_new_turns_until_none_runs() {
    let daemon = start_daemon().await;
    let (session, other) = (new_session(&daemon).await, new_session(&daemon).await);
    let turn_id = start_turn(&daemon, &session, "ask=command").await;
    let opened = wait_for_event_type(&daemon, "request.opened").await;
    let user = CliUser::of(&daemon);
    let answer = user.run(&["app-server", "restart", "--when-idle"]).await;
    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert!(
        answer.stdout.contains("when no turn is in progress") && answer.stdout.contains(&session),
        "{answer:?}"
    );
    let waiting = wait_for_event_type(&daemon, "app-server.restart.waiting").await;
    let request_id = &opened["detail"]["request"]["requestId"];
    assert_eq!(waiting["detail"]["turns"][0]["turnId"], json!(turn_id));
    assert_eq!(
        (&waiting["detail"]["requests"], &waiting["detail"]["isEnding"]),
        (&json!([request_id]), &json!(false))
    );
    start_turn(&daemon, &other, "hello").await;
    assert_eq!(last_status(&daemon, &other).await, "completed");
    assert_eq!(child(&daemon).await["generation"], 1);
    let path = format!("/v1/codexd/requests/{}", text(request_id));
    post(&daemon, &path, &json!({ "decision": "accept" })).await.data(200);
    assert_restarted_once(&daemon).await;
    assert_eq!(last_status(&daemon, &session).await, "completed");
}

#[tokio::test]
async fn forced_restart_interrupts_turn() {
    let daemon = start_daemon().await;
    let session = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session, "hang").await;
    assert_eq!(restart(&daemon, json!({ "drainSeconds": 0 })).await["state"], "waiting");
    // A later request adds the force to the one that waits.
    let answer = CliUser::of(&daemon).run(&["app-server", "restart", "--force", "--json"]).await;
    let answer: Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!(answer["restart"]["force"], true, "{answer}");
    assert_restarted_once(&daemon).await;
    let ended = wait_for_turn_end(&daemon, &session, &json!(turn_id)).await;
    assert_eq!(ended["lastTurnStatus"], "interrupted", "{ended}");
    start_turn(&daemon, &session, "hello").await;
    assert_eq!(last_status(&daemon, &session).await, "completed");
}

#[tokio::test]
async fn app_server_that_waits_for_its_next_start_is_started_at_once() {
    let daemon = Daemon::builder().startup("exit-after-initialize=1").start().await;
    wait_for_event_type(&daemon, "child.crash_loop").await;
    let before = wait_until_async("the pause after the last failure", async || {
        let child = child(&daemon).await;
        (child["state"] == "crash_loop").then_some(child)
    })
    .await;
    assert_eq!(restart(&daemon, json!({})).await["state"], "restarting");
    // The next attempt fails too, a minute before it would have been made.
    wait_until_async("the next attempt", async || {
        (child(&daemon).await["deaths"].as_u64() > before["deaths"].as_u64()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn unknown_fields_and_values_of_a_restart_are_reported() {
    let daemon = start_daemon().await;
    wait_until_ready(&daemon).await;
    for body in [json!({ "drainSeconds": -1 }), json!({ "drainSeconds": 86_401 }), json!({ "force": "yes" })]
    {
        post(&daemon, RESTART, &body).await.error(400, "bad_request");
    }
    assert_eq!(child(&daemon).await["generation"], 1);
    let answer = post(&daemon, RESTART, &json!({ "when": "now" })).await;
    assert_eq!(answer.data(202)["ignored"], json!(["when"]));
    generation(&daemon, 2).await;
}

#[tokio::test]
async fn killed_app_server_ends_a_restart_that_waits() {
    let daemon = start_daemon().await;
    let session = text(&create_session(&daemon, json!({})).await["sessionId"]);
    start_turn(&daemon, &session, "hang").await;
    restart(&daemon, json!({ "drainSeconds": 600 })).await;
    signal(&child(&daemon).await["pid"], Signal::KILL);
    generation(&daemon, 2).await;
    // New turns do not wait any more.
    start_turn(&daemon, &session, "hello").await;
    assert_eq!(last_status(&daemon, &session).await, "completed");
    assert_eq!(child(&daemon).await["generation"], 2);
}
