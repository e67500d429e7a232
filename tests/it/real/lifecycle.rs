//! Stopping the daemon while the real app-server runs a turn.

use serde_json::{Value, json};

use super::Stage;
use crate::support::codex::codex;
use crate::support::daemon::Daemon;
use crate::support::wait::wait_until;

/// Starts a turn whose command runs longer than every limit, and waits until the command runs; returns the turn ID.
async fn start_long_command(stage: &mut Stage, session: &Value) -> String {
    let marker = stage.home.workspace().join("running");
    let turn_id = stage.start_turn(session, "mock:shell=[touch running; sleep 300]").await;
    wait_until("the command", || marker.exists().then_some(())).await;
    turn_id
}

#[tokio::test]
async fn daemon_stop_interrupts_turn_and_ends_its_command() {
    let mut stage = Stage::start().await;
    let session = stage.session(&json!({})).await;
    let turn_id = start_long_command(&mut stage, &session).await;
    stage.stop().await;
    let events = stage.daemon.events_on_disk();
    let ended = events.iter().find(|event| event["type"] == "app-server.turn.completed").unwrap();
    assert_eq!(
        (&ended["detail"]["turnId"], &ended["detail"]["status"]),
        (&json!(turn_id), &json!("interrupted"))
    );
    assert!(events.iter().all(|event| event["type"] != "app-server.turn.completed.missing"));
    let exited = events.iter().find(|event| event["type"] == "child.exited").unwrap();
    assert_eq!((&exited["detail"]["code"], &exited["detail"]["expected"]), (&json!(0), &json!(true)));
    assert_eq!(events.last().unwrap()["type"], "daemon.stopped");
}

#[tokio::test]
async fn daemon_stop_ends_codex_behind_launcher_script() {
    let mut stage = Stage::start_with(|home| {
        let builder = Daemon::builder().server(&codex().launcher, &["app-server"]);
        builder.env("CODEX_HOME", home.path()).env("HOME", home.user_home())
    })
    .await;
    let session = stage.session(&json!({})).await;
    assert_eq!(stage.turn(&session, "mock:deltas=2").await.status(), "completed");
    start_long_command(&mut stage, &session).await;
    #[cfg(target_os = "linux")]
    {
        let lines: Vec<_> = stage.daemon.survivors().into_iter().map(|(_, line)| line).collect();
        for part in ["node", "vendor", "sleep 300"] {
            assert!(lines.iter().any(|line| line.contains(part)), "no {part} in {lines:?}");
        }
    }
    stage.stop().await;
}
