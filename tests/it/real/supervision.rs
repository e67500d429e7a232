//! Restarts of the real app-server after SIGKILL and SIGSTOP, and reconnects to an external one.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::app_server::AppServer;
use super::external::attach;
use super::{Stage, create_session, rest_of, submit};
use crate::api::wait_until_ready;
use crate::support::codex::CodexHome;
use crate::support::daemon::Daemon;
use crate::support::http::get;
use crate::support::model::MockModel;
use crate::support::wait::wait_until_async;

async fn child(daemon: &Daemon) -> Value {
    get(daemon, "/v1/codexd/status").await.data(200)["snapshot"]["daemon"]["child"].clone()
}

/// Waits until the app-server of this generation is in this state; returns the `child` object of the status.
async fn generation(daemon: &Daemon, number: u64, state: &str) -> Value {
    wait_until_async(&format!("generation {number}"), async || {
        let child = child(daemon).await;
        (child["state"] == state && child["generation"] == number).then_some(child)
    })
    .await
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn app_server_kill_ends_its_commands_and_next_turn_runs() {
    use std::time::{Duration, Instant};

    use crate::support::wait::wait_until;

    let mut stage = Stage::start().await;
    let session = stage.session(&json!({})).await;
    // One process in its own process session, one that has also lost its parent, and one that has also dropped its
    // environment.
    let hidden = "sh -c 'env -i setsid sh -c \"echo \\$\\$ > hidden; exec /bin/sleep 303\" & exit 0'";
    let command =
        format!("setsid sleep 301 & sh -c 'setsid sleep 302 & exit 0'; {hidden}; touch running; sleep 300");
    stage.start_turn(&session, &format!("mock:shell=[{command}]")).await;
    let marker = stage.home.workspace().join("running");
    wait_until("the command", || marker.exists().then_some(())).await;
    let sleepers = |daemon: &Daemon| {
        let all = daemon.survivors().into_iter();
        all.filter(|(_, line)| line.starts_with("sleep 30")).count()
    };
    wait_until("all three processes and the command", || (sleepers(&stage.daemon) == 3).then_some(())).await;
    let hidden = stage.home.workspace().join("hidden");
    let is_complete = |text: &String| text.ends_with('\n');
    let hidden = wait_until("the PID of the process without the environment", || {
        std::fs::read_to_string(&hidden).ok().filter(is_complete)
    })
    .await;
    let hidden = std::path::Path::new("/proc").join(hidden.trim());
    assert!(hidden.exists());
    let pid = i32::try_from(child(&stage.daemon).await["pid"].as_u64().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let killed = Instant::now();
    wait_until("the end of all commands", || {
        (sleepers(&stage.daemon) == 0 && !hidden.exists()).then_some(())
    })
    .await;
    assert!(killed.elapsed() < Duration::from_secs(20), "{:?}", killed.elapsed());
    generation(&stage.daemon, 2, "running").await;
    wait_until_ready(&stage.daemon).await;
    let session = stage.session(&json!({})).await;
    assert_eq!(stage.turn(&session, "mock:deltas=2").await.status(), "completed");
    stage.stop().await;
}

#[tokio::test]
async fn stopped_app_server_is_restarted() {
    let mut stage = Stage::start_with(|home| Daemon::builder().real(home).arg("--check-interval=3")).await;
    wait_until_ready(&stage.daemon).await;
    let pid = i32::try_from(child(&stage.daemon).await["pid"].as_u64().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::STOP).unwrap();
    generation(&stage.daemon, 2, "running").await;
    let session = stage.session(&json!({})).await;
    assert_eq!(stage.turn(&session, "mock:deltas=2").await.status(), "completed");
    stage.stop().await;
}

#[tokio::test]
async fn restarted_external_app_server_is_reconnected() {
    let model = MockModel::start();
    let home = CodexHome::new(&model);
    let mut server = AppServer::on_socket(&home).await;
    let (mut events, mut daemon) = attach(&server.endpoint).await;
    generation(&daemon, 1, "external").await;
    server.kill();
    let is_backoff = |event: &Value| event["type"] == "child.backoff";
    events.wait_for("the backoff", is_backoff).await;
    let mut server = AppServer::on_socket(&home).await;
    let is_connected = |event: &Value| event["type"] == "app-server.connected";
    events.wait_for("the connection", is_connected).await;
    let session = create_session(&daemon, &home, &json!({})).await;
    let body = json!({ "sessionId": session["sessionId"], "input": "mock:deltas=3" });
    let turn_id = submit(&daemon, &body).await.data(202)["turnId"].as_str().unwrap().to_owned();
    assert_eq!(rest_of(&mut events, &turn_id).await.status(), "completed");
    assert_eq!(child(&daemon).await["status"], "external");
    assert!(daemon.stop().await.status.success());
    server.assert_alive();
}

#[tokio::test]
async fn stopped_external_app_server_is_disconnected_and_reconnected() {
    let model = MockModel::start();
    let home = CodexHome::new(&model);
    let mut server = AppServer::on_tcp(&home).await;
    let daemon = Daemon::builder().external(&server.endpoint);
    let mut daemon = daemon.arg("--check-interval=3").arg("--start-timeout=3").start().await;
    generation(&daemon, 1, "external").await;
    server.signal(Signal::STOP);
    let closed = crate::api::wait_for_event_type(&daemon, "app-server.transport.closed").await;
    assert_eq!(closed["detail"]["source"], "liveness");
    server.signal(Signal::CONT);
    wait_until_async("the next connection", async || {
        let child = child(&daemon).await;
        (child["state"] == "external" && child["generation"].as_u64() > Some(1)).then_some(())
    })
    .await;
    create_session(&daemon, &home, &json!({})).await;
    assert!(daemon.stop().await.status.success());
    server.assert_alive();
}
