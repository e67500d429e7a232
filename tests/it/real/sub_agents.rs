//! Sub-agents of the real app-server: the events and requests of their threads belong to the root session.

use serde_json::{Value, json};

use super::app_server::AppServer;
use super::{Stage, create_session, submit};
use crate::api::{SESSIONS, text, wait_for_child_status, wait_for_event};
use crate::duplex::{decide, delete, finished_turn, interrupt, pending_request, requests, resolved_request};
use crate::support::codex::{CodexHome, versions};
use crate::support::daemon::Daemon;
use crate::support::http::get;
use crate::support::model::MockModel;
use crate::support::skip::runs_long;
use crate::support::websocket::EventStream;

/// Spawns a sub-agent whose command needs an approval; the spawning turn ends before the approval.
const SPAWN: &str = "mock:spawn=[%escalate=(touch spawned) %text=(done)] mock:text=[spawned one]";
/// Like `SPAWN`, but the spawning turn runs until it is interrupted.
const SPAWN_AND_HANG: &str = "mock:spawn=[%escalate=(touch spawned) %text=(done)] mock:hang";

/// Starts a daemon with this version of Codex and sub-agents enabled.
async fn start_stage(version: &str) -> Stage {
    let model = MockModel::start();
    let home = CodexHome::builder(&model).sub_agents().build();
    let daemon = Daemon::builder().real_version(&home, version).start().await;
    let mut events = EventStream::connect(&daemon).await;
    events.hello().await;
    Stage { events, daemon, home, model }
}

/// Settings for a session whose commands need an approval, with these additional fields.
fn on_request_with(more: Value) -> Value {
    let mut settings = json!({ "approvalPolicy": "on-request", "sandbox": "read-only" });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    settings
}

fn has_run(home: &CodexHome) -> bool {
    home.workspace().join("spawned").exists()
}

/// Returns all events that a stream of this session contains.
async fn events_of(daemon: &Daemon, session_id: &str) -> Vec<Value> {
    let page = get(daemon, &format!("/v1/codexd/events?limit=1000&after=0&sessionId={session_id}")).await;
    page.data(200)["events"].as_array().unwrap().clone()
}

#[tokio::test]
async fn sub_agent_request_belongs_to_root_session() {
    for version in versions() {
        let mut stage = start_stage(version).await;
        let session = stage.session(&on_request_with(json!({}))).await;
        let session_id = text(&session["sessionId"]);
        let turn_id = stage.start_turn(&session, SPAWN).await;
        let request = pending_request(&stage.daemon, &session_id).await;
        assert_eq!(request["sessionId"], session["sessionId"], "{version}");
        assert_ne!(request["threadId"], session["threadId"], "the thread is that of the sub-agent");
        assert_ne!(request["turnId"], turn_id);
        assert_eq!(
            (&request["rootThreadId"], &request["rootTurnId"]),
            (&session["threadId"], &json!(turn_id))
        );
        let view = get(&stage.daemon, &format!("{SESSIONS}/{session_id}")).await;
        assert_eq!(view.data(200)["requests"], json!([request]));
        decide(&stage.daemon, &request["requestId"], "accept").await;
        let is_sub_agent_end = |event: &Value| {
            event["type"] == "app-server.turn.completed" && event["detail"]["turnId"] == request["turnId"]
        };
        wait_for_event(&stage.daemon, "the end of the sub-agent", is_sub_agent_end).await;
        assert!(has_run(&stage.home));
        let events = events_of(&stage.daemon, &session_id).await;
        let end = events
            .iter()
            .find(|event| is_sub_agent_end(event))
            .expect("a stream of the session contains the end");
        assert_eq!(end["detail"]["threadId"], request["threadId"]);
        assert_eq!(end["detail"]["rootThreadId"], session["threadId"]);
        for event_type in ["request.opened", "request.resolved"] {
            assert!(events.iter().any(|event| event["type"] == event_type), "{version}: {event_type}");
        }
        let turn = finished_turn(&stage.daemon, &session_id, &turn_id).await;
        assert_eq!(turn["text"], "spawned one", "the text of a sub-agent is not the text of the turn");
        stage.stop().await;
    }
}

#[tokio::test]
async fn session_request_policy_applies_to_sub_agents() {
    for version in versions() {
        let mut stage = start_stage(version).await;
        for (policy, resolved_by) in
            [(json!({ "requests": "decline" }), "policy"), (json!({ "requestTimeoutSeconds": 1 }), "timeout")]
        {
            let session = stage.session(&on_request_with(policy)).await;
            stage.start_turn(&session, SPAWN).await;
            let session_id = &session["sessionId"];
            let opened = wait_for_event(&stage.daemon, "the request", |event| {
                event["type"] == "request.opened" && event["detail"]["sessionId"] == *session_id
            })
            .await;
            let resolved = resolved_request(&stage.daemon, &opened["detail"]["requestId"]).await;
            assert_eq!(
                (&resolved["resolvedBy"], &resolved["decision"]),
                (&json!(resolved_by), &json!("decline"))
            );
            assert!(!has_run(&stage.home), "{version}, {resolved_by}");
        }
        stage.stop().await;
    }
}

#[tokio::test]
async fn interrupt_and_close_end_sub_agents() {
    if !runs_long() {
        return;
    }
    for version in versions() {
        let mut stage = start_stage(version).await;
        for (prompt, closes) in
            [(SPAWN_AND_HANG, false), (SPAWN, false), (SPAWN_AND_HANG, true), (SPAWN, true)]
        {
            let session = stage.session(&on_request_with(json!({}))).await;
            let session_id = text(&session["sessionId"]);
            let turn_id = stage.start_turn(&session, prompt).await;
            let request = pending_request(&stage.daemon, &session_id).await;
            if prompt == SPAWN {
                finished_turn(&stage.daemon, &session_id, &turn_id).await;
            }
            if closes {
                let path = format!("{SESSIONS}/{session_id}");
                delete(&stage.daemon, &path).await.error(409, "turn_in_progress");
                delete(&stage.daemon, &format!("{path}?interrupt=true")).await.data(200);
            } else {
                interrupt(&stage.daemon, &session_id).await.data(202);
            }
            let resolved = resolved_request(&stage.daemon, &request["requestId"]).await;
            assert_eq!(resolved["decision"], Value::Null, "{version}, {prompt}: {resolved}");
            let ended = wait_for_event(&stage.daemon, "the end of the sub-agent", |event| {
                event["type"] == "app-server.turn.completed" && event["detail"]["turnId"] == request["turnId"]
            })
            .await;
            assert_eq!(ended["detail"]["status"], "interrupted");
            assert!(!has_run(&stage.home), "{version}, {prompt}");
        }
        stage.stop().await;
    }
}

#[tokio::test]
async fn sub_agents_are_kept_across_restart() {
    if !runs_long() {
        return;
    }
    for lost in ["", "records.json"] {
        let mut stage = start_stage("0.171.0").await;
        let session = stage.session(&on_request_with(json!({}))).await;
        let session_id = text(&session["sessionId"]);
        stage.start_turn(&session, SPAWN).await;
        let request = pending_request(&stage.daemon, &session_id).await;
        stage.stop().await;
        if !lost.is_empty() {
            std::fs::remove_file(stage.daemon.state_dir().join(lost)).unwrap();
        }
        let mut daemon = Daemon::builder().real(&stage.home).state_from(&stage.daemon).start().await;
        let listed = requests(&daemon, &session_id).await;
        assert_eq!((listed.len(), &listed[0]["requestId"]), (1, &request["requestId"]));
        assert_eq!(listed[0]["status"], "resolved");
        // A stop writes all records.
        assert!(daemon.stop().await.status.success());
        let records = std::fs::read_to_string(daemon.state_dir().join("records.json")).unwrap();
        let records: Value = serde_json::from_str(&records).unwrap();
        let known = &records["descendants"][request["threadId"].as_str().unwrap()];
        assert_eq!(
            known["parentThreadId"], session["threadId"],
            "without {lost:?}: {}",
            records["descendants"]
        );
    }
}

#[tokio::test]
async fn sub_agent_request_of_another_client_is_shown_and_not_decided() {
    let model = MockModel::start();
    let home = CodexHome::builder(&model).sub_agents().build();
    let server = AppServer::on_tcp(&home).await;
    let ours = Daemon::builder().external(&server.endpoint).start().await;
    let theirs = Daemon::builder().external(&server.endpoint).start().await;
    for daemon in [&ours, &theirs] {
        wait_for_child_status(daemon, "external").await;
    }
    let session = create_session(&theirs, &home, &on_request_with(json!({}))).await;
    let first = json!({ "sessionId": session["sessionId"], "input": "mock:text=[started]" });
    let first = text(&submit(&theirs, &first).await.data(202)["turnId"]);
    finished_turn(&theirs, &text(&session["sessionId"]), &first).await;
    let policy =
        json!({ "threadId": session["threadId"], "requests": "decline", "requestTimeoutSeconds": 1 });
    let watching = create_session(&ours, &home, &on_request_with(policy)).await;
    let turn = json!({ "sessionId": session["sessionId"], "input": SPAWN });
    submit(&theirs, &turn).await.data(202);
    let decided = pending_request(&theirs, &text(&session["sessionId"])).await;
    let shown = pending_request(&ours, &text(&watching["sessionId"])).await;
    assert_eq!((&shown["sessionId"], &shown["expiresAt"]), (&Value::Null, &Value::Null));
    assert_eq!(shown["rootThreadId"], session["threadId"]);
    decide(&theirs, &decided["requestId"], "accept").await;
    let resolved = resolved_request(&ours, &shown["requestId"]).await;
    assert_eq!((&resolved["resolvedBy"], &resolved["decision"]), (&json!("otherClient"), &Value::Null));
}
