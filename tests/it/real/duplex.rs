//! Two-way communication with the real app-server: approvals, interrupts, waits for turns, forks, and old turns.

use std::fs;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};

use super::{Stage, submit};
use crate::api::{SESSIONS, TURN, text, wait_for_child_status};
use crate::duplex::{
    answer, current_request, decide, delete, finished_turn, interrupt, item, pending_request, requests,
    resolved_request,
};
use crate::support::http::{get, post};
use crate::support::model::text_of_deltas;
use crate::support::wait::wait_until;
use crate::support::websocket::EventStream;

const COMMAND: &str = "item/commandExecution/requestApproval";
const FILE: &str = "item/fileChange/requestApproval";

fn untrusted() -> Value {
    json!({ "approvalPolicy": "untrusted" })
}

impl Stage {
    /// Starts a turn that sends a server request; returns the turn ID and the request.
    async fn start_turn_with_request(&self, session: &Value, prompt: &str) -> (String, Value) {
        let turn_id = self.start_turn(session, prompt).await;
        let request = pending_request(&self.daemon, session["sessionId"].as_str().unwrap()).await;
        assert_eq!(request["turnId"], turn_id);
        assert_eq!(request["threadId"], session["threadId"]);
        (turn_id, request)
    }

    /// Waits until a turn has ended; returns it.
    async fn finished_turn(&self, session: &Value, turn_id: &str) -> Value {
        finished_turn(&self.daemon, session["sessionId"].as_str().unwrap(), turn_id).await
    }

    /// Whether the workspace contains a file of this name.
    fn has(&self, name: &str) -> bool {
        self.home.workspace().join(name).exists()
    }
}

#[tokio::test]
async fn command_approval_decision_is_applied() {
    let mut stage = Stage::start().await;
    let session = stage.session(&untrusted()).await;
    for (decision, is_executed, item_status, turn_status) in [
        ("accept", true, "completed", "completed"),
        ("decline", false, "declined", "completed"),
        ("cancel", false, "declined", "interrupted"),
    ] {
        let prompt = format!("mock:shell=[touch {decision}] mock:text=[after]");
        let (turn_id, request) = stage.start_turn_with_request(&session, &prompt).await;
        assert_eq!(request["method"], COMMAND);
        assert!(request["params"]["command"].as_str().unwrap().contains(&format!("touch {decision}")));
        assert!(!stage.has(decision), "the command ran before its approval");
        let resolved = decide(&stage.daemon, &request["requestId"], decision).await;
        assert_eq!((&resolved["resolvedBy"], &resolved["decision"]), (&json!("client"), &json!(decision)));
        let turn = stage.finished_turn(&session, &turn_id).await;
        assert_eq!(turn["status"], turn_status, "{decision}");
        assert_eq!(item(&turn, "commandExecution")["status"], item_status, "{decision}");
        assert_eq!(stage.has(decision), is_executed, "{decision}");
        if turn_status == "completed" {
            assert_eq!(turn["text"], "after", "{decision}");
        }
        assert_eq!(current_request(&stage.daemon, &request["requestId"]).await, resolved);
    }
    stage.stop().await;
}

#[tokio::test]
async fn patch_approval_decision_is_applied() {
    let mut stage = Stage::start().await;
    let settings = json!({ "approvalPolicy": "untrusted", "sandbox": "read-only" });
    let session = stage.session(&settings).await;
    for (decision, is_executed, item_status, turn_status) in [
        ("decline", false, "declined", "completed"),
        ("cancel", false, "", "interrupted"),
        ("accept", true, "completed", "completed"),
    ] {
        let prompt = format!("mock:patch=[{decision}.txt] mock:deltas=1");
        let (turn_id, request) = stage.start_turn_with_request(&session, &prompt).await;
        assert_eq!(request["method"], FILE);
        decide(&stage.daemon, &request["requestId"], decision).await;
        let turn = stage.finished_turn(&session, &turn_id).await;
        assert_eq!(turn["status"], turn_status, "{decision}");
        // The app-server does not notify the end of a patch whose turn was cancelled with it (0.169.0).
        if !item_status.is_empty() {
            assert_eq!(item(&turn, "fileChange")["status"], item_status, "{decision}");
        }
        assert_eq!(stage.has(&format!("{decision}.txt")), is_executed, "{decision}");
    }
    stage.stop().await;
}

#[tokio::test]
async fn command_outside_sandbox_requests_approval() {
    let stage = Stage::start().await;
    let settings = json!({ "approvalPolicy": "on-request", "sandbox": "read-only" });
    let session = stage.session(&settings).await;
    let mut client = EventStream::connect(&stage.daemon).await;
    client.hello().await;
    let (turn_id, request) =
        stage.start_turn_with_request(&session, "mock:escalate=[touch outside] mock:deltas=1").await;
    assert_eq!(request["method"], COMMAND);
    assert!(request["params"]["reason"].is_string(), "{request}");
    let message = json!({ "type": "respond", "requestId": request["requestId"], "decision": "accept" });
    let response = client.ask(&message).await;
    assert_eq!(
        (&response["type"], &response["request"]["decision"]),
        (&json!("responded"), &json!("accept"))
    );
    let again = client.ask(&message).await;
    assert_eq!((&again["type"], &again["error"]), (&json!("error"), &json!("already_resolved")));
    assert_eq!(stage.finished_turn(&session, &turn_id).await["status"], "completed");
    assert!(stage.has("outside"));
}

#[tokio::test]
async fn unanswered_approval_is_declined_and_turn_continues() {
    let stage = Stage::start().await;
    for (field, value, by) in
        [("requestTimeoutSeconds", json!(1), "timeout"), ("requests", json!("decline"), "policy")]
    {
        let session = stage.session(&json!({ "approvalPolicy": "untrusted", field: value })).await;
        let turn_id = stage.start_turn(&session, "mock:shell=[touch forbidden] mock:deltas=2").await;
        let turn = stage.finished_turn(&session, &turn_id).await;
        assert_eq!((&turn["status"], &turn["text"]), (&json!("completed"), &json!(text_of_deltas(2))));
        assert_eq!(item(&turn, "commandExecution")["status"], "declined");
        let requests = requests(&stage.daemon, session["sessionId"].as_str().unwrap()).await;
        assert_eq!(requests.len(), 1);
        assert_eq!((&requests[0]["resolvedBy"], &requests[0]["decision"]), (&json!(by), &json!("decline")));
        assert!(!stage.has("forbidden"));
    }
}

#[tokio::test]
async fn server_request_ends_with_its_turn_and_its_app_server() {
    let stage = Stage::start().await;
    let session = stage.session(&untrusted()).await;
    let session_id = text(&session["sessionId"]);
    let (turn_id, request) = stage.start_turn_with_request(&session, "mock:shell=[touch forbidden]").await;
    let interrupted = interrupt(&stage.daemon, &session_id).await;
    assert_eq!(interrupted.data(202)["interrupted"], true, "{}", interrupted.text);
    let request = resolved_request(&stage.daemon, &request["requestId"]).await;
    let by = text(&request["resolvedBy"]);
    assert!(["appServer", "turnEnd"].contains(&by.as_str()), "{request}");
    assert_eq!(stage.finished_turn(&session, &turn_id).await["status"], "interrupted");

    let (_, request) = stage.start_turn_with_request(&session, "mock:shell=[touch forbidden]").await;
    let pid = wait_for_child_status(&stage.daemon, "running").await["pid"].as_i64().unwrap();
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
    let request = resolved_request(&stage.daemon, &request["requestId"]).await;
    assert_eq!(request["resolvedBy"], "connectionClosed");
    let late = answer(&stage.daemon, &request["requestId"], &json!({ "decision": "accept" })).await;
    late.error(409, "already_resolved");
    assert!(!stage.has("forbidden"));
}

#[tokio::test]
async fn interrupt_ends_running_command() {
    let mut stage = Stage::start().await;
    let session = stage.session(&json!({})).await;
    let turn_id =
        stage.start_turn(&session, "mock:shell=[echo $$ > partial; mv partial pid; exec sleep 600]").await;
    let file = stage.home.workspace().join("pid");
    let pid: i32 =
        wait_until("the PID of the command", || fs::read_to_string(&file).ok()?.trim().parse().ok()).await;
    let pid = Pid::from_raw(pid).unwrap();
    assert!(test_kill_process(pid).is_ok());
    let answer = interrupt(&stage.daemon, session["sessionId"].as_str().unwrap()).await;
    let data = answer.data(202);
    assert_eq!(
        (&data["interrupted"], &data["commandsEnded"]),
        (&json!(true), &json!(true)),
        "{}",
        answer.text
    );
    assert_eq!(data["turn"]["turnId"], turn_id);
    wait_until("the end of the command", || test_kill_process(pid).is_err().then_some(())).await;
    assert_eq!(stage.turn(&session, "mock:deltas=1").await.status(), "completed");
    stage.stop().await;
}

#[tokio::test]
async fn turn_request_with_wait_returns_finished_turn() {
    let stage = Stage::start().await;
    let session = stage.session(&json!({})).await;
    let body = json!({ "sessionId": session["sessionId"], "input": "mock:text=[the whole answer]" });
    let answer = post(&stage.daemon, &format!("{TURN}?wait=30"), &body).await;
    let turn = &answer.data(202)["turn"];
    assert_eq!((&turn["status"], &turn["text"]), (&json!("completed"), &json!("the whole answer")));
    assert!(turn["tokenUsage"].is_object(), "{turn}");
    assert_eq!(item(turn, "userMessage")["words"], "mock:text=[the whole answer]");
    assert_eq!(item(turn, "agentMessage")["words"], "the whole answer");
}

#[tokio::test]
async fn fork_includes_earlier_turns() {
    let mut stage = Stage::start().await;
    let session = stage.session(&json!({})).await;
    let turn = stage.turn(&session, "remember the grey heron mock:text=[noted]").await;
    assert_eq!(turn.status(), "completed");
    let fork = stage.session(&json!({ "forkFrom": session["sessionId"] })).await;
    assert_ne!(fork["threadId"], session["threadId"]);
    assert_eq!(fork["lastTurnStatus"], "completed");
    assert_eq!(stage.turn(&fork, "which bird was it mock:deltas=1").await.status(), "completed");
    let request = stage.model.requests().pop().unwrap().to_string();
    assert!(request.contains("remember the grey heron") && request.contains("noted"), "{request}");
    let closed = delete(&stage.daemon, &format!("{SESSIONS}/{}", text(&fork["sessionId"]))).await;
    assert_eq!(closed.data(200)["session"]["status"], "closed");
    let body = json!({ "sessionId": fork["sessionId"], "input": "mock:deltas=1" });
    submit(&stage.daemon, &body).await.error(409, "session_not_active");
    assert_eq!(
        stage.turn(&session, "mock:deltas=1").await.status(),
        "completed",
        "the source of the fork still works"
    );
}

#[tokio::test]
async fn model_list_matches_app_server() {
    let stage = Stage::start().await;
    let answer = get(&stage.daemon, "/v1/codexd/models").await;
    let models = answer.data(200)["models"].as_array().unwrap();
    assert!(!models.is_empty());
    assert!(models.iter().all(|model| model["id"].is_string()), "{models:?}");
}

#[tokio::test]
async fn older_turns_are_read_from_thread_after_restart() {
    let mut stage = Stage::start().await;
    let session = stage.session(&json!({})).await;
    let mut turn_ids = Vec::new();
    for number in 0..22 {
        let turn_id = stage.start_turn(&session, &format!("mock:text=[answer {number}]")).await;
        assert_eq!(stage.finished_turn(&session, &turn_id).await["status"], "completed");
        turn_ids.push(turn_id);
    }
    stage.stop().await;
    let mut stage = stage.restart().await;
    // The records no longer have the first two turns, and no turn of the new session on the thread.
    let resumed = stage.session(&json!({ "threadId": session["threadId"] })).await;
    for session in [&session, &resumed] {
        for number in [0, 1, 2, 21] {
            let turn = stage.finished_turn(session, &turn_ids[number]).await;
            assert_eq!(
                (&turn["turnId"], &turn["sessionId"]),
                (&json!(turn_ids[number]), &session["sessionId"])
            );
            assert_eq!(
                (&turn["status"], &turn["text"]),
                (&json!("completed"), &json!(format!("answer {number}")))
            );
            assert!(turn["startedAt"].as_str() <= turn["completedAt"].as_str(), "{turn}");
            assert_eq!(item(&turn, "agentMessage")["words"], format!("answer {number}"));
        }
    }
    stage.stop().await;
}
