//! App-servers that run but do not respond, respond slowly, or flood.

use std::fs;

use rustix::process::Signal;
use serde_json::json;

use super::{assert_recovered, child, follow, generation, signal, types_of_supervision};
use crate::api::{new_session, start_turn, wait_for_event, wait_for_event_type, wait_until_ready};
use crate::support::daemon::{Daemon, DaemonBuilder};
use crate::support::wait::wait_until;

/// A daemon that checks a silent app-server after one second.
fn with_short_check_interval() -> DaemonBuilder {
    Daemon::builder().arg("--check-interval=1")
}

#[tokio::test]
async fn app_server_without_initialize_response_is_restarted() {
    for startup in
        ["hang-initialize", "hang-initialize ignore-eof ignore-term", "stop-reading hang-initialize"]
    {
        let daemon = Daemon::builder().startup(startup).arg("--start-timeout=1").start().await;
        let failed = wait_for_event_type(&daemon, "app-server.connect.failed").await;
        assert!(failed["message"].as_str().unwrap().contains("within 1 s"), "{failed}");
        let closed = wait_for_event_type(&daemon, "app-server.transport.closed").await;
        assert_eq!(closed["detail"]["source"], "initialize");
        wait_for_event(&daemon, "the second app-server", |event| {
            event["type"] == "child.started" && event["detail"]["generation"] == 2
        })
        .await;
        assert_eq!(
            types_of_supervision(&daemon.events_on_disk())[..5],
            [
                "child.started",
                "app-server.transport.closed",
                "child.exited",
                "child.backoff",
                "child.started"
            ]
        );
    }
}

#[tokio::test]
async fn initialize_timeout_grows_with_each_attempt() {
    let daemon = Daemon::builder().startup("answer-late=2500").arg("--start-timeout=1").start().await;
    let failed = wait_for_event_type(&daemon, "app-server.connect.failed").await;
    let message = failed["message"].as_str().unwrap();
    for part in ["within 1 s", "it runs", "2 s", "--start-timeout", "BAA_CODEXD_START_TIMEOUT"] {
        assert!(message.contains(part), "{message}");
    }
    crate::api::wait_until_not_ready(&daemon, "--start-timeout").await;
    // The limits of 1 s and 2 s are too short.
    assert_eq!(generation(&daemon, 1).await["generation"], 3);
    new_session(&daemon).await;
}

#[tokio::test]
async fn outdated_app_server_version_is_reported() {
    let daemon = Daemon::builder().startup("version=0.139.9").start().await;
    let changed = wait_for_event_type(&daemon, "app-server.state.changed").await;
    assert_eq!((&changed["level"], &changed["detail"]["state"]), (&json!("warn"), &json!("tooOld")));
    assert!(
        changed["message"].as_str().unwrap().contains("Codex 0.139.9 is older than 0.140.0"),
        "{changed}"
    );
    // The log line follows the event.
    wait_until("the hint in the log", || daemon.stderr().contains("npm install").then_some(())).await;
    let codex = crate::support::http::get(&daemon, "/healthz").await.json["service"]["codex"].clone();
    assert_eq!(
        (&codex["state"], &codex["command"]),
        (&json!("tooOld"), &json!("npm install --global @openai/codex"))
    );
}

#[tokio::test]
async fn stopped_app_server_is_restarted() {
    let daemon = with_short_check_interval().start().await;
    let mut events = follow(&daemon).await;
    let session_id = new_session(&daemon).await;
    start_turn(&daemon, &session_id, "spawn-double=300 hang").await;
    signal(&generation(&daemon, 1).await["pid"], Signal::STOP);
    let closed = wait_for_event_type(&daemon, "app-server.transport.closed").await;
    assert_eq!(closed["detail"]["source"], "liveness", "{closed}");
    assert_recovered(&daemon, &mut events, 2).await;
}

#[tokio::test]
async fn unresponsive_app_server_is_restarted() {
    for (prompt, source) in
        [("stop-reading hang", "liveness"), ("close-stdin", "stdin.error"), ("close-stdout", "stdout.end")]
    {
        let daemon = with_short_check_interval().start().await;
        let mut events = follow(&daemon).await;
        let session_id = new_session(&daemon).await;
        start_turn(&daemon, &session_id, prompt).await;
        let closed = wait_for_event_type(&daemon, "app-server.transport.closed").await;
        assert_eq!(closed["detail"]["source"], source, "{prompt}: {closed}");
        assert_recovered(&daemon, &mut events, 2).await;
    }
}

#[tokio::test]
async fn idle_responsive_app_server_is_not_restarted() {
    let daemon = with_short_check_interval().start().await;
    wait_until_ready(&daemon).await;
    let answers = || {
        let output = fs::read_to_string(daemon.logs_dir().join("stdout.log")).unwrap_or_default();
        output.matches("\"data\"").count()
    };
    let before = answers();
    wait_until("three responses", || (answers() >= before + 3).then_some(())).await;
    let child = child(&daemon).await;
    assert_eq!((&child["generation"], &child["deaths"]), (&json!(1), &json!(0)));
}

#[tokio::test]
async fn flooding_app_server_is_not_restarted() {
    let daemon = with_short_check_interval().startup("flood").start().await;
    let mut daemon = daemon;
    wait_until_ready(&daemon).await;
    new_session(&daemon).await;
    let child = child(&daemon).await;
    assert_eq!(child["generation"], 1);
    signal(&child["pid"], Signal::KILL);
    generation(&daemon, 2).await;
    assert!(daemon.stop().await.status.success());
}

#[tokio::test]
async fn app_server_line_limit_is_configurable() {
    let daemon = Daemon::builder().arg("--line-cap=100000").start().await;
    let session_id = new_session(&daemon).await;
    start_turn(&daemon, &session_id, "long-line=200000").await;
    let skipped = wait_for_event_type(&daemon, "app-server.message.invalid").await;
    assert!(skipped["detail"]["reason"].as_str().unwrap().contains("100000"), "{skipped}");
    assert_eq!(crate::api::wait_until_idle(&daemon, &session_id).await["lastTurnStatus"], "completed");
}
