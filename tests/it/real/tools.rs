//! Turns in which the model calls tools: commands, patches and plans.

use std::fs;

use serde_json::{Value, json};

use super::{Stage, Turn};
use crate::support::model::text_of_deltas;

#[tokio::test]
async fn shell_command_emits_output_and_exit_code() {
    let mut stage = Stage::start().await;
    let session = stage.session(&json!({})).await;
    // The app-server can miss output that arrives at once, so the command prints until the test has received some.
    let command = "until test -f received; do echo tick; sleep 0.02; done; echo end";
    let turn_id = stage.start_turn(&session, &format!("mock:shell=[{command}] mock:deltas=2")).await;
    let is_output =
        |event: &Value| event["detail"]["notificationMethod"] == "item/commandExecution/outputDelta";
    let mut events = stage.events.collect_until("output of the command", is_output).await;
    fs::write(stage.home.workspace().join("received"), "").unwrap();
    let mut rest = stage.rest_of(&turn_id).await.events;
    let is_end = |event: &Value| {
        let detail = &event["detail"];
        detail["notificationMethod"] == "item/completed"
            && detail["params"]["item"]["type"] == "commandExecution"
    };
    if !events.iter().chain(&rest).any(is_end) {
        // Codex 0.140.0 may report it after the end of the turn (measured).
        events.extend(stage.events.collect_until("the end of the command", is_end).await);
    }
    events.append(&mut rest);
    let turn = Turn { events };
    assert_eq!((turn.status(), turn.text()), ("completed", text_of_deltas(2)));
    let started = turn.items("item/started", "commandExecution");
    assert_eq!(started.len(), 1);
    assert!(started[0]["command"].as_str().unwrap().contains(command), "{started:?}");
    let output = turn.notifications("item/commandExecution/outputDelta");
    assert!(output.iter().all(|params| params["itemId"] == started[0]["id"]), "{output:?}");
    let completed = turn.items("item/completed", "commandExecution");
    assert_eq!(completed.len(), 1);
    assert_eq!((&completed[0]["status"], &completed[0]["exitCode"]), (&json!("completed"), &json!(0)));
    let output = completed[0]["aggregatedOutput"].as_str().unwrap();
    assert!(output.starts_with("tick\n") && output.ends_with("tick\nend\n"), "{output}");
    stage.stop().await;
}

#[tokio::test]
async fn patch_changes_workspace_and_emits_diff() {
    let mut stage = Stage::start().await;
    let session = stage.session(&json!({})).await;
    let turn = stage.turn(&session, "mock:patch=[new.txt] mock:deltas=1").await;
    assert_eq!(turn.status(), "completed");
    let text = fs::read_to_string(stage.home.workspace().join("new.txt")).unwrap();
    assert_eq!(text, "hello from mock-model\n");
    assert_eq!(turn.items("item/completed", "fileChange")[0]["status"], "completed");
    let diffs = turn.of("app-server.turn.diff.updated");
    let diff = diffs.last().unwrap()["detail"]["diff"].as_str().unwrap();
    assert!(diff.contains("+hello from mock-model"), "{diff}");
}

#[tokio::test]
async fn plan_tool_emits_plan_event() {
    let mut stage = Stage::start().await;
    let session = stage.session(&json!({})).await;
    let turn = stage.turn(&session, "mock:plan mock:deltas=1").await;
    assert_eq!(turn.status(), "completed");
    let plans = turn.of("app-server.turn.plan.updated");
    assert_eq!(plans.len(), 1);
    assert_eq!(plans[0]["detail"]["plan"].as_array().unwrap().len(), 2);
    assert_eq!(plans[0]["detail"]["threadId"], session["threadId"]);
}
