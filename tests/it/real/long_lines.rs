//! Messages of the real app-server that are longer than `--line-cap`: codexd skips them, but identifies the request or
//! the item in them.

use serde_json::{Value, json};

use super::app_server::AppServer;
use super::{Stage, create_session, submit};
use crate::api::{text, wait_for_event};
use crate::duplex::{decide, finished_turn, item, pending_request};
use crate::support::codex::{CodexHome, versions};
use crate::support::daemon::Daemon;
use crate::support::model::{MockModel, text_of_deltas};

const CAP: &str = "--line-cap=60000";
const COMMAND: &str = "item/commandExecution/requestApproval";

fn on_request() -> Value {
    json!({ "approvalPolicy": "on-request", "sandbox": "read-only" })
}

/// A prompt for a command that needs an approval and is longer than the cap.
fn long_command() -> String {
    format!("mock:escalate=[: {}] mock:text=[after]", "x".repeat(70_000))
}

/// Waits for the event about a skipped message of this method.
async fn skipped_event(daemon: &Daemon, method: &str) -> Value {
    let what = format!("a skipped {method}");
    wait_for_event(daemon, &what, |event| {
        event["type"] == "app-server.message.invalid" && event["detail"]["method"] == method
    })
    .await
}

#[tokio::test]
async fn oversized_server_request_is_refused_and_recorded() {
    for version in versions() {
        let mut stage =
            Stage::start_with(|home| Daemon::builder().real_version(home, version).arg(CAP)).await;
        let session = stage.session(&on_request()).await;
        let turn_id = stage.start_turn(&session, &long_command()).await;
        let turn = finished_turn(&stage.daemon, &text(&session["sessionId"]), &turn_id).await;
        assert_eq!((&turn["status"], &turn["text"]), (&json!("completed"), &json!("after")), "{version}");
        let event = skipped_event(&stage.daemon, COMMAND).await;
        let detail = &event["detail"];
        assert_eq!((&detail["threadId"], &detail["turnId"]), (&session["threadId"], &json!(turn_id)));
        assert!(detail["itemId"].is_string() && detail["isRequest"] == true, "{event}");
        assert!(detail["bytes"].as_u64().unwrap() > 70_000, "{event}");
        let message = event["message"].as_str().unwrap();
        assert!(message.contains("--line-cap") && message.ends_with("the request is refused."), "{message}");
        let events = stage.daemon.events_on_disk();
        assert!(events.iter().all(|event| event["type"] != "request.opened"), "{version}");
        stage.stop().await;
    }
}

#[tokio::test]
async fn oversized_item_is_read_from_its_thread() {
    for version in versions() {
        let mut stage =
            Stage::start_with(|home| Daemon::builder().real_version(home, version).arg(CAP)).await;
        let session = stage.session(&json!({})).await;
        let session_id = text(&session["sessionId"]);
        let turn_id = stage.start_turn(&session, "mock:deltas=1 mock:chars=70000").await;
        let turn = finished_turn(&stage.daemon, &session_id, &turn_id).await;
        assert_eq!(turn["text"].as_str().map(str::len), Some(70_000), "{version}: {turn}");
        assert_eq!(item(&turn, "agentMessage")["type"], "agentMessage");
        skipped_event(&stage.daemon, "item/completed").await;
        let read = wait_for_event(&stage.daemon, "the item", |event| event["type"] == "turn.item.read").await;
        assert_eq!(
            (&read["detail"]["sessionId"], &read["detail"]["turnId"]),
            (&json!(session_id), &json!(turn_id))
        );
        assert_eq!(read["detail"]["item"]["text"].as_str().map(str::len), Some(70_000));
        // The record has the item after a restart too.
        let read_again = turn;
        stage.stop().await;
        let daemon = Daemon::builder().real(&stage.home).state_from(&stage.daemon).start().await;
        assert_eq!(finished_turn(&daemon, &session_id, &turn_id).await["text"], read_again["text"]);
    }
}

#[tokio::test]
async fn oversized_websocket_request_stays_pending_and_connection_open() {
    let model = MockModel::start();
    let home = CodexHome::new(&model);
    let server = AppServer::on_tcp(&home).await;
    let daemon = Daemon::builder().external(&server.endpoint).arg(CAP).start().await;
    let session = create_session(&daemon, &home, &on_request()).await;
    let session_id = text(&session["sessionId"]);
    let start = async |prompt: &str| {
        let answer = submit(&daemon, &json!({ "sessionId": session_id, "input": prompt })).await;
        text(&answer.data(202)["turnId"])
    };
    let turn_id = start(&format!("mock:deltas=1 mock:chars={}", 70_000)).await;
    let turn = finished_turn(&daemon, &session_id, &turn_id).await;
    assert_eq!(turn["text"].as_str().map(str::len), Some(70_000));

    let turn_id = start(&long_command()).await;
    let request = pending_request(&daemon, &session_id).await;
    assert_eq!(
        request["decisions"],
        json!(["decline"]),
        "a request whose content is unknown must not be accepted"
    );
    assert!(request["params"]["skippedBytes"].as_u64().unwrap() > 70_000, "{request}");
    decide(&daemon, &request["requestId"], "decline").await;
    let turn = finished_turn(&daemon, &session_id, &turn_id).await;
    assert_eq!((&turn["status"], &turn["text"]), (&json!("completed"), &json!("after")));
    let turn_id = start("mock:deltas=2").await;
    assert_eq!(finished_turn(&daemon, &session_id, &turn_id).await["text"], text_of_deltas(2));
    let events = daemon.events_on_disk();
    assert!(events.iter().all(|event| event["type"] != "app-server.transport.closed"));
}
