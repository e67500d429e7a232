//! Size limits: rotation and removal of event log segments, and rotation of the output logs.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{restart, sealed};
use crate::api::{new_session, start_turn, wait_until_idle, wait_until_ready};
use crate::support::daemon::Daemon;
use crate::support::http::get;
use crate::support::wait::wait_until;
use crate::support::websocket::EVENTS_PATH;

const SEGMENT_BYTES: u64 = 300_000;
const LOG_BYTES: u64 = 1_500_000;

fn size(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

fn log_size(logs: &Path) -> u64 {
    sealed(logs).iter().map(|path| size(path)).sum::<u64>() + size(&logs.join("events.jsonl"))
}

fn first_seq(path: &Path) -> u64 {
    let text = fs::read_to_string(path).unwrap();
    serde_json::from_str::<Value>(text.lines().next().unwrap()).unwrap()["seq"].as_u64().unwrap()
}

/// Whether all lines belong to one write batch, which is never split.
fn is_one_batch(path: &Path) -> bool {
    let text = fs::read_to_string(path).unwrap();
    let times = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["createdAt"].clone());
    let mut times: Vec<_> = times.collect();
    times.dedup();
    times.len() == 1
}

async fn page(daemon: &Daemon, query: &str) -> Value {
    get(daemon, &format!("{EVENTS_PATH}?{query}")).await.data(200).clone()
}

#[tokio::test]
async fn log_segments_are_named_by_first_sequence_number() {
    let daemon = Daemon::builder().arg("--event-segment-bytes").arg(SEGMENT_BYTES.to_string()).start().await;
    let session_id = new_session(&daemon).await;
    start_turn(&daemon, &session_id, "deltas=8000").await;
    wait_until_idle(&daemon, &session_id).await;
    let segments = sealed(&daemon.logs_dir());
    // The number of segments depends on the size of the batches.
    assert!(segments.len() >= 2, "{segments:?}");
    for path in &segments {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(name, format!("events-{:020}.jsonl", first_seq(path)));
        assert!(size(path) <= SEGMENT_BYTES || is_one_batch(path), "{name} has {} bytes", size(path));
    }
    // Both the test and the daemon read all segments in order.
    let log = daemon.events_on_disk();
    assert_eq!(log.len() as u64, log.last().unwrap()["seq"].as_u64().unwrap(), "events are missing");
    let middle = page(&daemon, "after=10&limit=1000").await;
    assert_eq!(middle["events"].as_array().unwrap()[..], log[10..log.len().min(1010)]);
}

#[tokio::test]
async fn log_stays_below_size_limit_across_restarts() {
    let limits = [
        "--event-segment-bytes".to_owned(),
        SEGMENT_BYTES.to_string(),
        "--event-log-bytes".to_owned(),
        LOG_BYTES.to_string(),
    ];
    let mut daemon =
        limits.iter().fold(Daemon::builder(), |builder, argument| builder.arg(argument)).start().await;
    let session_id = new_session(&daemon).await;
    for _ in 0..3 {
        start_turn(&daemon, &session_id, "deltas=5000").await;
        wait_until_idle(&daemon, &session_id).await;
        assert!(log_size(&daemon.logs_dir()) <= LOG_BYTES, "{} bytes", log_size(&daemon.logs_dir()));
    }
    let kept = page(&daemon, "limit=1").await;
    let oldest = kept["oldest"].as_u64().unwrap();
    assert!(oldest > 500, "{oldest}");
    assert_eq!(first_seq(&sealed(&daemon.logs_dir())[0]), oldest);
    assert_eq!(kept["events"][0]["seq"], oldest);
    daemon.stop().await;

    let again = restart(&daemon, &limits).await;
    wait_until_ready(&again).await;
    let after = page(&again, "limit=1").await;
    assert!(after["oldest"].as_u64().unwrap() >= oldest);
    assert_eq!(after["epoch"], kept["epoch"], "removal by size must not change the epoch");
    // The segment with the creation of the session was removed; the session still exists.
    assert_eq!(get(&again, &format!("/v1/codexd/sessions/{session_id}")).await.status, 200);
    assert!(log_size(&again.logs_dir()) <= LOG_BYTES);
}

#[tokio::test]
async fn log_size_limit_below_one_segment_is_enforced() {
    let daemon = Daemon::builder().arg("--event-log-bytes").arg(LOG_BYTES.to_string()).start().await;
    let session_id = new_session(&daemon).await;
    start_turn(&daemon, &session_id, "deltas=8000").await;
    wait_until_idle(&daemon, &session_id).await;
    assert!(log_size(&daemon.logs_dir()) <= LOG_BYTES, "{} bytes", log_size(&daemon.logs_dir()));
}

#[tokio::test]
async fn output_log_rotates_and_keeps_one_older_file() {
    const LIMIT_BYTES: u64 = 300_000;
    let daemon = Daemon::builder().arg("--output-log-bytes").arg(LIMIT_BYTES.to_string()).start().await;
    let session_id = new_session(&daemon).await;
    for _ in 0..4 {
        start_turn(&daemon, &session_id, "deltas=2000 stderr-flood=200000").await;
        wait_until_idle(&daemon, &session_id).await;
    }
    let logs = daemon.logs_dir();
    for name in ["stdout.log", "stderr.log"] {
        let (new, old) = (logs.join(name), logs.join(format!("{name}.1")));
        wait_until("the rotated file", || old.exists().then_some(())).await;
        // A block that exceeds the remaining space of a file starts the next file.
        assert!(
            size(&new) <= LIMIT_BYTES && size(&old) <= LIMIT_BYTES,
            "{name}: {} and {}",
            size(&new),
            size(&old)
        );
        assert!(!logs.join(format!("{name}.2")).exists());
    }
    // The two files of stdout together hold the end of the output of the app-server, line by line.
    let text = fs::read_to_string(logs.join("stdout.log.1")).unwrap()
        + &fs::read_to_string(logs.join("stdout.log")).unwrap();
    let mut lines = text.lines();
    lines.next();
    assert!(lines.clone().count() > 100);
    for line in lines {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}
