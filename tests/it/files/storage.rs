//! A disk that rejects writes and recovers, simulated with the file size limit `RLIMIT_FSIZE`.

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};

use super::remove_directory;
use crate::api::{
    SESSIONS, new_session, request_turn, session_record, start_turn, text, wait_until_idle,
    wait_until_not_ready, wait_until_ready,
};
use crate::support::daemon::Daemon;
use crate::support::http::{get, post};
use crate::support::websocket::{EVENTS_PATH, EventStream};

/// Limits the size of files that the daemon writes; `None` removes the limit.
fn limit_files(daemon: &Daemon, bytes: Option<u64>) {
    let pid = Pid::from_raw(i32::try_from(daemon.pid()).unwrap());
    prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

#[tokio::test]
async fn failing_disk_keeps_reads_available_and_loses_no_event() {
    let mut daemon = Daemon::builder().start().await;
    wait_until_ready(&daemon).await;
    let session_id = new_session(&daemon).await;
    let mut stream = EventStream::connect(&daemon).await;
    let hello = stream.hello().await;
    limit_files(&daemon, Some(1));

    // The daemon cannot acknowledge the turn that the app-server has started, and starts no new work.
    request_turn(&daemon, &session_id, "deltas=5").await.error(503, "storage_unavailable");
    let failed = stream.wait_for("storage.failed", |event| event["type"] == "storage.failed").await;
    assert_eq!(failed["level"], "error");
    assert!(failed["detail"]["reason"].is_string(), "{failed}");
    let reason = wait_until_not_ready(&daemon, "The event log cannot be written").await;
    assert!(reason.ends_with('.'), "{reason}");
    let refused = post(&daemon, SESSIONS, &json!({})).await;
    assert!(
        refused.error(503, "storage_unavailable").contains("disk of the logs directory"),
        "{}",
        refused.text
    );
    assert_eq!(refused.headers["retry-after"], "1");

    // Reads still work: records, pages and the stream.
    assert_eq!(text(&session_record(&daemon, &session_id).await["sessionId"]), session_id);
    let ends = |event: &Value| event["type"] == "app-server.turn.completed";
    let at = hello["cursor"].as_str().unwrap();
    let page = get(&daemon, &format!("{EVENTS_PATH}?after={at}&type=storage.")).await;
    assert_eq!(page.data(200)["events"], json!([failed]));
    let mut second = EventStream::connect_to(&daemon, &format!("{EVENTS_PATH}?after={at}"), &[]).await;
    second.hello().await;
    let unwritten = second.collect_until("the end of the unacknowledged turn", ends).await;

    limit_files(&daemon, None);
    let recovered = stream.wait_for("storage.recovered", |event| event["type"] == "storage.recovered").await;
    assert_eq!(recovered["detail"], json!({ "lostFrom": null, "lostThrough": null }));
    wait_until_ready(&daemon).await;
    wait_until_idle(&daemon, &session_id).await;
    start_turn(&daemon, &session_id, "deltas=5").await;
    wait_until_idle(&daemon, &session_id).await;
    assert!(daemon.stop().await.status.success());
    let log = daemon.events_on_disk();
    let seqs: Vec<_> = log.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=log.len() as u64).collect::<Vec<_>>(), "events are missing or duplicated");
    for event in &unwritten {
        assert!(log.contains(event), "{event}");
    }
    let count = |event_type: &str| log.iter().filter(|event| event["type"] == event_type).count();
    assert_eq!((count("storage.failed"), count("storage.recovered")), (1, 1));

    let after = Daemon::builder().state_from(&daemon).start().await;
    assert_eq!(text(&session_record(&after, &session_id).await["lastTurnStatus"]), "completed");
}

/// The last sync of a stop may be the first one that finds the file gone.
#[tokio::test]
async fn log_that_is_removed_before_a_stop_has_all_events_after_it() {
    let mut daemon = Daemon::builder().start().await;
    let session_id = new_session(&daemon).await;
    start_turn(&daemon, &session_id, "hello").await;
    wait_until_idle(&daemon, &session_id).await;
    std::fs::remove_file(daemon.logs_dir().join("events.jsonl")).unwrap();
    assert!(daemon.stop().await.status.success());
    let events = daemon.events_on_disk();
    let numbers: Vec<_> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>());
    assert!(events.iter().any(|event| event["type"] == "daemon.stopped"), "{events:#?}");
}

#[tokio::test]
async fn removed_log_is_rewritten_without_rejecting_requests() {
    let mut daemon = Daemon::builder().start().await;
    let session_id = new_session(&daemon).await;
    start_turn(&daemon, &session_id, "hello").await;
    let mut sessions = vec![session_id];
    for _ in 0..3 {
        remove_directory(&daemon.logs_dir());
        // An error would make the client repeat a request that took effect.
        let session_id = text(&post(&daemon, SESSIONS, &json!({})).await.data(201)["session"]["sessionId"]);
        remove_directory(&daemon.logs_dir());
        request_turn(&daemon, &session_id, "hello").await.data(202);
        wait_until_idle(&daemon, &session_id).await;
        sessions.push(session_id);
    }
    daemon.kill().await;

    let daemon = Daemon::builder().state_from(&daemon).start().await;
    let known = get(&daemon, SESSIONS).await;
    let known = known.data(200)["sessions"].as_array().unwrap();
    let known: Vec<_> = known.iter().map(|session| text(&session["sessionId"])).collect();
    assert_eq!(known, sessions, "each session must exist once");
    let log = daemon.events_on_disk();
    let count = |event_type: &str| log.iter().filter(|event| event["type"] == event_type).count();
    assert_eq!((count("turn.accepted"), count("session.created")), (4, 4));
    assert_eq!((count("storage.failed"), count("storage.recovered")), (6, 6));
}
