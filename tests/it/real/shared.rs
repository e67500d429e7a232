//! The shared app-server: codexd joins the one at Codex's control socket or starts it, and never ends it or its turns.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};

use super::app_server::AppServer;
use super::{create_session, record, submit};
use crate::duplex::pending_request;
use crate::support::codex::CodexHome;
use crate::support::daemon::{Daemon, DaemonBuilder};
use crate::support::http::{get, post};
use crate::support::model::{MockModel, text_of_deltas};
use crate::support::wait::{wait_until, wait_until_async};

/// A turn of about six seconds.
const SLOW_TURN: &str = "mock:deltas=20 mock:delay=300";

fn shared(home: &CodexHome) -> DaemonBuilder {
    Daemon::builder().real(home).arg("--server-strategy").arg("shared")
}

/// Waits until the daemon is connected; returns the PID of the app-server.
async fn server_of(daemon: &Daemon) -> i32 {
    wait_until_async("a connection to the shared app-server", async || {
        let status = get(daemon, "/v1/codexd/status").await;
        let child = &status.data(200)["snapshot"]["daemon"]["child"];
        assert_eq!(child["strategy"], "shared");
        let is_connected = child["state"] == "running";
        is_connected.then(|| i32::try_from(child["pid"].as_i64().unwrap()).unwrap())
    })
    .await
}

fn pid(pid: i32) -> Pid {
    Pid::from_raw(pid).unwrap()
}

fn is_running(server: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{server}/stat")).unwrap_or_default();
    test_kill_process(pid(server)).is_ok() && !stat.contains(") Z ")
}

async fn start_turn(daemon: &Daemon, session: &Value, prompt: &str) -> String {
    let body = json!({ "sessionId": session["sessionId"], "input": prompt });
    submit(daemon, &body).await.data(202)["turnId"].as_str().unwrap().to_owned()
}

/// Starts a turn and waits until its answer has begun: before that, Codex may not have written the beginning of the
/// thread, and an app-server that is terminated has no turn to finish.
async fn start_slow_turn(daemon: &Daemon, session: &Value) -> String {
    let turn_id = start_turn(daemon, session, SLOW_TURN).await;
    wait_until("an answer that has begun", || {
        (count(daemon, "app-server.turn.message.delta") > 0).then_some(())
    })
    .await;
    turn_id
}

/// The turn when it has ended.
async fn turn_when_over(daemon: &Daemon, session: &Value, turn_id: &str) -> Value {
    let session_id = session["sessionId"].as_str().unwrap();
    let path = format!("/v1/codexd/sessions/{session_id}/turns/{turn_id}?wait=30");
    get(daemon, &path).await.data(200)["turn"].clone()
}

/// Waits until Codex has written the end of a turn of this home.
async fn wait_for_end_on_disk(home: &CodexHome) {
    fn has_end(path: &Path) -> bool {
        if path.is_dir() {
            return fs::read_dir(path).unwrap().any(|entry| has_end(&entry.unwrap().path()));
        }
        fs::read_to_string(path).unwrap_or_default().contains("task_complete")
    }
    let sessions = home.path().join("sessions");
    wait_until("the end of the turn on disk", || (sessions.is_dir() && has_end(&sessions)).then_some(()))
        .await;
}

fn count(daemon: &Daemon, event_type: &str) -> usize {
    daemon.events_on_disk().iter().filter(|event| event["type"] == event_type).count()
}

#[tokio::test]
async fn shared_server_is_started_outlives_daemon_and_is_joined() {
    let model = MockModel::start();
    let home = CodexHome::new(&model);
    let mut first = shared(&home).start().await;
    let server = server_of(&first).await;
    let session = create_session(&first, &home, &json!({})).await;
    let turn_id = start_turn(&first, &session, "mock:deltas=3").await;
    assert_eq!(turn_when_over(&first, &session, &turn_id).await["text"], text_of_deltas(3));
    let listening = home.path().join("app-server-control/app-server-control.sock");
    assert!(fs::symlink_metadata(listening).is_ok());
    assert!(first.stop().await.status.success());
    assert!(is_running(server), "the stop of the daemon ended the shared app-server");
    assert_eq!(count(&first, "child.started"), 1);

    let second = shared(&home).state_from(&first).start().await;
    assert_eq!(server_of(&second).await, server);
    assert_eq!(count(&second, "child.started"), 1, "a second app-server was started");
    let joined = second.events_on_disk().into_iter().rfind(|event| event["type"] == "child.joined").unwrap();
    assert_eq!((&joined["detail"]["isKnown"], &joined["detail"]["pid"]), (&json!(true), &json!(server)));
    let turn_id = start_turn(&second, &session, "mock:deltas=2").await;
    assert_eq!(turn_when_over(&second, &session, &turn_id).await["status"], "completed");
}

#[tokio::test]
async fn turn_of_shared_server_survives_daemon() {
    for (is_killed, ends_meanwhile) in [(false, false), (true, false), (true, true)] {
        let model = MockModel::start();
        let home = CodexHome::new(&model);
        let mut first = shared(&home).start().await;
        server_of(&first).await;
        let session = create_session(&first, &home, &json!({})).await;
        let turn_id = start_turn(&first, &session, SLOW_TURN).await;
        match is_killed {
            true => drop(first.kill().await),
            false => assert!(first.stop().await.status.success()),
        }
        if ends_meanwhile {
            wait_for_end_on_disk(&home).await;
        }
        let second = shared(&home).state_from(&first).start().await;
        let turn = turn_when_over(&second, &session, &turn_id).await;
        let case = format!("killed: {is_killed}, ended meanwhile: {ends_meanwhile}: {turn:#}");
        assert_eq!(
            (&turn["status"], &turn["text"]),
            (&json!("completed"), &json!(text_of_deltas(20))),
            "{case}"
        );
        assert!(turn["tokenUsage"].is_object(), "{case}");
        let kinds: Vec<_> = turn["items"].as_array().unwrap().iter().map(|item| &item["type"]).collect();
        assert_eq!(kinds, ["userMessage", "agentMessage"], "{case}");
        let after = record(&second, &session).await;
        assert_eq!((&after["lastTurnStatus"], &after["currentTurnId"]), (&json!("completed"), &Value::Null));
        assert_eq!(count(&second, "app-server.turn.completed.missing"), 0, "{case}");
    }
}

#[tokio::test]
async fn request_of_shared_server_keeps_its_id_across_daemons() {
    let model = MockModel::start();
    let home = CodexHome::builder(&model).approval_policy("on-request").sandbox_mode("read-only").build();
    let mut first = shared(&home).start().await;
    server_of(&first).await;
    let session = create_session(&first, &home, &json!({})).await;
    let turn_id = start_turn(&first, &session, "mock:escalate=[true]").await;
    let session_id = session["sessionId"].as_str().unwrap();
    let asked = pending_request(&first, session_id).await;
    first.kill().await;
    let second = shared(&home).state_from(&first).start().await;
    server_of(&second).await;
    let path = format!("/v1/codexd/requests/{}", asked["requestId"].as_str().unwrap());
    wait_until_async("an answer that is accepted", async || {
        assert_eq!(pending_request(&second, session_id).await, asked);
        let answer = post(&second, &path, &json!({ "decision": "accept" })).await;
        // Until the app-server has repeated the request, it cannot be answered.
        (answer.status != 503).then(|| assert_eq!(answer.status, 200, "{:#}", answer.json))
    })
    .await;
    assert_eq!(turn_when_over(&second, &session, &turn_id).await["status"], "completed");
    assert_eq!(count(&second, "request.opened"), 1);
    assert_eq!(count(&second, "request.resolved"), 1);
}

#[tokio::test]
async fn daemons_that_start_at_once_share_one_server() {
    let model = MockModel::start();
    let home = CodexHome::new(&model);
    let (one, other) = tokio::join!(shared(&home).start(), shared(&home).start());
    let (server, server_of_other) = tokio::join!(server_of(&one), server_of(&other));
    assert_eq!(server, server_of_other);
    // What one runs the other hears of, and does not end.
    let session = create_session(&one, &home, &json!({})).await;
    let first = start_turn(&one, &session, "mock:deltas=1").await;
    turn_when_over(&one, &session, &first).await;
    let of_other = create_session(&other, &home, &json!({ "threadId": session["threadId"] })).await;
    let turn_id = start_turn(&one, &session, SLOW_TURN).await;
    wait_until_async("the turn in the other daemon", async || {
        (record(&other, &of_other).await["currentTurnId"] == turn_id).then_some(())
    })
    .await;
    let body = json!({ "sessionId": of_other["sessionId"], "input": "mock:deltas=1" });
    submit(&other, &body).await.error(409, "turn_in_progress");
    let queued = json!({ "sessionId": of_other["sessionId"], "input": "mock:deltas=2", "whenBusy": "queue" });
    submit(&other, &queued).await.data(202);
    let mut other = other;
    assert!(other.stop().await.status.success());
    let turn = turn_when_over(&one, &session, &turn_id).await;
    assert_eq!((&turn["status"], &turn["text"]), (&json!("completed"), &json!(text_of_deltas(20))));
    // The queue of the stopped daemon goes on when it is back.
    let other = shared(&home).state_from(&other).start().await;
    wait_until_async("the queued turn", async || {
        let record = record(&other, &of_other).await;
        let is_over = record["lastTurnId"] != turn_id && record["lastTurnStatus"] == "completed";
        is_over.then_some(())
    })
    .await;
}

#[tokio::test]
async fn killed_shared_server_is_replaced_and_its_turn_settled() {
    let model = MockModel::start();
    let home = CodexHome::new(&model);
    let daemon = shared(&home).start().await;
    let server = server_of(&daemon).await;
    let session = create_session(&daemon, &home, &json!({})).await;
    let turn_id = start_slow_turn(&daemon, &session).await;
    // Its socket file stays behind.
    kill_process(pid(server), Signal::KILL).unwrap();
    let turn = turn_when_over(&daemon, &session, &turn_id).await;
    assert_eq!(turn["status"], "interrupted", "{turn:#}");
    assert_ne!(server_of(&daemon).await, server);
    let turn_id = start_turn(&daemon, &session, "mock:deltas=2").await;
    assert_eq!(turn_when_over(&daemon, &session, &turn_id).await["status"], "completed");
}

#[tokio::test]
async fn turn_of_drained_shared_server_ends_as_codex_recorded_it() {
    let model = MockModel::start();
    let home = CodexHome::new(&model);
    let daemon = shared(&home).start().await;
    let server = server_of(&daemon).await;
    let session = create_session(&daemon, &home, &json!({})).await;
    let turn_id = start_slow_turn(&daemon, &session).await;
    kill_process(pid(server), Signal::TERM).unwrap();
    wait_until_async("an app-server that takes no new work", async || {
        let body = json!({ "cwd": home.workspace() });
        let refused = post(&daemon, "/v1/codexd/sessions", &body).await;
        (refused.status == 503).then_some(())
    })
    .await;
    let turn = turn_when_over(&daemon, &session, &turn_id).await;
    assert_eq!(
        (&turn["status"], &turn["text"]),
        (&json!("completed"), &json!(text_of_deltas(20))),
        "{turn:#}"
    );
    assert_eq!(count(&daemon, "app-server.turn.completed.missing"), 0);
    // It ends a moment after its last turn.
    wait_until_async("another app-server", async || (server_of(&daemon).await != server).then_some(())).await;
}

#[tokio::test]
async fn no_second_server_is_started_while_the_known_one_runs() {
    let model = MockModel::start();
    let home = CodexHome::new(&model);
    let mut first = shared(&home).start().await;
    let server = server_of(&first).await;
    assert!(first.stop().await.status.success());
    fs::remove_file(home.path().join("app-server-control/app-server-control.sock")).unwrap();
    let second = shared(&home).state_from(&first).start().await;
    let reason = wait_until_async("the reason", async || {
        let health = get(&second, "/healthz").await;
        let reason = health.json["service"]["notReadyReason"].as_str()?.to_owned();
        reason.contains("no second one is started").then_some(reason)
    })
    .await;
    assert!(reason.contains(&format!("kill {server}")), "{reason}");
    assert!(is_running(server));
    kill_process(pid(server), Signal::KILL).unwrap();
    assert_ne!(server_of(&second).await, server);
}

#[tokio::test]
async fn server_of_another_program_is_joined() {
    let model = MockModel::start();
    let home = CodexHome::new(&model);
    let mut server = AppServer::on_control_socket(&home).await;
    for builder in [shared(&home), Daemon::builder().external("unix://").env("CODEX_HOME", home.path())] {
        let mut daemon = builder.start().await;
        let session = create_session(&daemon, &home, &json!({})).await;
        let turn_id = start_turn(&daemon, &session, "mock:deltas=2").await;
        assert_eq!(turn_when_over(&daemon, &session, &turn_id).await["status"], "completed");
        assert!(daemon.stop().await.status.success());
        assert_eq!(count(&daemon, "child.started"), 0);
        server.assert_alive();
    }
}

#[tokio::test]
async fn start_of_shared_server_that_fails_says_why() {
    let model = MockModel::start();
    let home = CodexHome::new(&model);
    let daemon = shared(&home).arg("--server-arg").arg("--unknown-flag").start().await;
    let reason = wait_until_async("the reason", async || {
        let health = get(&daemon, "/healthz").await;
        let reason = health.json["service"]["notReadyReason"].as_str()?.to_owned();
        reason.contains("exited with code").then_some(reason)
    })
    .await;
    assert!(reason.contains("Error output: error: unexpected argument"), "{reason}");
}

#[tokio::test]
async fn new_login_is_noted_and_used_after_a_restart_of_the_shared_server() {
    let model = MockModel::start();
    let home = CodexHome::builder(&model).needs_account().build();
    let (old, new) = ("sk-old-key-0123456789", "sk-new-key-0123456789");
    home.log_in(old);
    model.require_key(old);
    let daemon = shared(&home).start().await;
    let server = server_of(&daemon).await;
    let notes = async || {
        let answer = get(&daemon, "/v1/codexd/app-server").await;
        answer.data(200)["appServer"]["notes"].as_array().unwrap().clone()
    };
    assert_eq!(notes().await, Vec::<Value>::new());
    let session = create_session(&daemon, &home, &json!({})).await;
    home.log_in(new);
    // The app-server is not restarted by itself, and uses what it has read.
    let turn_id = start_turn(&daemon, &session, "mock:deltas=1").await;
    assert_eq!(turn_when_over(&daemon, &session, &turn_id).await["status"], "completed");
    let notes_now = notes().await;
    assert!(
        notes_now.iter().any(|note| note.as_str().unwrap().starts_with("auth.json has another login")),
        "{notes_now:?}"
    );
    model.require_key(new);
    let turn_id = start_turn(&daemon, &session, "mock:deltas=1").await;
    assert_eq!(turn_when_over(&daemon, &session, &turn_id).await["status"], "failed");
    let codex = wait_until_async("the refused login", async || {
        let codex = get(&daemon, "/healthz").await.json["service"]["codex"].clone();
        (codex["state"] == "loginRefused").then_some(codex)
    })
    .await;
    let message = codex["message"].as_str().unwrap();
    assert!(message.contains("so codexd does not restart it for a new login"), "{message}");
    assert_eq!((server_of(&daemon).await, count(&daemon, "app-server.restarting")), (server, 0));

    post(&daemon, "/v1/codexd/app-server/restart", &json!({})).await.data(202);
    wait_until_async("the next app-server", async || (server_of(&daemon).await != server).then_some(()))
        .await;
    let turn_id = start_turn(&daemon, &session, "mock:deltas=1").await;
    assert_eq!(turn_when_over(&daemon, &session, &turn_id).await["status"], "completed");
    assert_eq!(notes().await, Vec::<Value>::new());
}
