//! Queued turns that wait for a time.

use std::time::Duration;

use hyper::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::queue::{drained_queue, end_hanging_turn, user_messages};
use super::{RecordingAppServer, ask_with, events_of, queue, queued, restart};
use crate::api::{
    SESSIONS, new_session, start_daemon, start_turn, text, wait_for_event_type, wait_for_turn_end,
    wait_until_idle,
};
use crate::duplex::delete;
use crate::history::random::{SeededRandom, seed};
use crate::support::daemon::Daemon;
use crate::support::http::{ApiResponse, get, post, request};
use crate::support::skip::repetitions;
use crate::support::wait::wait_until_async;

/// The time after this delay, as clients write it.
fn after(delay: Duration) -> String {
    format!("{:.3}", Timestamp::now().checked_add(delay).unwrap())
}

/// Queues a turn that starts at `time` at the earliest; returns its queue ID.
async fn queue_until(daemon: &Daemon, session_id: &str, prompt: &str, time: &str) -> String {
    let answer = ask_with(daemon, session_id, prompt, json!({ "notBefore": time })).await;
    assert_eq!(answer.data(202)["turnId"], Value::Null, "{}", answer.text);
    text(&answer.json["data"]["queueId"])
}

/// Requests that a turn waits for no time any more.
async fn start_now(daemon: &Daemon, session_id: &str, queue_id: &str) -> ApiResponse {
    post(daemon, &format!("{SESSIONS}/{session_id}/queue/resume"), &json!({ "queueId": queue_id })).await
}

/// When each queued turn was accepted, by its queue ID; fails if one was accepted twice.
fn accepted_at(daemon: &Daemon) -> Vec<(String, Timestamp)> {
    let accepted = events_of(daemon, "turn.accepted").into_iter().filter_map(|event| {
        Some((event["detail"]["queueId"].as_str()?.to_owned(), text(&event["createdAt"]).parse().unwrap()))
    });
    let accepted: Vec<(String, Timestamp)> = accepted.collect();
    for (index, (queue_id, _)) in accepted.iter().enumerate() {
        let is_twice = accepted[..index].iter().any(|(other, _)| other == queue_id);
        assert!(!is_twice, "{queue_id} was accepted twice");
    }
    accepted
}

#[tokio::test]
async fn turn_waits_for_its_time_in_an_idle_session_and_holds_no_other() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let time = after(Duration::from_secs(6));
    let waiting = queue_until(&daemon, &session_id, "at its time", &time).await;
    let view = get(&daemon, &format!("{SESSIONS}/{session_id}")).await;
    assert_eq!(view.data(200)["queuedTurns"][0]["notBefore"], time);
    assert_eq!(view.data(200)["session"]["held"], Value::Null);
    // Neither a turn that may be queued nor one that may not waits for it.
    for how in ["queue", "refuse"] {
        let answer = ask_with(&daemon, &session_id, how, json!({ "whenBusy": how })).await;
        let turn_id = &answer.data(202)["turnId"];
        assert!(turn_id.is_string(), "{how}: {}", answer.text);
        wait_for_turn_end(&daemon, &session_id, turn_id).await;
    }
    assert_eq!(queued(&daemon, &session_id).await, std::slice::from_ref(&waiting));
    drained_queue(&daemon, &session_id).await;
    assert_eq!(user_messages(&daemon), ["queue", "refuse", "at its time"]);
    let (started, accepted) = accepted_at(&daemon).pop().unwrap();
    assert_eq!(started, waiting);
    assert!(accepted >= time.parse().unwrap(), "it started at {accepted}");
    let event = &events_of(&daemon, "turn.queued")[0];
    assert_eq!(event["detail"]["turn"]["notBefore"], time);
    assert!(text(&event["message"]).contains(&time), "{event}");
}

#[tokio::test]
async fn due_turns_start_in_the_order_in_which_they_were_queued() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let running = start_turn(&daemon, &session_id, "hang").await;
    let later = after(Duration::from_millis(700));
    queue_until(&daemon, &session_id, "one", &later).await;
    queue_until(&daemon, &session_id, "two", &after(Duration::from_millis(300))).await;
    queue(&daemon, &session_id, "three").await;
    queue_until(&daemon, &session_id, "past", "2001-01-01T00:00:00+02:00").await;
    wait_until_async("the time of the last one", async || {
        (Timestamp::now() > later.parse().unwrap()).then_some(())
    })
    .await;
    end_hanging_turn(&daemon, &session_id, &running).await;
    drained_queue(&daemon, &session_id).await;
    assert_eq!(user_messages(&daemon), ["hang", "text=end", "one", "two", "three", "past"]);
}

#[tokio::test]
async fn turn_is_started_before_its_time_or_removed_by_a_client() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let far = "2999-01-01T00:00:00.0001Z";
    let first = queue_until(&daemon, &session_id, "first", far).await;
    let second = queue_until(&daemon, &session_id, "second", far).await;
    let view = get(&daemon, &format!("{SESSIONS}/{session_id}")).await;
    // Rounded up, so that it is never early.
    assert_eq!(view.data(200)["queuedTurns"][0]["notBefore"], "2999-01-01T00:00:00.001Z");
    // What resumes a held queue starts no turn before its time.
    request(&daemon, Method::POST, &format!("{SESSIONS}/{session_id}/queue/resume"), &[], "").await.data(202);
    start_now(&daemon, &session_id, "queued-unknown").await.error(404, "not_found");
    start_now(&daemon, "unknown", &second).await.error(404, "not_found");
    start_now(&daemon, &session_id, &second).await.data(202);
    let accepted = wait_for_event_type(&daemon, "turn.accepted").await;
    assert_eq!(accepted["detail"]["queueId"], second);
    wait_until_idle(&daemon, &session_id).await;
    assert_eq!(queued(&daemon, &session_id).await, std::slice::from_ref(&first));
    let rescheduled = events_of(&daemon, "turn.rescheduled");
    assert_eq!(
        (&rescheduled[0]["detail"]["queueId"], &rescheduled[0]["detail"]["notBefore"]),
        (&json!(second), &Value::Null)
    );
    start_now(&daemon, &session_id, &second).await.error(404, "not_found");
    delete(&daemon, &format!("{SESSIONS}/{session_id}/queue/{first}")).await.data(200);
    assert_eq!(user_messages(&daemon), ["second"]);
}

#[tokio::test]
async fn not_before_is_refused_where_the_turn_could_not_wait() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    for fields in [
        json!({ "notBefore": "2999-01-01T00:00:00Z", "whenBusy": "steer" }),
        json!({ "notBefore": "2999-01-01T00:00:00Z", "whenBusy": "refuse" }),
        json!({ "notBefore": "2999-01-01T00:00:00Z", "expectedTurnId": "turn" }),
    ] {
        let answer = ask_with(&daemon, &session_id, "hello", fields).await;
        assert!(answer.error(400, "bad_request").contains("notBefore is queued"), "{}", answer.text);
    }
    for wrong in [
        "tomorrow",
        "2026-01-01",
        "2026-01-01T00:00:00",
        "10000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+01:00",
    ] {
        let answer = ask_with(&daemon, &session_id, "hello", json!({ "notBefore": wrong })).await;
        assert!(answer.error(400, "bad_request").contains(wrong), "{}", answer.text);
    }
    assert_eq!(queued(&daemon, &session_id).await, [""; 0]);
}

/// Random kills while turns of several sessions wait for times: each starts once, and none before its time.
#[tokio::test]
async fn turns_that_wait_start_once_and_never_early_whenever_the_daemon_is_killed() {
    let kills = repetitions("CODEXD_WAIT_KILLS", "kills", 4, 30);
    let mut random = SeededRandom::new(seed());
    let app_server = RecordingAppServer::new();
    let mut daemon = app_server.builder().start().await;
    let mut sessions = Vec::new();
    for _ in 0..3 {
        let session_id = new_session(&daemon).await;
        // A thread that never had a turn is created again after a restart.
        start_turn(&daemon, &session_id, "deltas=0").await;
        wait_until_idle(&daemon, &session_id).await;
        sessions.push(session_id);
    }
    let mut times: Vec<(String, Timestamp)> = Vec::new();
    for _ in 0..kills {
        for session_id in &sessions {
            let time = after(random.milliseconds(50, 2_000));
            let queue_id = queue_until(&daemon, session_id, "deltas=1", &time).await;
            times.push((queue_id, time.parse().unwrap()));
        }
        tokio::time::sleep(random.milliseconds(0, 900)).await;
        daemon.kill().await;
        daemon = restart(&app_server, &daemon).await;
    }
    for session_id in &sessions {
        drained_queue(&daemon, session_id).await;
    }
    let accepted = accepted_at(&daemon);
    assert_eq!(accepted.len(), times.len());
    let threads = app_server.stored_threads();
    for (queue_id, time) in &times {
        let starts = accepted.iter().find(|(started, _)| started == queue_id);
        let at = starts.unwrap_or_else(|| panic!("{queue_id} never started")).1;
        assert!(at >= *time, "{queue_id} was to wait until {time} and started at {at}");
        assert_eq!(
            threads.matches(queue_id.as_str()).count(),
            1,
            "{queue_id} ran more than once, or not at all"
        );
    }
}
