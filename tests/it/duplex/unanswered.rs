//! Server requests that end without a client: timeout, policy, interrupt, and the end of a process.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{
    answer, current_request, delete, finished_turn, interrupt, item, pending_request, requests,
    resolved_request, session_with,
};
use crate::api::{
    SESSIONS, create_session, new_session, start_daemon, start_turn, wait_for_child_status, wait_until_idle,
    wait_until_ready,
};
use crate::support::daemon::Daemon;
use crate::support::http::post;

#[tokio::test]
async fn server_request_is_declined_after_its_timeout() {
    let daemon = start_daemon().await;
    let session_id = session_with(&daemon, json!({ "requestTimeoutSeconds": 3 })).await;
    for (subject, item_type) in [("command", "commandExecution"), ("file", "fileChange")] {
        let turn_id = start_turn(&daemon, &session_id, &format!("ask={subject}")).await;
        let request = pending_request(&daemon, &session_id).await;
        let ended = finished_turn(&daemon, &session_id, &turn_id).await;
        assert_eq!(ended["status"], "completed", "the turn continues after the timeout");
        assert_eq!(item(&ended, item_type)["status"], "declined");
        let request = current_request(&daemon, &request["requestId"]).await;
        assert_eq!((&request["resolvedBy"], &request["decision"]), (&json!("timeout"), &json!("decline")));
        assert!(request["reason"].as_str().unwrap().contains("3 s"), "{request}");
        assert!(request["resolvedAt"].as_str() >= request["expiresAt"].as_str(), "{request}");
        answer(&daemon, &request["requestId"], &json!({ "decision": "accept" }))
            .await
            .error(409, "already_resolved");
    }
}

#[tokio::test]
async fn server_request_timeout_defaults_to_daemon_setting() {
    let daemon = Daemon::builder().arg("--request-timeout").arg("1").start().await;
    let session_id = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "ask=permissions").await;
    assert_eq!(finished_turn(&daemon, &session_id, &turn_id).await["status"], "completed");
    assert_eq!(requests(&daemon, &session_id).await[0]["resolvedBy"], "timeout");
}

#[tokio::test]
async fn session_policy_can_decline_every_server_request() {
    let daemon = start_daemon().await;
    let session_id = session_with(&daemon, json!({ "requests": "decline" })).await;
    let turn_id = start_turn(&daemon, &session_id, "ask=command ask=file ask=permissions ask=input").await;
    let ended = finished_turn(&daemon, &session_id, &turn_id).await;
    assert_eq!(ended["status"], "completed");
    assert_eq!(item(&ended, "commandExecution")["status"], "declined");
    let requests = requests(&daemon, &session_id).await;
    assert_eq!(requests.len(), 4);
    for request in requests {
        assert_eq!((&request["resolvedBy"], &request["decision"]), (&json!("policy"), &json!("decline")));
    }
}

#[tokio::test]
async fn session_creation_names_invalid_request_policy() {
    let daemon = start_daemon().await;
    for (field, value) in [
        ("requests", json!("never")),
        ("requests", json!(true)),
        ("requestTimeoutSeconds", json!("1")),
        ("requestTimeoutSeconds", json!(-1)),
        ("requestTimeoutSeconds", json!(1.5)),
    ] {
        let refused = post(&daemon, SESSIONS, &json!({ field: value })).await;
        let message = refused.error(400, "bad_request");
        assert!(message.contains(field), "{field} = {value}: {message}");
    }
}

#[tokio::test]
async fn interrupt_ends_pending_server_requests_of_the_turn() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "ask=command").await;
    let request = pending_request(&daemon, &session_id).await;
    let interrupted = interrupt(&daemon, &session_id).await;
    assert_eq!(interrupted.data(202)["interrupted"], true);
    assert_eq!(interrupted.data(202)["turn"]["turnId"], turn_id);
    let request = resolved_request(&daemon, &request["requestId"]).await;
    let by = request["resolvedBy"].as_str().unwrap();
    assert!(["appServer", "turnEnd"].contains(&by), "{request}");
    assert_eq!(request["decision"], Value::Null);
    assert!(request["reason"].is_string());
    answer(&daemon, &request["requestId"], &json!({ "decision": "accept" }))
        .await
        .error(409, "already_resolved");
}

#[tokio::test]
async fn closing_a_session_ends_its_pending_server_requests() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    start_turn(&daemon, &session_id, "ask=command").await;
    let request = pending_request(&daemon, &session_id).await;
    let path = format!("{SESSIONS}/{session_id}");
    delete(&daemon, &path).await.error(409, "turn_in_progress");
    assert_eq!(
        delete(&daemon, &format!("{path}?interrupt=true")).await.data(200)["session"]["status"],
        "closed"
    );
    assert_eq!(resolved_request(&daemon, &request["requestId"]).await["status"], "resolved");
}

#[tokio::test]
async fn app_server_exit_ends_its_server_requests() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    start_turn(&daemon, &session_id, "ask=command").await;
    let request = pending_request(&daemon, &session_id).await;
    let child = wait_for_child_status(&daemon, "running").await;
    let pid = Pid::from_raw(i32::try_from(child["pid"].as_i64().unwrap()).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    let request = resolved_request(&daemon, &request["requestId"]).await;
    assert_eq!((&request["resolvedBy"], &request["decision"]), (&json!("connectionClosed"), &Value::Null));
    answer(&daemon, &request["requestId"], &json!({ "decision": "accept" }))
        .await
        .error(409, "already_resolved");
    assert_eq!(wait_until_idle(&daemon, &session_id).await["lastTurnStatus"], "failed");
}

#[tokio::test]
async fn server_requests_end_with_the_daemon_that_received_them() {
    for killed in [true, false] {
        let mut daemon = start_daemon().await;
        let session = create_session(&daemon, json!({ "requests": "ask" })).await;
        let session_id = session["sessionId"].as_str().unwrap();
        start_turn(&daemon, session_id, "ask=command").await;
        let request = pending_request(&daemon, session_id).await;
        if killed {
            daemon.kill().await;
        } else {
            assert!(daemon.stop().await.status.success());
        }
        let daemon = Daemon::builder().state_from(&daemon).start().await;
        wait_until_ready(&daemon).await;
        let request = current_request(&daemon, &request["requestId"]).await;
        assert_eq!(request["status"], "resolved", "killed: {killed}");
        let by = request["resolvedBy"].as_str().unwrap();
        let expected: &[&str] =
            if killed { &["connectionClosed"] } else { &["connectionClosed", "turnEnd", "appServer"] };
        assert!(expected.contains(&by), "killed: {killed}: {request}");
        answer(&daemon, &request["requestId"], &json!({ "decision": "accept" }))
            .await
            .error(409, "already_resolved");
        // The session keeps its request policy. The request IDs of the new app-server start at 0 again.
        let turn_id = start_turn(&daemon, session_id, "ask=command").await;
        let next = pending_request(&daemon, session_id).await;
        assert_ne!(next["requestId"], request["requestId"]);
        super::decide(&daemon, &next["requestId"], "accept").await;
        assert_eq!(finished_turn(&daemon, session_id, &turn_id).await["status"], "completed");
    }
}
