//! The states of a turn: the session record, the log, and steering.

use serde_json::{Value, json};

use crate::api::{
    TURN, new_session, request_turn, session_record, start_daemon, start_turn, text, turn_event_types,
    wait_for_event, wait_until_idle,
};
use crate::support::daemon::Daemon;
use crate::support::http::{ApiResponse, post};

const STEPS: [&str; 3] = ["turn.accepted", "app-server.turn.started", "app-server.turn.completed"];

/// Steers a turn; returns the response of any status.
async fn steer(daemon: &Daemon, session_id: &str, turn_id: &str, prompt: &str) -> ApiResponse {
    let body = json!({ "sessionId": session_id, "expectedTurnId": turn_id, "input": prompt });
    post(daemon, TURN, &body).await
}

/// Waits until the start of this turn is in the log.
async fn started(daemon: &Daemon, turn_id: &str) {
    wait_for_event(daemon, "the start of the turn", |event| {
        event["type"] == "app-server.turn.started" && event["detail"]["turnId"] == turn_id
    })
    .await;
}

#[tokio::test]
async fn session_record_follows_its_turn() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let before = session_record(&daemon, &session_id).await;
    let answer = request_turn(&daemon, &session_id, "deltas=4 hang-deltas").await;
    let accepted = answer.data(202);
    let turn_id = text(&accepted["turnId"]);
    let in_progress = |record: &Value| {
        assert_eq!(record["currentTurnId"], turn_id);
        assert_eq!(record["lastTurnId"], turn_id);
        assert_eq!(record["lastTurnStatus"], "inProgress");
        assert_eq!(record["status"], "active");
    };
    in_progress(&accepted["session"]);
    started(&daemon, &turn_id).await;
    in_progress(&session_record(&daemon, &session_id).await);
    assert_eq!(steer(&daemon, &session_id, &turn_id, "text=done").await.status, 202);
    let after = wait_until_idle(&daemon, &session_id).await;
    assert_eq!(after["lastTurnId"], turn_id);
    assert_eq!(after["lastTurnStatus"], "completed");
    assert!(after["updatedAt"].as_str() > before["updatedAt"].as_str(), "{before} {after}");
    assert_eq!(after["createdAt"], before["createdAt"]);
}

#[tokio::test]
async fn log_records_turn_from_acceptance_to_end() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "deltas=2 plan diff").await;
    let session = wait_until_idle(&daemon, &session_id).await;
    let events = daemon.events_on_disk();
    assert_eq!(
        turn_event_types(&events, &turn_id),
        [
            "turn.accepted",
            "app-server.turn.started",
            "app-server.turn.plan.updated",
            "app-server.turn.diff.updated",
            "app-server.turn.message.delta",
            "app-server.turn.message.delta",
            "app-server.turn.completed",
        ]
    );
    let find = |event_type: &str| {
        events.iter().find(|event| event["type"] == event_type).unwrap_or_else(|| panic!("no {event_type}"))
    };
    let (accepted, completed) = (find("turn.accepted"), find("app-server.turn.completed"));
    let thread_id = &session["threadId"];
    assert_eq!(
        accepted["detail"],
        json!({ "sessionId": session_id, "threadId": thread_id, "turnId": turn_id })
    );
    assert_eq!(accepted["message"], format!("Accepted turn {turn_id} for session {session_id}."));
    assert_eq!(completed["detail"]["status"], "completed");
    assert_eq!(&completed["detail"]["threadId"], thread_id);
    let delta = find("app-server.turn.message.delta");
    assert_eq!(delta["detail"]["delta"], "alpha-0 ....");
    assert_eq!(delta["message"], format!("App-server emitted delta for turn {turn_id}: alpha-0 ...."));
    assert!(delta["detail"]["itemId"].is_string());
    assert!(find("app-server.turn.diff.updated")["detail"]["diff"].is_string());
    assert!(find("app-server.turn.plan.updated")["detail"]["plan"].is_array());
    for event_type in ["app-server.thread.started", "app-server.thread.status.changed"] {
        assert_eq!(&find(event_type)["detail"]["threadId"], thread_id);
    }
    let other = find("app-server.notification");
    assert!(other["detail"]["notificationMethod"].is_string() && other["detail"]["params"].is_object());
}

#[tokio::test]
async fn log_orders_turn_acceptance_before_start_and_end() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    for _ in 0..20 {
        let turn_id = start_turn(&daemon, &session_id, "text=x").await;
        wait_until_idle(&daemon, &session_id).await;
        let events = daemon.events_on_disk();
        let mut types = turn_event_types(&events, &turn_id);
        types.retain(|event_type| STEPS.contains(event_type));
        assert_eq!(types, STEPS);
    }
}

#[tokio::test]
async fn steer_reaches_named_turn() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "hang").await;
    started(&daemon, &turn_id).await;
    let answer = steer(&daemon, &session_id, &turn_id, "text=steered").await;
    assert_eq!(answer.data(202)["turnId"], turn_id);
    assert_eq!(answer.data(202)["accepted"], true);
    assert_eq!(wait_until_idle(&daemon, &session_id).await["lastTurnStatus"], "completed");
    let events = daemon.events_on_disk();
    let deltas: Vec<_> = events
        .iter()
        .filter(|event| event["type"] == "app-server.turn.message.delta")
        .map(|event| event["detail"]["delta"].as_str().unwrap())
        .collect();
    assert_eq!(deltas, ["steered"]);
}

#[tokio::test]
async fn steer_of_another_turn_is_rejected() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let none = steer(&daemon, &session_id, "no-such-turn", "x").await;
    assert!(none.error(400, "app_server_rejected").contains("no active turn to steer"), "{}", none.text);
    assert_eq!(session_record(&daemon, &session_id).await["lastTurnId"], Value::Null);

    let turn_id = start_turn(&daemon, &session_id, "hang").await;
    started(&daemon, &turn_id).await;
    let other = steer(&daemon, &session_id, "no-such-turn", "x").await;
    other.error(400, "app_server_rejected");
    assert_eq!(other.json["details"]["code"], -32600);
    assert!(other.json["details"]["message"].as_str().unwrap().contains(&turn_id), "{}", other.text);
    let record = session_record(&daemon, &session_id).await;
    assert_eq!(
        (&record["currentTurnId"], &record["lastTurnStatus"]),
        (&json!(turn_id), &json!("inProgress"))
    );
}

#[tokio::test]
async fn busy_session_rejects_second_turn() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "hang").await;
    let answer = request_turn(&daemon, &session_id, "another").await;
    let message = answer.error(409, "turn_in_progress");
    assert!(message.contains(&session_id) && message.contains("expectedTurnId"), "{message}");
    assert_eq!(answer.json["details"]["turnId"], turn_id);
    // Other sessions are not affected.
    let other = new_session(&daemon).await;
    start_turn(&daemon, &other, "hello").await;
    assert_eq!(wait_until_idle(&daemon, &other).await["lastTurnStatus"], "completed");
    assert_eq!(steer(&daemon, &session_id, &turn_id, "text=end").await.status, 202);
    wait_until_idle(&daemon, &session_id).await;
    assert_eq!(request_turn(&daemon, &session_id, "another").await.status, 202);
}

#[tokio::test]
async fn concurrent_turns_on_one_session_accept_one() {
    let daemon = start_daemon().await;
    for _ in 0..10 {
        let session_id = new_session(&daemon).await;
        let answers = tokio::join!(
            request_turn(&daemon, &session_id, "hang"),
            request_turn(&daemon, &session_id, "hang")
        );
        let (accepted, refused) = match answers.0.status {
            202 => answers,
            _ => (answers.1, answers.0),
        };
        let turn_id = &accepted.data(202)["turnId"];
        refused.error(409, "turn_in_progress");
        assert_eq!(&refused.json["details"]["turnId"], turn_id);
    }
}

#[tokio::test]
async fn hundred_sessions_run_concurrent_turns() {
    let daemon = start_daemon().await;
    let mut session_ids = Vec::new();
    for _ in 0..100 {
        session_ids.push(new_session(&daemon).await);
    }
    let turns = session_ids.iter().map(|session_id| start_turn(&daemon, session_id, "deltas=5 delay=1"));
    let turn_ids = futures_util::future::join_all(turns).await;
    for (session_id, turn_id) in session_ids.iter().zip(&turn_ids) {
        let record = wait_until_idle(&daemon, session_id).await;
        assert_eq!(
            (&record["lastTurnId"], &record["lastTurnStatus"]),
            (&json!(turn_id), &json!("completed"))
        );
    }
}

#[tokio::test]
async fn session_continues_after_failed_turn() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "fail").await;
    let record = wait_until_idle(&daemon, &session_id).await;
    assert_eq!((&record["lastTurnId"], &record["lastTurnStatus"]), (&json!(turn_id), &json!("failed")));
    let completed =
        wait_for_event(&daemon, "the end", |event| event["type"] == "app-server.turn.completed").await;
    assert_eq!(completed["detail"]["status"], "failed");
    assert!(completed["detail"]["error"].is_object(), "{completed}");
    let events = daemon.events_on_disk();
    let error = events.iter().find(|event| event["type"] == "app-server.turn.error").unwrap();
    assert_eq!((&error["level"], &error["detail"]["willRetry"]), (&json!("error"), &json!(false)));
    start_turn(&daemon, &session_id, "hello").await;
    assert_eq!(wait_until_idle(&daemon, &session_id).await["lastTurnStatus"], "completed");
}

#[tokio::test]
async fn retried_turn_stays_in_progress() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "retry hang-deltas").await;
    let error = wait_for_event(&daemon, "the error", |event| event["type"] == "app-server.turn.error").await;
    assert_eq!((&error["detail"]["willRetry"], &error["detail"]["turnId"]), (&json!(true), &json!(turn_id)));
    let meanwhile = session_record(&daemon, &session_id).await;
    assert_eq!(
        (&meanwhile["currentTurnId"], &meanwhile["lastTurnStatus"]),
        (&json!(turn_id), &json!("inProgress"))
    );
    assert_eq!(steer(&daemon, &session_id, &turn_id, "text=end").await.status, 202);
    assert_eq!(wait_until_idle(&daemon, &session_id).await["lastTurnStatus"], "completed");
}
