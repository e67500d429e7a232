//! The real Codex accepts the responses of the offline model, for every marker.

use std::fs;

use super::app_server::{AppServer, Turn};
use crate::support::codex::{CodexHome, codex, codex_version};
use crate::support::model::{MockModel, text_of_deltas};
use crate::support::wait::wait_until;

/// Runs one turn with a new model and a new app-server.
async fn turn(prompt: &str) -> (Turn, CodexHome, MockModel) {
    let model = MockModel::start();
    let home = CodexHome::new(&model);
    let mut app_server = AppServer::start(&home).await;
    let turn = app_server.turn(&home, prompt).await;
    app_server.stop().await;
    (turn, home, model)
}

fn final_text(turn: &Turn) -> String {
    let messages = turn.items("agentMessage");
    messages.last().and_then(|item| item["text"].as_str()).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn deltas_marker_streams_deltas_of_the_text() {
    let (turn, _home, model) = turn("answer mock:deltas=4 mock:delay=1").await;
    assert_eq!(turn.status, "completed");
    let deltas = turn.of("item/agentMessage/delta");
    assert_eq!(deltas.len(), 4);
    let text: String = deltas.iter().filter_map(|params| params["delta"].as_str()).collect();
    assert_eq!(text, text_of_deltas(4));
    assert_eq!(final_text(&turn), text);
    let requests = model.requests();
    assert_eq!(requests.len(), 1);
    assert!(requests[0].to_string().contains("answer mock:deltas=4"), "{requests:?}");
}

#[tokio::test]
async fn text_marker_returns_exact_text() {
    let (turn, _home, _model) = turn("mock:text=[the answer is 42]").await;
    assert_eq!(final_text(&turn), "the answer is 42");
}

#[tokio::test]
async fn shell_marker_runs_command_before_text() {
    let (turn, _home, model) = turn("mock:shell=[echo hi] mock:deltas=1").await;
    assert_eq!(turn.status, "completed");
    let commands = turn.items("commandExecution");
    assert_eq!(commands.len(), 1);
    assert_eq!((&commands[0]["aggregatedOutput"], &commands[0]["exitCode"]), (&"hi\n".into(), &0.into()));
    assert_eq!(final_text(&turn), text_of_deltas(1));
    assert_eq!(model.requests().len(), 2);
}

#[tokio::test]
async fn escalate_marker_requests_approval() {
    let model = MockModel::start();
    let home = CodexHome::builder(&model).approval_policy("on-request").sandbox_mode("read-only").build();
    let mut app_server = AppServer::start(&home).await;
    let turn = app_server.turn(&home, "mock:escalate=[touch here] mock:deltas=1").await;
    assert_eq!(turn.of("item/commandExecution/requestApproval").len(), 1);
    assert_eq!(turn.status, "completed");
    assert!(home.workspace().join("here").is_file());
}

#[tokio::test]
async fn patch_marker_adds_its_file() {
    let (turn, home, _model) = turn("mock:patch=[new.txt] mock:deltas=1").await;
    assert_eq!(turn.status, "completed");
    assert_eq!(fs::read_to_string(home.workspace().join("new.txt")).unwrap(), "hello from mock-model\n");
}

#[tokio::test]
async fn plan_and_reasoning_markers_emit_items() {
    let (turn, _home, _model) = turn("mock:plan mock:reasoning mock:deltas=1").await;
    assert_eq!(turn.status, "completed");
    assert_eq!(turn.of("turn/plan/updated").len(), 1);
    assert_eq!(turn.items("reasoning").len(), 1);
}

#[tokio::test]
async fn failure_markers_fail_the_turn() {
    for (prompt, requests) in
        [("mock:fail", 4), ("mock:fail=400", 1), ("mock:failed", 2), ("mock:cut mock:deltas=4", 2)]
    {
        let (turn, _home, model) = turn(prompt).await;
        assert_eq!(turn.status, "failed", "{prompt}");
        assert_eq!(model.requests().len(), requests, "{prompt}");
    }
}

#[tokio::test]
async fn codex_home_sets_number_of_retries() {
    let model = MockModel::start();
    let home = CodexHome::builder(&model).retries(0).build();
    let mut app_server = AppServer::start(&home).await;
    assert_eq!(app_server.turn(&home, "mock:fail").await.status, "failed");
    assert_eq!(model.requests().len(), 1);
}

#[tokio::test]
async fn silent_model_does_not_block_shutdown() {
    for prompt in ["mock:hang", "mock:mute"] {
        let model = MockModel::start();
        let home = CodexHome::new(&model);
        let mut app_server = AppServer::start(&home).await;
        app_server.start_turn(&home, prompt).await;
        wait_until("the request to the model", || (model.requests().len() == 1).then_some(())).await;
        // Each end can stop while the other one waits.
        drop(model);
        app_server.stop().await;
    }
}

#[test]
fn codex_launcher_reports_pinned_version() {
    for codex in [codex(), codex_version("0.169.0")] {
        let version = std::process::Command::new(&codex.launcher).arg("--version").output().unwrap();
        assert_eq!(String::from_utf8_lossy(&version.stdout), format!("codex-cli {}\n", codex.version));
    }
}
