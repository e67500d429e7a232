//! `codexd start --demo`: sessions and turns of the demo app-server, over HTTP and with the commands.

use std::fs;

use serde_json::{Value, json};

use crate::api::{
    STATUS, request_turn, run_command, session_record, start_turn, text, wait_for_event, wait_for_event_type,
    wait_for_turn_end, wait_until_idle, wait_until_ready,
};
use crate::cli::command;
use crate::duplex::{
    decide, finished_turn, interrupt, item, pending_request, resolved_request, session_with,
};
use crate::sessions::ask_with;
use crate::support::daemon::Daemon;
use crate::support::http::{Target, get};
use crate::support::scratch;
use crate::support::wait::wait_until_async;

/// Starts a daemon with the demo app-server and waits until it is ready.
async fn start_demo() -> Daemon {
    let daemon = Daemon::builder().demo().start().await;
    wait_until_ready(&daemon).await;
    daemon
}

/// Runs the tour of the demo and answers its approval with this decision; returns the finished turn.
async fn run_tour(daemon: &Daemon, session_id: &str, decision: &str) -> Value {
    let turn_id = start_turn(daemon, session_id, "What can you do?").await;
    let request = pending_request(daemon, session_id).await;
    assert_eq!(request["method"], "item/commandExecution/requestApproval");
    decide(daemon, &request["requestId"], decision).await;
    resolved_request(daemon, &request["requestId"]).await;
    finished_turn(daemon, session_id, &turn_id).await
}

/// The text of a finished turn.
fn message(turn: &Value) -> &str {
    turn["text"].as_str().unwrap_or_else(|| panic!("no text in {turn:#}"))
}

#[tokio::test]
async fn demo_tour_applies_decision_and_changes_no_files() {
    let (daemon, directory) = (start_demo().await, scratch::directory("demo"));
    let session_id = session_with(&daemon, json!({ "cwd": directory.path() })).await;
    for (decision, status, outcome) in
        [("accept", "completed", "*approved*"), ("decline", "declined", "*declined*")]
    {
        let turn = run_tour(&daemon, &session_id, decision).await;
        assert_eq!(
            (&turn["status"], &item(&turn, "commandExecution")["status"]),
            (&json!("completed"), &json!(status))
        );
        assert!(item(&turn, "fileChange")["changes"].to_string().contains("demo.txt"));
        item(&turn, "reasoning");
        let message = message(&turn);
        for part in ["# The demo of codexd", "> What can you do?", outcome, "| `hello` |", "```sh"] {
            assert!(message.contains(part), "no {part:?} in {message}");
        }
    }
    wait_for_event_type(&daemon, "app-server.turn.plan.updated").await;
    wait_for_event_type(&daemon, "app-server.turn.diff.updated").await;
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "the demo wrote into the directory");
}

#[tokio::test]
async fn demo_turn_supports_steering_queueing_and_interrupt() {
    let daemon = start_demo().await;
    let session_id = session_with(&daemon, json!({})).await;
    let first = start_turn(&daemon, &session_id, "long").await;
    wait_for_event_type(&daemon, "app-server.turn.message.delta").await;
    ask_with(&daemon, &session_id, "hello", json!({ "whenBusy": "queue" })).await.data(202);
    let steered = ask_with(&daemon, &session_id, "Be brief.", json!({ "whenBusy": "steer" })).await;
    assert_eq!(steered.data(202)["turnId"], first.as_str());
    let turn = finished_turn(&daemon, &session_id, &first).await;
    assert_eq!(message(&turn), "You added:\n\n> Be brief.\n");
    let queued = wait_until_async("the queued turn to end", async || {
        let record = session_record(&daemon, &session_id).await;
        let has_ended = record["lastTurnId"] != first.as_str() && record["currentTurnId"].is_null();
        has_ended.then(|| text(&record["lastTurnId"]))
    })
    .await;
    let after = finished_turn(&daemon, &session_id, &queued).await;
    assert_eq!(message(&after), "Hello! This is the demo of codexd, not Codex itself.");

    wait_until_idle(&daemon, &session_id).await;
    let long = request_turn(&daemon, &session_id, "long").await.data(202)["turnId"].clone();
    interrupt(&daemon, &session_id).await.data(202);
    assert_eq!(wait_for_turn_end(&daemon, &session_id, &long).await["lastTurnStatus"], "interrupted");

    let waiting = start_tour(&daemon, &session_id).await;
    interrupt(&daemon, &session_id).await.data(202);
    assert_eq!(wait_for_turn_end(&daemon, &session_id, &waiting).await["lastTurnStatus"], "interrupted");
}

/// Starts a tour and waits until it requests an approval; returns the turn ID.
async fn start_tour(daemon: &Daemon, session_id: &str) -> Value {
    let turn_id = start_turn(daemon, session_id, "tour").await;
    pending_request(daemon, session_id).await;
    json!(turn_id)
}

#[tokio::test]
async fn demo_session_continues_after_restart() {
    let mut before = start_demo().await;
    let session_id = session_with(&before, json!({})).await;
    let first = start_turn(&before, &session_id, "hello").await;
    finished_turn(&before, &session_id, &first).await;
    wait_until_idle(&before, &session_id).await;
    let unfinished = start_turn(&before, &session_id, "long").await;
    wait_for_event(&before, "a delta of the long answer", |event| {
        event["type"] == "app-server.turn.message.delta" && event["detail"]["turnId"] == unfinished.as_str()
    })
    .await;
    assert!(before.stop().await.status.success());

    let after = Daemon::builder().demo().state_from(&before).start().await;
    wait_until_ready(&after).await;
    wait_until_async("the end of the interrupted turn", async || {
        session_record(&after, &session_id).await["currentTurnId"].is_null().then_some(())
    })
    .await;
    let second = start_turn(&after, &session_id, "hello").await;
    assert_eq!(finished_turn(&after, &session_id, &second).await["status"], "completed");
    assert_eq!(finished_turn(&after, &session_id, &first).await["status"], "completed");
    assert_eq!(finished_turn(&after, &session_id, &unfinished).await["status"], "interrupted");
}

#[tokio::test]
async fn demo_is_labelled_and_keeps_separate_state() {
    let directory = scratch::directory("demo");
    let daemon = start_demo().await;
    let notice = daemon.stderr();
    assert!(
        notice.contains("This is the demo, not Codex") && notice.contains("codexd ask hello"),
        "{notice}"
    );
    let health = get(&daemon, "/healthz").await.json;
    assert_eq!(
        (&health["service"]["codex"]["demo"], &health["service"]["ready"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(health["service"]["codex"]["state"], "ready");
    let notes = get(&daemon, "/describe").await.json["notes"].to_string();
    assert!(notes.contains("This daemon is a demo"), "{notes}");
    let config = get(&daemon, STATUS).await.data(200)["snapshot"]["config"].clone();
    assert_eq!(config["server"]["endpoint"], "stdio://demo-app-server");
    let state = daemon.state_dir();
    assert_eq!(config["paths"]["stateDir"], state.to_str().unwrap());
    assert_eq!(config["paths"]["logsDir"], daemon.logs_dir().to_str().unwrap());
    let names: Vec<_> =
        fs::read_dir(state.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["demo"], "the demo wrote outside its own directory");

    let status = run_command(command(daemon.base_url(), directory.path(), &["status"])).await;
    assert!(status.stdout.contains("This is the demo, not Codex"), "{}", status.stdout);
    let answer = run_command(command(daemon.base_url(), directory.path(), &["ask", "hello"])).await;
    assert_eq!(
        (answer.code, answer.stdout.trim()),
        (Some(0), "Hello! This is the demo of codexd, not Codex itself.")
    );
    let resumed = run_command(command(daemon.base_url(), directory.path(), &["resume", "last"])).await;
    assert_eq!(resumed.code, Some(1));
    assert!(resumed.stderr.contains("This is the demo"), "{}", resumed.stderr);
    assert!(state.join("threads").is_dir());
    let plain = Daemon::builder().start().await;
    assert!(get(&plain, "/healthz").await.json["service"]["codex"].get("demo").is_none());
}

#[tokio::test]
async fn demo_threads_are_shown_named_listed_and_have_goals() {
    let (daemon, directory) = (start_demo().await, scratch::directory("demo"));
    let run = async |arguments: &[&str]| {
        let ended = run_command(command(daemon.base_url(), directory.path(), arguments)).await;
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
        ended.stdout
    };
    run(&["ask", "hello"]).await;
    run(&["rename", "hello", "A greeting"]).await;
    wait_for_event_type(&daemon, "session.updated").await;
    let shown = wait_until_async("the new title", async || {
        let shown = run(&["show"]).await;
        shown.starts_with("# A greeting\n").then_some(shown)
    })
    .await;
    assert!(shown.contains("\n\nhello\n\n## Codex\n\nHello! This is the demo"), "{shown}");
    assert!(run(&["threads", "greet"]).await.contains("A greeting"));
    assert_eq!(run(&["threads", "absent"]).await, "No threads.\n");
    assert_eq!(run(&["goal", "a greeting", "Be", "kind"]).await, "Be kind (active)\n");
    assert_eq!(run(&["goal", "last"]).await, "Be kind (active)\n");
    assert_eq!(run(&["goal", "last", "--clear"]).await, "The thread has no goal.\n");
    assert!(run(&["models"]).await.contains("Demo (default)"));
    assert_eq!(run(&["close", "--all"]).await, "Closed 1 session.\n");
    let refused = run_command(command(daemon.base_url(), directory.path(), &["fork", "A greeting"])).await;
    let reason =
        "codexd: The demo does not have the method thread/fork; start codexd without --demo to use Codex.\n";
    assert_eq!((refused.code, refused.stderr.as_str()), (Some(1), reason));
    let stopped = command(daemon.base_url(), directory.path(), &["stop", "--state-dir"])
        .arg(daemon.state_dir())
        .output();
    assert!(stopped.unwrap().status.success());
}

#[tokio::test]
async fn demo_starts_only_where_codex_cannot_be_used() {
    let no_arguments: [&str; 0] = [];
    let daemon = Daemon::builder().server("no-such-codex", &no_arguments).arg("--or-demo").start().await;
    assert_eq!(get(&daemon, "/healthz").await.json["service"]["codex"]["demo"], true);
    let stderr = daemon.stderr();
    assert!(
        stderr.contains("\"no-such-codex\" was not found") && stderr.contains("This is the demo"),
        "{stderr}"
    );

    let daemon = Daemon::builder().arg("--or-demo").start().await;
    let health = get(&daemon, "/healthz").await;
    assert!(health.json["service"]["codex"].get("demo").is_none(), "{}", health.text);
}
