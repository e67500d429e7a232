//! Restarts of the real app-server that a client requests: as the child of codexd, shared, and external.

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};

use super::app_server::AppServer;
use super::{Stage, create_session, submit};
use crate::api::{wait_for_event_type, wait_until_ready};
use crate::support::codex::CodexHome;
use crate::support::daemon::{Daemon, DaemonBuilder};
use crate::support::http::{get, post};
use crate::support::model::{MockModel, text_of_deltas};
use crate::support::wait::{wait_until, wait_until_async};

const RESTART: &str = "/v1/codexd/app-server/restart";
/// A turn of about six seconds.
const SLOW_TURN: &str = "mock:deltas=20 mock:delay=300";

async fn app_server(daemon: &Daemon) -> Value {
    get(daemon, "/v1/codexd/app-server").await.data(200)["appServer"].clone()
}

/// Waits until the app-server is connected in this generation; returns its PID.
async fn generation(daemon: &Daemon, number: u64) -> i32 {
    let pid = wait_until_async(&format!("generation {number}"), async || {
        let shown = app_server(daemon).await;
        (shown["generation"] == number && shown["status"] == "running" && !shown["version"].is_null())
            .then(|| shown["pid"].as_i64().unwrap())
    })
    .await;
    i32::try_from(pid).unwrap()
}

fn is_running(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    test_kill_process(Pid::from_raw(pid).unwrap()).is_ok() && !stat.contains(") Z ")
}

fn count(daemon: &Daemon, event_type: &str) -> usize {
    daemon.events_on_disk().iter().filter(|event| event["type"] == event_type).count()
}

fn shared(home: &CodexHome) -> DaemonBuilder {
    Daemon::builder().real(home).arg("--server-strategy").arg("shared")
}

async fn start_turn(daemon: &Daemon, session: &Value, prompt: &str) -> String {
    let body = json!({ "sessionId": session["sessionId"], "input": prompt });
    submit(daemon, &body).await.data(202)["turnId"].as_str().unwrap().to_owned()
}

async fn turn_when_over(daemon: &Daemon, session: &Value, turn_id: &str) -> Value {
    let session_id = session["sessionId"].as_str().unwrap();
    let path = format!("/v1/codexd/sessions/{session_id}/turns/{turn_id}?wait=30");
    get(daemon, &path).await.data(200)["turn"].clone()
}

/// Asserts that the failures of the app-server are not counted, and that nothing was cut off.
async fn assert_no_failure(daemon: &Daemon) {
    let child = get(daemon, "/v1/codexd/status").await.data(200)["snapshot"]["daemon"]["child"].clone();
    assert_eq!((&child["deaths"], &child["lastError"]), (&json!(0), &Value::Null));
    for event_type in ["child.backoff", "app-server.turn.completed.missing", "app-server.connect.failed"] {
        assert_eq!(count(daemon, event_type), 0, "{event_type}");
    }
}

#[tokio::test]
async fn restart_of_child_waits_for_turn_and_approval_and_queue_continues() {
    let mut stage = Stage::start_with(|home| Daemon::builder().real(home)).await;
    let settings = json!({ "approvalPolicy": "on-request", "sandbox": "read-only" });
    let (asking, queueing) = (stage.session(&settings).await, stage.session(&json!({})).await);
    let before = generation(&stage.daemon, 1).await;
    let asked = stage.start_turn(&asking, "mock:escalate=[true]").await;
    let opened = wait_for_event_type(&stage.daemon, "request.opened").await;
    let running = stage.start_turn(&queueing, SLOW_TURN).await;
    let queued = json!({ "sessionId": queueing["sessionId"], "input": "mock:deltas=2", "whenBusy": "queue" });
    submit(&stage.daemon, &queued).await.data(202);
    let answer = post(&stage.daemon, RESTART, &json!({ "drainSeconds": 60 })).await;
    let restart = &answer.data(202)["restart"];
    assert_eq!(restart["state"], "draining");
    assert_eq!(
        (restart["turns"].as_array().unwrap().len(), &restart["requests"]),
        (2, &json!([opened["detail"]["request"]["requestId"]]))
    );
    let turn = turn_when_over(&stage.daemon, &queueing, &running).await;
    assert_eq!((&turn["status"], &turn["text"]), (&json!("completed"), &json!(text_of_deltas(20))));
    assert!(is_running(before), "the approval still waits");
    let path = format!("/v1/codexd/requests/{}", opened["detail"]["request"]["requestId"].as_str().unwrap());
    post(&stage.daemon, &path, &json!({ "decision": "accept" })).await.data(200);
    assert_eq!(turn_when_over(&stage.daemon, &asking, &asked).await["status"], "completed");
    assert_ne!(generation(&stage.daemon, 2).await, before);
    wait_until("the queued turn", || (count(&stage.daemon, "app-server.turn.completed") == 3).then_some(()))
        .await;
    assert_no_failure(&stage.daemon).await;
    assert_eq!(stage.turn(&asking, "mock:deltas=2").await.status(), "completed");
    stage.stop().await;
}

#[tokio::test]
async fn restart_of_shared_server_that_codexd_started_is_allowed_to_later_daemons() {
    let model = MockModel::start();
    let home = CodexHome::new(&model);
    let mut first = shared(&home).start().await;
    let server = generation(&first, 1).await;
    let session = create_session(&first, &home, &json!({})).await;
    assert!(first.stop().await.status.success());
    let second = shared(&home).state_from(&first).start().await;
    assert_eq!(generation(&second, 1).await, server);
    let turn_id = start_turn(&second, &session, SLOW_TURN).await;
    let answer = post(&second, RESTART, &json!({ "drainSeconds": 60 })).await;
    assert_eq!(answer.data(202)["restart"]["turns"][0]["turnId"], json!(turn_id));
    let turn = turn_when_over(&second, &session, &turn_id).await;
    assert_eq!((&turn["status"], &turn["text"]), (&json!("completed"), &json!(text_of_deltas(20))));
    assert_ne!(generation(&second, 2).await, server);
    assert!(!is_running(server));
    assert_no_failure(&second).await;
    let turn_id = start_turn(&second, &session, "mock:deltas=2").await;
    assert_eq!(turn_when_over(&second, &session, &turn_id).await["status"], "completed");
}

#[tokio::test]
async fn restart_of_shared_server_leaves_turns_of_other_clients_until_it_is_forced() {
    let model = MockModel::start();
    let home = CodexHome::builder(&model).approval_policy("on-request").sandbox_mode("read-only").build();
    let one = shared(&home).start().await;
    let server = generation(&one, 1).await;
    let other = shared(&home).start().await;
    generation(&other, 1).await;
    // The thread of the other client waits for an approval that this daemon does not know.
    let session = create_session(&other, &home, &json!({})).await;
    let turn_id = start_turn(&other, &session, "mock:escalate=[true]").await;
    wait_for_event_type(&other, "request.opened").await;
    post(&other, RESTART, &json!({})).await.error(409, "not_ours");
    post(&one, RESTART, &json!({})).await.data(202);
    let waiting = wait_for_event_type(&one, "app-server.restart.waiting").await;
    assert_eq!(waiting["detail"]["isEnding"], true, "{waiting}");
    assert!(is_running(server), "one SIGTERM ended the turn of another client");
    let note = app_server(&one).await["notes"].clone();
    assert!(note.to_string().contains("--force"), "{note}");
    post(&one, RESTART, &json!({ "drainSeconds": 0, "force": true })).await.data(202);
    assert_ne!(generation(&one, 2).await, server);
    assert!(!is_running(server));
    assert_no_failure(&one).await;
    let turn = turn_when_over(&other, &session, &turn_id).await;
    assert_eq!(turn["status"], "interrupted", "{turn:#}");
}

#[tokio::test]
async fn app_server_of_another_program_is_not_restarted() {
    let model = MockModel::start();
    let home = CodexHome::new(&model);
    let mut server = AppServer::on_control_socket(&home).await;
    let joined = shared(&home).start().await;
    let pid = generation(&joined, 1).await;
    let refused = post(&joined, RESTART, &json!({ "force": true })).await;
    refused.error(409, "not_ours");
    assert!(refused.json["message"].as_str().unwrap().contains(&format!("kill {pid}")), "{}", refused.json);
    let external = Daemon::builder().external("unix://").env("CODEX_HOME", home.path()).start().await;
    wait_until_external(&external).await;
    post(&external, RESTART, &json!({})).await.error(409, "not_ours");
    server.assert_alive();
    // Where it has ended, codexd starts one, which is its own.
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    server.kill();
    let next = wait_until_async("the next app-server", async || {
        let shown = app_server(&joined).await;
        (shown["status"] == "running" && shown["pid"] != pid && !shown["version"].is_null())
            .then(|| shown["generation"].as_u64().unwrap())
    })
    .await;
    post(&joined, RESTART, &json!({})).await.data(202);
    generation(&joined, next + 1).await;
}

async fn wait_until_external(daemon: &Daemon) {
    wait_until_async("a connection", async || {
        let shown = app_server(daemon).await;
        (shown["status"] == "external" && !shown["version"].is_null()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn installed_codex_is_started_by_a_restart() {
    use std::os::unix::fs::symlink;

    use crate::support::codex::{DEFAULT_VERSION, codex_version, versions};

    // With the long tests, the one before the default is replaced by the default.
    let old = versions().last().unwrap();
    let model = MockModel::start();
    let home = CodexHome::new(&model);
    let link = home.user_home().join("codex");
    symlink(&codex_version(old).launcher, &link).unwrap();
    let daemon = Daemon::builder().real_version(&home, old).server(&link, &["app-server"]).start().await;
    wait_until_ready(&daemon).await;
    let shown = app_server(&daemon).await;
    assert_eq!((&shown["version"], &shown["installedVersion"]), (&json!(old), &json!(old)));
    std::fs::remove_file(&link).unwrap();
    symlink(&codex_version(DEFAULT_VERSION).native, &link).unwrap();
    assert_eq!(app_server(&daemon).await["installedVersion"], DEFAULT_VERSION);
    post(&daemon, RESTART, &json!({})).await.data(202);
    generation(&daemon, 2).await;
    assert_eq!(app_server(&daemon).await["version"], DEFAULT_VERSION);
}
