//! A disk that fills up during a turn and has free space again later.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::connection::{read_all, read_kept};
use super::mounts::{Mount, or_skip};
use crate::api::{
    SESSIONS, create_session, new_session, request_turn, start_turn, text, wait_for_turn_end, wait_until_idle,
};
use crate::hooks::{HOOKS, Sink, add_hook, cursor, hooks, numbers};
use crate::support::daemon::{Daemon, DaemonBuilder};
use crate::support::http::{Target, get, post};
use crate::support::skip::runs_long;
use crate::support::wait::{wait_until, wait_until_async};
use crate::support::websocket::EventStream;

/// A daemon with its state and logs directories on this file system.
fn builder(mount: &Mount) -> DaemonBuilder {
    Daemon::builder()
        .arg("--state-dir")
        .arg(mount.path().join("state"))
        .arg("--logs-dir")
        .arg(mount.path().join("logs"))
}

/// Fills the file system with one file and returns its path; removing it frees the space.
fn fill(mount: &Mount) -> PathBuf {
    let path = mount.path().join("filler");
    let mut file = File::options().create(true).append(true).open(&path).unwrap();
    let block = [b'x'; 4096];
    while file.write(&block).is_ok_and(|count| count > 0) {}
    path
}

async fn assert_writes_rejected(daemon: &Daemon, session_id: &str) {
    for _ in 0..3 {
        post(daemon, SESSIONS, &json!({})).await.error(503, "storage_unavailable");
        request_turn(daemon, session_id, "hello").await.error(503, "storage_unavailable");
    }
}

fn is(event: &Value, event_type: &str) -> bool {
    event["type"] == event_type
}

fn seq(event: &Value) -> u64 {
    event["seq"].as_u64().unwrap()
}

/// Asserts that the log contains exactly these events in their range of sequence numbers.
async fn assert_in_log(daemon: &Daemon, received: &[Value]) {
    let (_, log) = read_all(daemon.base_url()).await;
    let log: Vec<Value> = log.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    let (first, last) = (seq(&received[0]), seq(&received[received.len() - 1]));
    let same: Vec<_> = log.into_iter().filter(|event| (first..=last).contains(&seq(event))).collect();
    assert_eq!(same, received, "the log differs from the published events");
}

#[tokio::test]
async fn full_disk_stops_only_acknowledgements_and_loses_no_event() {
    let Some(mount) = or_skip("a full disk", Mount::memory(3 * 1024)) else { return };
    let mut daemon = builder(&mount).start().await;
    let busy = new_session(&daemon).await;
    let other = new_session(&daemon).await;
    let first = start_turn(&daemon, &other, "hello").await;
    wait_until_idle(&daemon, &other).await;
    let mut stream = EventStream::connect(&daemon).await;
    let hello = stream.hello().await;
    let from = hello["recentEvents"].as_array().unwrap().last().map(seq).unwrap();
    let long = start_turn(&daemon, &busy, "deltas=400 delay=5 chars=500").await;

    let filler = fill(&mount);
    let mut received = stream.collect_until("storage.failed", |event| is(event, "storage.failed")).await;
    assert_writes_rejected(&daemon, &other).await;
    let status = get(&daemon, "/healthz").await;
    assert_eq!(status.status, 200, "{}", status.text);
    get(&daemon, SESSIONS).await.data(200);
    // The turn continues, and subscribers receive its events to the end.
    let more =
        stream.collect_until("the end of the turn", |event| is(event, "app-server.turn.completed")).await;
    let deltas = more.iter().filter(|event| is(event, "app-server.turn.message.delta")).count();
    assert!(deltas > 100, "only {deltas} deltas while the disk was full: the test needs a longer turn");
    received.extend(more);
    assert_eq!(wait_until_idle(&daemon, &busy).await["lastTurnStatus"], "completed");
    assert_writes_rejected(&daemon, &other).await;

    fs::remove_file(filler).unwrap();
    let more = stream.collect_until("storage.recovered", |event| is(event, "storage.recovered")).await;
    let recovered = more.last().unwrap();
    assert_eq!(recovered["detail"], json!({ "lostFrom": null, "lostThrough": null }), "{recovered}");
    received.extend(more.clone());
    assert_eq!(seq(&received[0]), from + 1);
    let rising: Vec<u64> = received.iter().map(seq).collect();
    assert_eq!(rising, (from + 1..=seq(recovered)).collect::<Vec<_>>(), "a sequence number is missing");
    let later = text(&create_session(&daemon, json!({})).await["sessionId"]);
    let second = start_turn(&daemon, &other, "hello").await;
    wait_for_turn_end(&daemon, &other, &json!(second)).await;

    daemon.kill().await;
    daemon = builder(&mount).state_from(&daemon).start().await;
    assert_in_log(&daemon, &received).await;
    for (session_id, turn_id) in [(&busy, json!(long)), (&other, json!(second)), (&later, Value::Null)] {
        let record = get(&daemon, &format!("{SESSIONS}/{session_id}")).await.data(200)["session"].clone();
        assert_eq!(record["lastTurnId"], turn_id, "{record}");
    }
    let (_, log) = read_all(daemon.base_url()).await;
    for turn_id in [&first, &long, &second] {
        let accepted = |text: &String| text.contains("\"turn.accepted\"") && text.contains(turn_id.as_str());
        assert_eq!(log.iter().filter(|text| accepted(text)).count(), 1, "{turn_id}");
    }
}

/// The hook is told of the full disk while it is full, although its cursor cannot be written; what it got then may come
/// again after a kill, and nothing is left out.
#[tokio::test]
async fn hooks_deliver_while_the_disk_is_full() {
    let Some(mount) = or_skip("hooks and a full disk", Mount::memory(3 * 1024)) else { return };
    let mut daemon = builder(&mount).start().await;
    let (busy, sink) = (new_session(&daemon).await, Sink::new());
    let types = ["storage.failed", "storage.recovered", "app-server.turn.completed"];
    let from = cursor(&add_hook(&daemon, json!({ "on": types, "command": sink.command() })).await);
    let mut stream = EventStream::connect(&daemon).await;
    stream.hello().await;
    start_turn(&daemon, &busy, "deltas=200 delay=5 chars=500").await;
    let filler = fill(&mount);
    stream.wait_for("the end of the turn", |event| is(event, "app-server.turn.completed")).await;
    let full = sink.wait_for(2).await;
    assert_eq!((&full[0]["type"], &full[1]["type"]), (&json!(types[0]), &json!(types[2])));
    let refused = json!({ "name": "other", "on": ["request"], "command": ["true"] });
    post(&daemon, HOOKS, &refused).await.error(503, "storage_unavailable");
    assert_eq!(hooks(&daemon).await.len(), 1);
    fs::remove_file(filler).unwrap();
    stream.wait_for("storage.recovered", |event| is(event, "storage.recovered")).await;
    sink.wait_for(3).await;
    daemon.kill().await;
    daemon = builder(&mount).state_from(&daemon).start().await;
    let second = start_turn(&daemon, &busy, "hello").await;
    wait_for_turn_end(&daemon, &busy, &json!(second)).await;
    let (_, log) = read_all(daemon.base_url()).await;
    let log = log.iter().map(|text| serde_json::from_str::<Value>(text).unwrap());
    let expected: Vec<u64> = log
        .filter(|event| seq(event) > from && types.iter().any(|name| is(event, name)))
        .map(|event| seq(&event))
        .collect();
    let last = *expected.last().unwrap();
    let deliveries = wait_until("the last delivery", || {
        Some(sink.deliveries()).filter(|all| all.last().is_some_and(|one| one["seq"] == last))
    })
    .await;
    let mut delivered = numbers(&deliveries);
    delivered.sort_unstable();
    delivered.dedup();
    assert_eq!(delivered, expected);
}

#[tokio::test]
async fn storage_recovered_event_reports_the_exact_lost_range() {
    if !runs_long() {
        return;
    }
    let Some(mount) = or_skip("a full disk for long", Mount::memory(24 * 1024)) else { return };
    let mut daemon = builder(&mount).start().await;
    let busy = new_session(&daemon).await;
    // More than the 4 MiB that the daemon buffers in memory.
    let long = start_turn(&daemon, &busy, "deltas=9000 chars=1000").await;
    let filler = fill(&mount);
    wait_for_turn_end(&daemon, &busy, &json!(long)).await;
    assert_writes_rejected(&daemon, &busy).await;
    let mut stream = EventStream::connect(&daemon).await;
    stream.hello().await;
    fs::remove_file(filler).unwrap();
    let recovered = stream.wait_for("storage.recovered", |event| is(event, "storage.recovered")).await;
    let lost = |name: &str| recovered["detail"][name].as_u64().unwrap_or_else(|| panic!("{recovered}"));
    let lost = lost("lostFrom")..=lost("lostThrough");
    assert!(lost.clone().count() > 100, "the test needs more events: {recovered}");
    assert_eq!(recovered["level"], "error");

    let session_id = new_session(&daemon).await;
    daemon.kill().await;
    daemon = builder(&mount).state_from(&daemon).start().await;
    // A reader receives a gap at the lost range and continues after it.
    let (_, log) = read_kept(daemon.base_url()).await;
    let log = log.iter().map(|text| seq(&serde_json::from_str(text).unwrap()));
    let kept: Vec<u64> = log.take_while(|&number| number <= seq(&recovered)).collect();
    let expected = (1..=seq(&recovered)).filter(|number| !lost.contains(number));
    assert_eq!(
        kept,
        expected.collect::<Vec<_>>(),
        "the missing events differ from the reported range: {recovered}"
    );
    get(&daemon, &format!("{SESSIONS}/{session_id}")).await.data(200);
    let record = get(&daemon, &format!("{SESSIONS}/{busy}")).await.data(200)["session"].clone();
    assert_eq!((&record["lastTurnId"], &record["currentTurnId"]), (&json!(long), &Value::Null));
}

/// The state directory has space while the logs directory is full: the records must not get ahead of the log.
#[tokio::test]
async fn sigkill_with_full_disk_keeps_the_log() {
    let Some(mount) = or_skip("a kill with a full disk", Mount::memory(3 * 1024)) else { return };
    let builder = || Daemon::builder().arg("--logs-dir").arg(mount.path().join("logs"));
    let mut daemon = builder().start().await;
    let busy = new_session(&daemon).await;
    let (epoch, before) = read_all(daemon.base_url()).await;
    let mut stream = EventStream::connect(&daemon).await;
    stream.hello().await;
    start_turn(&daemon, &busy, "deltas=300 delay=5 chars=500").await;
    let filler = fill(&mount);
    stream.wait_for("storage.failed", |event| is(event, "storage.failed")).await;
    let end = stream.wait_for("the end of the turn", |event| is(event, "app-server.turn.completed")).await;
    // The daemon writes the records about once a second.
    let state = daemon.state_dir().join("daemon-state.json");
    let written = fs::metadata(&state).unwrap().modified().unwrap();
    let later = wait_until_async("a second to pass", async || {
        written.elapsed().ok().filter(|age| age.as_millis() > 1500)
    });
    later.await;
    daemon.kill().await;
    fs::remove_file(filler).unwrap();
    daemon = builder().state_from(&daemon).start().await;
    let (now, after) = read_all(daemon.base_url()).await;
    assert_eq!(now, epoch, "the epoch of the log changed");
    assert_eq!(after[..before.len()], before);
    let next: Value = serde_json::from_str(&after[after.len() - 1]).unwrap();
    assert!(seq(&next) > seq(&end), "published sequence numbers are reused");
}
