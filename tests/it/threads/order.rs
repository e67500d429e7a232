//! One order of turns for all sessions of a thread.

use serde_json::{Value, json};

use super::two_on_one_thread;
use crate::api::{
    request_turn, session_record, start_daemon, start_turn, text, wait_for_event_type, wait_until_idle,
};
use crate::duplex::finished_turn;
use crate::sessions::{RecordingAppServer, ask_with, events_of, queue};
use crate::support::daemon::Daemon;
use crate::support::http::ApiResponse;
use crate::support::wait::wait_until;

/// Requests a turn in both sessions at the same time; returns the response that accepted a turn first.
async fn request_in_both(daemon: &Daemon, sessions: [&str; 2], fields: Value) -> [ApiResponse; 2] {
    let ask = |session_id| ask_with(daemon, session_id, "answer-late=200 hang", fields.clone());
    let (one, other) = tokio::join!(ask(sessions[0]), ask(sessions[1]));
    // Only an accepted turn has an ID; either session may be the first.
    if one.json["data"]["turnId"].is_string() { [one, other] } else { [other, one] }
}

#[tokio::test]
async fn concurrent_turns_on_two_sessions_of_a_thread_start_one() {
    let daemon = start_daemon().await;
    let (first, second, _) = two_on_one_thread(&daemon).await;
    let [accepted, refused] = request_in_both(&daemon, [&first, &second], json!({})).await;
    let turn_id = accepted.data(202)["turnId"].clone();
    assert!(refused.error(409, "turn_in_progress").contains(turn_id.as_str().unwrap()), "{}", refused.text);
    // The following requests are rejected too, before the start of the first turn is notified.
    for session_id in [&first, &second] {
        request_turn(&daemon, session_id, "hello").await.error(409, "turn_in_progress");
        assert_eq!(session_record(&daemon, session_id).await["currentTurnId"], turn_id);
    }
    assert_eq!(events_of(&daemon, "turn.accepted").len(), 2);
}

#[tokio::test]
async fn concurrent_turn_on_second_session_can_steer() {
    let app_server = RecordingAppServer::new();
    let daemon = app_server.builder().start().await;
    let (first, second, _) = two_on_one_thread(&daemon).await;
    let steer = json!({ "whenBusy": "steer" });
    let [one, other] = request_in_both(&daemon, [&first, &second], steer).await;
    assert_eq!(one.data(202)["turnId"], other.data(202)["turnId"]);
    assert_eq!((app_server.calls("turn/start").len(), app_server.calls("turn/steer").len()), (2, 1));
    let accepted = events_of(&daemon, "turn.accepted");
    let steered: Vec<_> = accepted.iter().map(|event| &event["detail"]["steered"]).collect();
    assert_eq!(steered, [&Value::Null, &Value::Null, &json!(true)]);
}

#[tokio::test]
async fn turn_queue_keeps_order_across_sessions_of_a_thread() {
    let app_server = RecordingAppServer::new();
    let daemon = app_server.builder().start().await;
    let (first, second, _) = two_on_one_thread(&daemon).await;
    let [accepted, queued] =
        request_in_both(&daemon, [&first, &second], json!({ "whenBusy": "queue" })).await;
    let mut names = vec![text(&queued.data(202)["queueId"])];
    assert_eq!(queued.data(202)["turnId"], Value::Null);
    for session_id in [&first, &second, &second, &first] {
        names.push(queue(&daemon, session_id, "deltas=1").await);
    }
    let positions: Vec<_> =
        events_of(&daemon, "turn.queued").iter().map(|event| event["detail"]["position"].clone()).collect();
    assert_eq!(positions, [1, 2, 3, 4, 5]);
    let end = async |turn_id: String| {
        let fields = json!({ "expectedTurnId": turn_id });
        ask_with(&daemon, &first, "text=end", fields).await.data(202);
        finished_turn(&daemon, &first, &turn_id).await;
    };
    end(text(&accepted.data(202)["turnId"])).await;
    end(accepted_turn(&daemon, &names[0]).await).await;
    finished_turn(&daemon, &first, &accepted_turn(&daemon, &names[4]).await).await;
    let sent: Vec<_> =
        app_server.calls("turn/start").iter().map(|turn| text(&turn["clientUserMessageId"])).collect();
    assert_eq!(sent[2..], names);
    assert_eq!(app_server.calls("turn/steer").len(), 2, "a queued turn was sent as a steer");
    assert_eq!(events_of(&daemon, "turn.settled"), [Value::Null; 0]);
}

/// Waits until a queued turn is accepted; returns its turn ID.
async fn accepted_turn(daemon: &Daemon, queue_id: &str) -> String {
    let is_it = |event: &Value| event["detail"]["queueId"] == queue_id && event["type"] == "turn.accepted";
    let find = || events_of(daemon, "turn.accepted").into_iter().find(is_it);
    text(&wait_until("the queued turn", find).await["detail"]["turnId"])
}

#[tokio::test]
async fn queued_turn_starts_when_previous_turn_ends() {
    let daemon = start_daemon().await;
    let (first, second, _) = two_on_one_thread(&daemon).await;
    let running = start_turn(&daemon, &first, "hang").await;
    for session_id in [&second, &first, &second, &first, &second] {
        queue(&daemon, session_id, "deltas=1").await;
    }
    ask_with(&daemon, &first, "text=end", json!({ "expectedTurnId": running })).await.data(202);
    wait_for_event_type(&daemon, "app-server.turn.completed").await;
    wait_until("the end of all turns", || {
        (events_of(&daemon, "app-server.turn.completed").len() == 7).then_some(())
    })
    .await;
    wait_until_idle(&daemon, &first).await;
    let time = |event: &Value| event["createdAt"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let ended: Vec<_> = events_of(&daemon, "app-server.turn.completed").iter().skip(1).map(time).collect();
    let started: Vec<_> = events_of(&daemon, "app-server.turn.started").iter().skip(2).map(time).collect();
    let gaps: Vec<_> = ended
        .iter()
        .zip(&started)
        .map(|(ended, started)| started.duration_since(*ended).as_millis())
        .collect();
    assert_eq!(gaps.len(), 5);
    // On a busy machine one of the gaps may be longer; the periodic check of idle threads would take 1 s each time.
    assert!(gaps.iter().filter(|gap| **gap < 700).count() >= 4, "{gaps:?} ms");
}
