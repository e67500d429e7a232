//! SIGKILL of the daemon at every step of a delivery.

use std::fs;

use serde_json::{Value, json};

use super::{Sink, add_hook, cursor, hooks, logged, numbers, wait_for_file};
use crate::api::{new_session, start_daemon, start_turn, wait_for_event_type};
use crate::support::daemon::Daemon;
use crate::support::wait::{wait_until, wait_until_async};

/// The processes of a daemon that has ended whose command line contains this text.
fn left(daemon: &Daemon, text: &str) -> Vec<(u32, String)> {
    daemon.survivors().into_iter().filter(|(_, line)| line.contains(text)).collect()
}

/// Runs `step` with a delivery of `turn.accepted` that waits for a file `go` after it was begun, then kills the daemon,
/// starts it again and returns the deliveries, after the last event was delivered.
async fn killed_while_delivering(at: &str) -> (Daemon, u64, Vec<Value>) {
    let mut daemon = start_daemon().await;
    let (session_id, sink) = (new_session(&daemon).await, Sink::new());
    let wait =
        |name: &str| format!(": > \"$1/{name}\"; while ! test -e \"$1/go-{name}\"; do sleep 0.02; done");
    let script = format!(
        "{}\ninput=$(cat); {}\nprintf '%s\\n' \"$input\" >> \"$1/deliveries\"\n{}",
        wait("started"),
        wait("read"),
        wait("written"),
    );
    let command = json!(["sh", "-c", script, "sh", sink.path("")]);
    let hook = add_hook(&daemon, json!({ "on": ["turn.accepted"], "command": command })).await;
    start_turn(&daemon, &session_id, "hello").await;
    for step in ["started", "read", "written"] {
        wait_for_file(&sink.path(step)).await;
        if step == at {
            break;
        }
        fs::write(sink.path(&format!("go-{step}")), "").unwrap();
    }
    daemon.kill().await;
    assert!(!left(&daemon, "go-started").is_empty(), "the program has ended, so the test proves nothing");
    let killed = daemon;
    let daemon = Daemon::builder().state_from(&killed).start().await;
    assert_eq!(left(&killed, "go-started"), []);
    for step in ["started", "read", "written"] {
        fs::write(sink.path(&format!("go-{step}")), "").unwrap();
    }
    wait_until_async("the delivery", async || (hooks(&daemon).await[0]["delivered"] == 1).then_some(()))
        .await;
    (daemon, cursor(&hook), sink.deliveries())
}

#[tokio::test]
async fn sigkill_during_a_delivery_repeats_it_with_its_id() {
    // The program had begun; it had its input; it had done its work.
    for (at, expected) in [("started", 1), ("read", 1), ("written", 2)] {
        let (daemon, from, deliveries) = killed_while_delivering(at).await;
        let accepted = logged(&daemon, &["turn.accepted"], from);
        assert_eq!(accepted.len(), 1);
        let expected = vec![accepted[0]; expected];
        assert_eq!(numbers(&deliveries), expected, "killed when the program had {at}");
        assert!(deliveries.iter().all(|delivery| delivery["id"] == deliveries[0]["id"]), "{deliveries:?}");
    }
}

#[tokio::test]
async fn start_ends_the_program_that_a_killed_daemon_left() {
    let mut daemon = start_daemon().await;
    let (session_id, sink) = (new_session(&daemon).await, Sink::new());
    let script = "trap '' TERM; (setsid sleep 301 &); : > \"$1/begun\"; while :; do sleep 300; done";
    add_hook(&daemon, json!({ "on": ["turn.accepted"], "command": sink.command_before(script) })).await;
    start_turn(&daemon, &session_id, "hello").await;
    wait_for_file(&sink.path("begun")).await;
    wait_until("the descendants", || {
        let is_running = |line: &str| daemon.survivors().iter().any(|(_, other)| other == line);
        (is_running("sleep 300") && is_running("sleep 301")).then_some(())
    })
    .await;
    let before = left(&daemon, "sleep");
    daemon.kill().await;
    assert_eq!(left(&daemon, "sleep"), before, "the program ended by itself, so the test proves nothing");
    let killed = daemon;
    let daemon = Daemon::builder().state_from(&killed).start().await;
    assert_eq!(left(&killed, "sleep"), []);
    wait_for_event_type(&daemon, "daemon.started").await;
}

#[tokio::test]
async fn stop_ends_the_program_and_its_event_is_delivered_after_the_start() {
    let mut daemon = start_daemon().await;
    let (session_id, sink) = (new_session(&daemon).await, Sink::new());
    let script = ": > \"$1/begun\"; test -e \"$1/go\" || sleep 300";
    let hook =
        add_hook(&daemon, json!({ "on": ["turn.accepted"], "command": sink.command_before(script) })).await;
    start_turn(&daemon, &session_id, "hello").await;
    wait_for_file(&sink.path("begun")).await;
    assert!(daemon.stop().await.status.success());
    assert_eq!(daemon.survivors(), [], "processes that outlived the daemon");
    fs::write(sink.path("go"), "").unwrap();
    daemon = Daemon::builder().state_from(&daemon).start().await;
    let deliveries = sink.wait_for(2).await;
    let accepted = logged(&daemon, &["turn.accepted"], cursor(&hook));
    assert_eq!(numbers(&deliveries), [accepted[0]; 2]);
}
