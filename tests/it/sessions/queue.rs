//! The turn queue of a session.

use std::fs::File;

use hyper::Method;
use serde_json::{Value, json};

use super::{RecordingAppServer, ask_with, events_of, queue, queued, restart, started_turns};
use crate::api::{
    SESSIONS, assert_keys, keys, new_session, session_record, start_daemon, start_turn, text, wait_for_event,
    wait_for_turn_end, wait_until_idle,
};
use crate::duplex::{delete, finished_turn};
use crate::support::daemon::Daemon;
use crate::support::http::{get, request};
use crate::support::wait::{wait_until, wait_until_async};

/// Steers a hanging turn so that it ends.
pub(super) async fn end_hanging_turn(daemon: &Daemon, session_id: &str, turn_id: &str) {
    let steered = ask_with(daemon, session_id, "text=end", json!({ "expectedTurnId": turn_id })).await;
    assert_eq!(steered.status, 202, "{}", steered.text);
}

/// Waits until no turn of a session is queued or running; returns its record.
pub(super) async fn drained_queue(daemon: &Daemon, session_id: &str) -> Value {
    wait_until_async("the end of the queue", async || {
        let read = get(daemon, &format!("/v1/codexd/sessions/{session_id}")).await;
        let data = read.data(200);
        let is_done = data["queuedTurns"] == json!([]) && data["session"]["currentTurnId"].is_null();
        is_done.then(|| data["session"].clone())
    })
    .await
}

/// Returns the texts of the user messages in the log, in order.
pub(super) fn user_messages(daemon: &Daemon) -> Vec<String> {
    let items = events_of(daemon, "app-server.notification");
    let items = items.iter().filter(|event| event["detail"]["notificationMethod"] == "item/completed");
    let items = items.map(|event| &event["detail"]["params"]["item"]);
    items.filter(|item| item["type"] == "userMessage").map(|item| text(&item["content"][0]["text"])).collect()
}

#[tokio::test]
async fn turn_queue_runs_turns_in_order() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let running = start_turn(&daemon, &session_id, "hang").await;
    let mut names = Vec::new();
    for prompt in ["one", "two", "three"] {
        names.push(queue(&daemon, &session_id, prompt).await);
    }
    let read = get(&daemon, &format!("/v1/codexd/sessions/{session_id}")).await;
    let waiting = read.data(200)["queuedTurns"].as_array().unwrap().clone();
    assert_eq!(waiting.iter().map(|turn| text(&turn["queueId"])).collect::<Vec<_>>(), names);
    assert_eq!(
        keys(&waiting[0]),
        [
            "queueId",
            "queuedAt",
            "input",
            "settings",
            "submitted",
            "order",
            "notBefore",
            "onUsageLimit",
            "continues"
        ]
    );
    assert_eq!(waiting[1]["input"][0]["text"], "two");
    assert_eq!(waiting[0]["submitted"], false);
    assert_eq!(session_record(&daemon, &session_id).await["currentTurnId"], running);

    end_hanging_turn(&daemon, &session_id, &running).await;
    let last = drained_queue(&daemon, &session_id).await;
    assert_eq!(last["lastTurnStatus"], "completed");
    assert_eq!(user_messages(&daemon), ["hang", "text=end", "one", "two", "three"]);
    let events = events_of(&daemon, "turn.queued");
    let positions: Vec<_> = events.iter().map(|event| &event["detail"]["position"]).collect();
    assert_eq!(positions, [1, 2, 3]);
    assert_keys(&events[0]["detail"], &["sessionId", "threadId", "queueId", "position", "turn"]);
    let accepted = events_of(&daemon, "turn.accepted");
    let from_queue: Vec<_> =
        accepted.iter().filter_map(|event| event["detail"]["queueId"].as_str()).collect();
    assert_eq!(from_queue, names);
    assert_eq!(started_turns(&daemon).len(), 4);
}

#[tokio::test]
async fn turn_queue_starts_turn_of_idle_session_at_once() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let answer = ask_with(&daemon, &session_id, "hello", json!({ "whenBusy": "queue" })).await;
    let data = answer.data(202);
    assert_eq!(keys(data), ["accepted", "session", "turnId"]);
    assert_eq!(wait_for_turn_end(&daemon, &session_id, &data["turnId"]).await["lastTurnStatus"], "completed");
    assert_eq!(queued(&daemon, &session_id).await, [""; 0]);
    assert_eq!(events_of(&daemon, "turn.queued"), [Value::Null; 0]);
}

#[tokio::test]
async fn turn_queue_keeps_settings_of_queued_turn() {
    let app_server = RecordingAppServer::new();
    let daemon = app_server.builder().start().await;
    let session_id = new_session(&daemon).await;
    let running = start_turn(&daemon, &session_id, "hang").await;
    let fields = json!({ "whenBusy": "queue", "effort": "high", "model": "embedded-model-mini" });
    let queue_id = ask_with(&daemon, &session_id, "hello", fields).await.data(202)["queueId"].clone();
    end_hanging_turn(&daemon, &session_id, &running).await;
    drained_queue(&daemon, &session_id).await;
    let turn_start = app_server.calls("turn/start").pop().unwrap();
    assert_eq!(
        (&turn_start["effort"], &turn_start["model"]),
        (&json!("high"), &json!("embedded-model-mini"))
    );
    assert_eq!(turn_start["clientUserMessageId"], queue_id);
    assert_eq!(turn_start.get("whenBusy"), None);
}

#[tokio::test]
async fn turn_queue_survives_stop_and_kill() {
    for kill in [false, true] {
        let app_server = RecordingAppServer::new();
        let mut daemon = app_server.builder().start().await;
        let session_id = new_session(&daemon).await;
        start_turn(&daemon, &session_id, "hang").await;
        let names = [queue(&daemon, &session_id, "one").await, queue(&daemon, &session_id, "two").await];
        match kill {
            true => assert!(!daemon.kill().await.success()),
            false => assert!(daemon.stop().await.status.success()),
        }
        assert_eq!(app_server.calls("turn/start").len(), 1, "a queued turn started during the stop");

        let daemon = restart(&app_server, &daemon).await;
        let last = drained_queue(&daemon, &session_id).await;
        assert_eq!(last["lastTurnStatus"], "completed");
        let sent: Vec<_> = app_server
            .calls("turn/start")
            .iter()
            .skip(1)
            .map(|turn| text(&turn["clientUserMessageId"]))
            .collect();
        assert_eq!(sent, names, "killed: {kill}");
        assert_eq!(app_server.calls("thread/resume").len(), 1);
    }
}

#[tokio::test]
async fn withdrawn_turn_does_not_run_after_restart() {
    let app_server = RecordingAppServer::new();
    let mut daemon = app_server.builder().start().await;
    let session_id = new_session(&daemon).await;
    start_turn(&daemon, &session_id, "hang").await;
    let names = [queue(&daemon, &session_id, "one").await, queue(&daemon, &session_id, "two").await];
    let path = |queue_id: &str| format!("{SESSIONS}/{session_id}/queue/{queue_id}");
    let answer = delete(&daemon, &path(&names[0])).await;
    let names_of_keys = ["recentEvents", "session", "queuedTurns", "requests", "mcpServers", "pending"];
    assert_eq!(keys(answer.data(200)), names_of_keys);
    assert_eq!(answer.data(200)["pending"], false);
    assert_eq!(answer.data(200)["queuedTurns"][0]["queueId"], names[1]);
    let rejected = events_of(&daemon, "turn.rejected").pop().unwrap();
    assert_eq!(rejected["detail"]["queueId"], names[0]);
    assert!(delete(&daemon, &path(&names[0])).await.error(404, "not_found").contains(&names[0]));
    delete(&daemon, "/v1/codexd/sessions/unknown/queue/unknown").await.error(404, "not_found");

    assert!(!daemon.kill().await.success());
    let daemon = restart(&app_server, &daemon).await;
    drained_queue(&daemon, &session_id).await;
    let turn_starts = app_server.calls("turn/start");
    let sent: Vec<_> = turn_starts.iter().skip(1).map(|turn| text(&turn["clientUserMessageId"])).collect();
    assert_eq!(sent, names[1..]);
    delete(&daemon, &path(&names[1])).await.error(404, "not_found");
}

#[tokio::test]
async fn withdrawing_a_starting_turn_interrupts_it() {
    let app_server = RecordingAppServer::new();
    let daemon = app_server.builder_without_user_messages().start().await;
    let session_id = new_session(&daemon).await;
    let running = start_turn(&daemon, &session_id, "hang").await;
    let queue_id = queue(&daemon, &session_id, "answer-late=4000 hang").await;
    let next = queue(&daemon, &session_id, "text=next").await;
    end_hanging_turn(&daemon, &session_id, &running).await;
    wait_until("the turn/start call", || (app_server.calls("turn/start").len() == 2).then_some(())).await;
    let path = format!("{SESSIONS}/{session_id}/queue/{queue_id}");
    let answer = delete(&daemon, &path).await;
    assert_eq!(answer.data(200)["pending"], false);
    let accepted = events_of(&daemon, "turn.accepted");
    let accepted = accepted.iter().find(|event| event["detail"]["queueId"] == queue_id).unwrap();
    let turn_id = text(&accepted["detail"]["turnId"]);
    assert_eq!(finished_turn(&daemon, &session_id, &turn_id).await["status"], "interrupted");
    drained_queue(&daemon, &session_id).await;
    let accepted = events_of(&daemon, "turn.accepted");
    assert!(
        accepted.iter().any(|event| event["detail"]["queueId"] == next),
        "the next queued turn did not start"
    );
    delete(&daemon, &path).await.error(404, "not_found");
}

#[tokio::test]
async fn turn_queue_holds_at_most_100_turns() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let running = start_turn(&daemon, &session_id, "hang").await;
    for _ in 0..100 {
        queue(&daemon, &session_id, "deltas=0").await;
    }
    let answer = ask_with(&daemon, &session_id, "hello", json!({ "whenBusy": "queue" })).await;
    assert!(answer.error(409, "queue_full").contains("100"), "{}", answer.text);
    assert_eq!(answer.json["details"], json!({ "sessionId": session_id, "limit": 100 }));
    assert_eq!(queued(&daemon, &session_id).await.len(), 100);
    // The limit applies to each session.
    let other = new_session(&daemon).await;
    start_turn(&daemon, &other, "hang").await;
    queue(&daemon, &other, "hello").await;
    end_hanging_turn(&daemon, &session_id, &running).await;
    for left in [75, 50, 25] {
        wait_until_async("a shorter queue", async || {
            (queued(&daemon, &session_id).await.len() <= left).then_some(())
        })
        .await;
    }
    drained_queue(&daemon, &session_id).await;
    assert_eq!(events_of(&daemon, "turn.queued").len(), 101);
    assert_eq!(started_turns(&daemon).len(), 102);
}

#[tokio::test]
async fn turn_queue_keeps_turns_when_app_server_is_overloaded() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let running = start_turn(&daemon, &session_id, "hang overload=9").await;
    queue(&daemon, &session_id, "one").await;
    queue(&daemon, &session_id, "two").await;
    end_hanging_turn(&daemon, &session_id, &running).await;
    drained_queue(&daemon, &session_id).await;
    assert_eq!(user_messages(&daemon), ["hang overload=9", "text=end", "one", "two"]);
    assert_eq!(events_of(&daemon, "turn.rejected"), [Value::Null; 0]);
}

#[tokio::test]
async fn queueable_turn_does_not_overtake_queued_turns() {
    let app_server = RecordingAppServer::new();
    let mut daemon = app_server.builder().start().await;
    let session_id = new_session(&daemon).await;
    start_turn(&daemon, &session_id, "hang").await;
    let first = queue(&daemon, &session_id, "one").await;
    let thread_id = session_record(&daemon, &session_id).await["threadId"].clone();
    daemon.kill().await;

    // While another process writes the thread, the queued turn cannot start, although no turn runs.
    let writer = File::options().write(true).open(app_server.file(&thread_id, "lock")).unwrap();
    // The app-server of the killed daemon ends when its stdin closes.
    writer.lock().unwrap();
    let daemon = restart(&app_server, &daemon).await;
    assert_eq!(session_record(&daemon, &session_id).await["currentTurnId"], Value::Null);
    let second = queue(&daemon, &session_id, "two").await;
    assert_eq!(queued(&daemon, &session_id).await, [first.clone(), second.clone()]);
    drop(writer);
    drained_queue(&daemon, &session_id).await;
    let turn_starts = app_server.calls("turn/start");
    let order: Vec<_> = turn_starts.iter().skip(1).map(|turn| text(&turn["clientUserMessageId"])).collect();
    assert_eq!(order, [first, second]);
}

#[tokio::test]
async fn queued_turn_sent_before_daemon_kill_runs_once() {
    let app_server = RecordingAppServer::new();
    let mut daemon = app_server.builder_without_user_messages().start().await;
    let session_id = new_session(&daemon).await;
    let running = start_turn(&daemon, &session_id, "hang").await;
    let queue_id = queue(&daemon, &session_id, "hang answer-never").await;
    end_hanging_turn(&daemon, &session_id, &running).await;
    // The turn runs; nothing has told the daemon that it is the queued one.
    let started = wait_for_event(&daemon, "the queued turn", |event| {
        event["type"] == "app-server.turn.started" && event["detail"]["turnId"] != running
    })
    .await;
    assert_eq!(queued(&daemon, &session_id).await, [queue_id]);
    daemon.kill().await;

    let daemon = restart(&app_server, &daemon).await;
    let last = drained_queue(&daemon, &session_id).await;
    assert_eq!(last["lastTurnId"], started["detail"]["turnId"]);
    assert_eq!(last["lastTurnStatus"], "interrupted");
    assert_eq!(app_server.calls("turn/start").len(), 2);
    wait_until_idle(&daemon, &session_id).await;
}

#[tokio::test]
async fn closing_a_session_rejects_its_queued_turns() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    start_turn(&daemon, &session_id, "hang").await;
    let waiting = [queue(&daemon, &session_id, "one").await, queue(&daemon, &session_id, "two").await];
    let path = format!("{SESSIONS}/{session_id}?interrupt=true");
    let closed = request(&daemon, Method::DELETE, &path, &[], "").await;
    assert_eq!(closed.data(200)["session"]["status"], "closed");
    assert_eq!(queued(&daemon, &session_id).await, [""; 0]);
    let rejected = events_of(&daemon, "turn.rejected");
    let names: Vec<_> = rejected.iter().map(|event| event["detail"]["queueId"].clone()).collect();
    assert_eq!(names, waiting);
    assert_eq!(user_messages(&daemon), ["hang"], "a queued turn of the closed session ran");
}
