//! The session that owns a turn and its server requests, and closing sessions that share a thread.

use serde_json::{Value, json};

use super::{two_on_one_thread, two_on_one_thread_with};
use crate::api::{SESSIONS, request_turn, session_record, start_daemon, start_turn};
use crate::duplex::{REQUESTS, decide, delete, finished_turn, pending_request, requests};
use crate::sessions::{RecordingAppServer, events_of};
use crate::support::http::{get, post};
use crate::support::wait::wait_until;

#[tokio::test]
async fn server_request_belongs_to_session_that_started_the_turn() {
    let daemon = start_daemon().await;
    let (first, second, _) = two_on_one_thread_with(&daemon, json!({ "requests": "decline" })).await;
    let turn_id = start_turn(&daemon, &first, "ask=command text=done").await;
    let request = pending_request(&daemon, &first).await;
    assert_eq!((&request["sessionId"], &request["turnId"]), (&json!(first), &json!(turn_id)));
    assert_eq!(requests(&daemon, &second).await, [Value::Null; 0]);
    assert_eq!(decide(&daemon, &request["requestId"], "accept").await["resolvedBy"], "client");
    let ended = finished_turn(&daemon, &first, &turn_id).await;
    assert_eq!((&ended["text"], &ended["startedBy"]), (&json!("done"), &json!(first)));
    // The other session shows the turn too, because it is on the same thread.
    let shown = finished_turn(&daemon, &second, &turn_id).await;
    assert_eq!((&shown["sessionId"], &shown["startedBy"]), (&json!(second), &json!(first)));

    let turn_id = start_turn(&daemon, &second, "ask=command").await;
    finished_turn(&daemon, &second, &turn_id).await;
    let request = requests(&daemon, &second).await.remove(0);
    assert_eq!((&request["turnId"], &request["resolvedBy"]), (&json!(turn_id), &json!("policy")));
    let all = get(&daemon, REQUESTS).await.data(200)["requests"].as_array().unwrap().len();
    assert_eq!(all, 2);
}

#[tokio::test]
async fn thread_subscription_lasts_while_a_session_uses_it() {
    let app_server = RecordingAppServer::new();
    let daemon = app_server.builder().start().await;
    let (first, second, thread_id) = two_on_one_thread(&daemon).await;
    delete(&daemon, &format!("{SESSIONS}/{first}")).await.data(200);
    assert_eq!(app_server.calls("thread/unsubscribe"), [Value::Null; 0]);
    let turn_id = start_turn(&daemon, &second, "ask=command text=still").await;
    decide(&daemon, &pending_request(&daemon, &second).await["requestId"], "accept").await;
    assert_eq!(finished_turn(&daemon, &second, &turn_id).await["text"], "still");
    delete(&daemon, &format!("{SESSIONS}/{second}")).await.data(200);
    // The call is sent before the response, and recorded by another process.
    let is_called =
        || (app_server.calls("thread/unsubscribe") == [json!({ "threadId": thread_id })]).then_some(());
    wait_until("the end of the subscription", is_called).await;
}

#[tokio::test]
async fn turn_of_closed_session_ends_in_its_record() {
    let daemon = start_daemon().await;
    let (first, second, _) = two_on_one_thread(&daemon).await;
    let turn_id = start_turn(&daemon, &first, "hang-deltas delay=50").await;
    // The turn belongs to the first session and continues.
    let closed = delete(&daemon, &format!("{SESSIONS}/{second}")).await.data(200)["session"].clone();
    assert_eq!((&closed["status"], &closed["lastTurnStatus"]), (&json!("closed"), &json!("inProgress")));
    assert_eq!(session_record(&daemon, &first).await["currentTurnId"], turn_id);
    delete(&daemon, &format!("{SESSIONS}/{first}")).await.error(409, "turn_in_progress");
    delete(&daemon, &format!("{SESSIONS}/{first}?interrupt=true")).await.data(200);
    for session_id in [&first, &second] {
        let record = session_record(&daemon, session_id).await;
        assert_eq!(record["status"], "closed");
        assert_eq!(
            (&record["lastTurnId"], &record["lastTurnStatus"]),
            (&json!(turn_id), &json!("interrupted"))
        );
        assert_eq!(finished_turn(&daemon, session_id, &turn_id).await["status"], "interrupted");
    }
    request_turn(&daemon, &second, "hello").await.error(409, "session_not_active");
}

#[tokio::test]
async fn closing_a_session_keeps_turns_of_other_sessions_of_its_thread() {
    let daemon = start_daemon().await;
    let (first, second, _) = two_on_one_thread(&daemon).await;
    let interrupt = async |session_id: &str| {
        post(&daemon, "/v1/codexd/turn/interrupt", &json!({ "sessionId": session_id })).await
    };
    delete(&daemon, &format!("{SESSIONS}/{second}")).await.data(200);
    interrupt(&second).await.error(409, "no_turn");
    let turn_id = start_turn(&daemon, &first, "hang").await;
    interrupt(&second).await.error(409, "session_not_active");
    assert_eq!(session_record(&daemon, &first).await["currentTurnId"], turn_id);
    assert_eq!(interrupt(&first).await.data(202)["interrupted"], true);
}

#[tokio::test]
async fn cut_off_turn_ends_once_for_all_sessions_of_its_thread() {
    let daemon = start_daemon().await;
    let (first, second, _) = two_on_one_thread(&daemon).await;
    let turn_id = start_turn(&daemon, &second, "abort").await;
    for session_id in [&first, &second] {
        assert_eq!(finished_turn(&daemon, session_id, &turn_id).await["status"], "failed");
    }
    let missing = events_of(&daemon, "app-server.turn.completed.missing");
    assert_eq!(missing.len(), 1, "{missing:?}");
    assert_eq!(missing[0]["detail"]["sessionId"], second);
}
