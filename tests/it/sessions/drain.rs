//! Stopping the daemon with a drain timeout: running turns can finish.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{RecordingAppServer, ask_with, events_of, queue};
use crate::api::{
    SESSIONS, TURN, assert_no_survivors, new_session, start_daemon, start_turn, try_post,
    wait_for_event_type, wait_until_not_ready,
};
use crate::support::daemon::Daemon;
use crate::support::http::{Target, post};
use crate::support::wait::wait_until;

/// Starts a daemon with this drain timeout in seconds.
async fn start_with_drain_timeout(seconds: &str) -> Daemon {
    Daemon::builder().env("BAA_CODEXD_DRAIN_TIMEOUT", seconds).start().await
}

/// Returns the status in the completion event of a turn, if the log has one.
fn completion_status(daemon: &Daemon, turn_id: &str) -> Option<Value> {
    let completed = events_of(daemon, "app-server.turn.completed");
    let ended = completed.into_iter().find(|event| event["detail"]["turnId"] == turn_id);
    ended.map(|event| event["detail"]["status"].clone())
}

#[tokio::test]
async fn drain_finishes_running_turn_and_refuses_new_work() {
    let mut daemon = start_with_drain_timeout("600").await;
    let (session_id, other) = (new_session(&daemon).await, new_session(&daemon).await);
    let turn_id = start_turn(&daemon, &session_id, "hang").await;
    let finishing = start_turn(&daemon, &other, "deltas=100 delay=20").await;
    daemon.signal(Signal::TERM);
    wait_until_not_ready(&daemon, "codexd is stopping.").await;
    for (path, body) in [
        (SESSIONS, json!({})),
        (TURN, json!({ "sessionId": session_id, "input": "hello" })),
        (TURN, json!({ "sessionId": session_id, "input": "hello", "whenBusy": "queue" })),
        (TURN, json!({ "sessionId": session_id, "input": "hello", "expectedTurnId": turn_id })),
    ] {
        post(&daemon, path, &body).await.error(503, "shutting_down");
    }
    // The daemon now waits for the hanging turn only; a second signal ends the wait.
    let signaled = Instant::now();
    wait_until("the end of the other turn", || completion_status(&daemon, &finishing)).await;
    daemon.signal(Signal::TERM);
    assert!(daemon.exited().await.success());
    assert!(signaled.elapsed() < Duration::from_secs(60));
    assert_eq!(completion_status(&daemon, &finishing), Some(json!("completed")));
    assert_ne!(completion_status(&daemon, &turn_id), Some(json!("completed")));
    assert_eq!(daemon.events_on_disk().pop().unwrap()["type"], "daemon.stopped");
    assert_no_survivors(&daemon);
}

#[tokio::test]
async fn drain_ends_with_the_last_running_turn() {
    let mut daemon = start_with_drain_timeout("600").await;
    let session_id = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "deltas=100 delay=50").await;
    queue(&daemon, &session_id, "hello").await;
    let stopped = daemon.stop().await;
    assert!(stopped.status.success() && stopped.took < Duration::from_secs(20), "{stopped:?}");
    assert_eq!(completion_status(&daemon, &turn_id), Some(json!("completed")));
    assert_eq!(
        events_of(&daemon, "app-server.turn.started").len(),
        1,
        "a queued turn started during the drain"
    );
    assert_no_survivors(&daemon);
}

#[tokio::test]
async fn drain_interrupts_turn_after_timeout() {
    let mut daemon = Daemon::builder()
        .arg("--drain-timeout")
        .arg("1")
        .env("BAA_CODEXD_DRAIN_TIMEOUT", "600")
        .start()
        .await;
    let session_id = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "hang").await;
    wait_for_event_type(&daemon, "app-server.turn.started").await;
    let stopped = daemon.stop().await;
    assert!(stopped.status.success(), "{stopped:?}");
    assert!((1..10).contains(&stopped.took.as_secs()), "{stopped:?}");
    assert_eq!(completion_status(&daemon, &turn_id), Some(json!("interrupted")));
    assert_eq!(events_of(&daemon, "app-server.turn.completed.missing"), [Value::Null; 0]);
}

#[tokio::test]
async fn drain_without_turns_ends_at_once() {
    let mut daemon = start_with_drain_timeout("600").await;
    let session_id = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "hello").await;
    crate::api::wait_for_turn_end(&daemon, &session_id, &json!(turn_id)).await;
    let stopped = daemon.stop().await;
    assert!(stopped.status.success() && stopped.took < Duration::from_secs(10), "{stopped:?}");
}

#[tokio::test]
async fn drain_timeout_must_be_a_number_of_seconds() {
    for wrong in ["-1", "soon", "3601"] {
        let argument = format!("--drain-timeout={wrong}");
        let refusal = Daemon::builder().arg(argument).start_refused().await;
        assert!(refusal.stderr.contains("drain-timeout"), "{refusal:?}");
    }
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    assert_eq!(ask_with(&daemon, &session_id, "hello", json!({})).await.status, 202);
}

#[tokio::test]
async fn drain_waits_for_turn_with_outstanding_start() {
    let app_server = RecordingAppServer::new();
    let mut daemon =
        app_server.builder_with_delayed_input().env("BAA_CODEXD_DRAIN_TIMEOUT", "600").start().await;
    let session_id = new_session(&daemon).await;
    let base = daemon.base_url().to_owned();
    let response = tokio::spawn(async move {
        try_post(&base, TURN, &json!({ "sessionId": session_id, "input": "deltas=3 delay=20" })).await
    });
    wait_until("the turn/start call", || (app_server.calls("turn/start").len() == 1).then_some(())).await;
    let stopped = daemon.stop().await;
    assert!(stopped.status.success(), "{stopped:?}");
    let (status, answer) = response.await.unwrap().expect("the daemon sends a response");
    assert_eq!(status, 202, "{answer}");
    let turn_id = answer["data"]["turnId"].as_str().unwrap();
    assert_eq!(completion_status(&daemon, turn_id), Some(json!("completed")));
}
