//! Events that are no longer in the log, cursors of another log, and a disk that is full.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{Sink, add_hook, cursor, hooks, logged, numbers, wait_until_counted};
use crate::api::{
    new_session, run_command, start_daemon, start_turn, wait_for_event, wait_for_event_type, wait_until_idle,
};
use crate::support::daemon::{Daemon, codexd};
use crate::support::scratch;
use crate::support::wait::wait_until_async;

async fn run_turn(daemon: &Daemon, session_id: &str, prompt: &str) {
    start_turn(daemon, session_id, prompt).await;
    wait_until_idle(daemon, session_id).await;
}

/// Changes a state file of a daemon that has ended.
fn change_state(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut file: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut file);
    fs::write(path, file.to_string()).unwrap();
}

/// Asserts that a gap comes first, and that everything in the log of these types follows; returns the gap.
fn gap_then(deliveries: &[Value], expected: &[u64]) -> Value {
    let (gap, rest) = deliveries.split_first().unwrap();
    assert_eq!(gap["type"], "gap", "{deliveries:?}");
    assert_eq!(numbers(rest), expected);
    gap["detail"].clone()
}

#[tokio::test]
async fn cursor_that_the_log_has_left_behind_gives_one_gap_and_what_is_still_in_the_log() {
    let builder = || {
        Daemon::builder().arg("--event-segment-bytes").arg("100000").arg("--event-log-bytes").arg("300000")
    };
    let mut daemon = builder().start().await;
    let (session_id, sink) = (new_session(&daemon).await, Sink::new());
    let hook = json!({ "on": ["turn.accepted"], "command": sink.command_after("while ! test -e \"$1/go\"; do sleep 0.02; done") });
    let from = cursor(&add_hook(&daemon, hook).await);
    for _ in 0..8 {
        run_turn(&daemon, &session_id, "deltas=400 chars=300").await;
    }
    assert!(daemon.stop().await.status.success());
    let oldest = numbers(&daemon.events_on_disk())[0];
    assert!(oldest > from + 10, "the log was not rotated past the cursor");
    fs::write(sink.path("go"), "").unwrap();
    daemon = builder().state_from(&daemon).start().await;
    run_turn(&daemon, &session_id, "hello").await;
    let expected = logged(&daemon, &["turn.accepted"], 0);
    let gap = gap_then(&sink.wait_for(1 + expected.len()).await, &expected);
    assert_eq!((&gap["reason"], &gap["lostThrough"]), (&json!("expired"), &json!(oldest - 1)));
    let lost_from = gap["lostFrom"].as_u64().unwrap();
    assert!(from < lost_from && lost_from < oldest, "{gap}");
    run_turn(&daemon, &session_id, "hello").await;
    sink.wait_for(2 + expected.len()).await;
    let gaps = sink.deliveries().iter().filter(|delivery| delivery["type"] == "gap").count();
    assert_eq!(gaps, 1);
}

#[tokio::test]
async fn restored_directory_gives_one_gap_and_the_events_after_the_backup() {
    let mut daemon = start_daemon().await;
    let (session_id, sink) = (new_session(&daemon).await, Sink::new());
    add_hook(&daemon, json!({ "on": ["turn.accepted"], "command": sink.command() })).await;
    run_turn(&daemon, &session_id, "before").await;
    let before = sink.wait_for(1).await;
    wait_until_counted(&daemon, 1).await;
    assert!(daemon.stop().await.status.success());
    let (scratch, home) = (scratch::directory("test"), scratch::directory("test"));
    let copy = scratch.path().join("copy");
    let mut command = codexd(home.path());
    let directories = [daemon.state_dir(), daemon.logs_dir()];
    command
        .arg("backup")
        .arg("--state-dir")
        .arg(&directories[0])
        .arg("--logs-dir")
        .arg(&directories[1])
        .arg(&copy);
    let backup = run_command(command).await;
    assert_eq!(backup.code, Some(0), "{}", backup.stderr);
    daemon = Daemon::builder()
        .arg("--state-dir")
        .arg(copy.join("state"))
        .arg("--logs-dir")
        .arg(copy.join("logs"))
        .state_from(&daemon)
        .start()
        .await;
    run_turn(&daemon, &session_id, "after").await;
    let deliveries = sink.wait_for(3).await;
    assert_eq!(deliveries[0], before[0]);
    assert_eq!(deliveries[1]["detail"]["reason"], "epoch");
    assert!(deliveries[2]["seq"].as_u64() > before[0]["seq"].as_u64());
    let (old, new) = (before[0]["id"].as_str().unwrap(), deliveries[2]["id"].as_str().unwrap());
    assert_ne!(old.split_once('-').unwrap().0, new.split_once('-').unwrap().0, "the epoch is the same");
}

#[tokio::test]
async fn lost_log_and_lost_cursor_give_a_gap_each() {
    let mut daemon = start_daemon().await;
    let (session_id, sink) = (new_session(&daemon).await, Sink::new());
    add_hook(&daemon, json!({ "on": ["turn.accepted"], "command": sink.command() })).await;
    run_turn(&daemon, &session_id, "hello").await;
    sink.wait_for(1).await;
    wait_until_counted(&daemon, 1).await;
    assert!(daemon.stop().await.status.success());
    for file in fs::read_dir(daemon.logs_dir()).unwrap() {
        let path = file.unwrap().path();
        if path.is_file() {
            fs::remove_file(path).unwrap();
        }
    }
    daemon = Daemon::builder().state_from(&daemon).start().await;
    run_turn(&daemon, &session_id, "hello").await;
    let expected = logged(&daemon, &["turn.accepted"], 0);
    assert_eq!(gap_then(&sink.wait_for(3).await[1..], &expected)["reason"], "epoch");
    // The gap and the event after it.
    wait_until_counted(&daemon, 2).await;
    assert!(daemon.stop().await.status.success());
    fs::write(daemon.state_dir().join("hook-cursors.json"), "{").unwrap();
    daemon = Daemon::builder().state_from(&daemon).start().await;
    wait_for_event(&daemon, "the report of the lost cursors", |event| {
        let message = event["message"].as_str().unwrap_or_default();
        event["type"] == "state.recovered" && message.contains("hook-cursors.json")
    })
    .await;
    let deliveries = sink.wait_for(4).await;
    assert_eq!(deliveries[3]["detail"]["reason"], "cursor");
    run_turn(&daemon, &session_id, "hello").await;
    let last = logged(&daemon, &["turn.accepted"], 0).pop().unwrap();
    assert_eq!(sink.wait_for(5).await[4]["seq"], last);
}

#[tokio::test]
async fn event_that_fails_for_a_day_is_skipped_and_the_next_one_is_delivered() {
    let mut daemon = start_daemon().await;
    let (session_id, sink) = (new_session(&daemon).await, Sink::new());
    let script = "test -e \"$1/works\" || exit 1";
    let hook =
        add_hook(&daemon, json!({ "on": ["turn.accepted"], "command": sink.command_after(script) })).await;
    run_turn(&daemon, &session_id, "first").await;
    wait_until_async("the first failure", async || {
        (hooks(&daemon).await[0]["failures"].as_u64() >= Some(1)).then_some(())
    })
    .await;
    assert!(daemon.stop().await.status.success());
    let id = hook["hookId"].as_str().unwrap();
    change_state(&daemon.state_dir().join("hook-cursors.json"), |file| {
        let progress = &mut file["hooks"][id];
        assert!(progress["failures"].as_u64() >= Some(1), "{progress}");
        // As many failures as their delays add up to a day.
        progress["failures"] = json!(1000);
        progress["retryAt"] = Value::Null;
    });
    daemon = Daemon::builder().state_from(&daemon).start().await;
    let skipped = wait_for_event_type(&daemon, "hook.skipped").await;
    let accepted = logged(&daemon, &["turn.accepted"], 0);
    assert_eq!(skipped["detail"]["eventSeq"], accepted[0]);
    assert_eq!((&skipped["level"], &skipped["detail"]["attempts"]), (&json!("error"), &json!(1001)));
    fs::write(sink.path("works"), "").unwrap();
    run_turn(&daemon, &session_id, "second").await;
    let deliveries = sink.wait_for(1).await;
    assert_eq!(numbers(&deliveries), [logged(&daemon, &["turn.accepted"], accepted[0])[0]]);
    assert_eq!(hooks(&daemon).await[0]["skipped"], 1);
}

#[tokio::test]
async fn state_files_have_the_permissions_of_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let daemon = start_daemon().await;
    add_hook(&daemon, json!({ "on": ["request"], "command": ["true"] })).await;
    for name in ["hooks.json", "hook-cursors.json"] {
        let mode = fs::metadata(daemon.state_dir().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}
