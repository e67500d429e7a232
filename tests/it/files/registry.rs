//! The session registry: the limit on closed sessions, and how a large file is written.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::{Value, json};

use super::{json_file, restart};
use crate::api::{
    SESSIONS, STATUS, create_session, new_session, start_daemon, start_turn, text, wait_for_event_type,
    wait_until_idle,
};
use crate::support::daemon::Daemon;
use crate::support::http::get;
use crate::support::wait::wait_until;
use crate::support::websocket::EVENTS_PATH;

/// Returns a stopped daemon with six sessions; the first four are closed, in another order than their creation.
async fn stopped_daemon() -> (Daemon, Vec<String>) {
    let mut daemon = start_daemon().await;
    let mut session_ids = Vec::new();
    for _ in 0..6 {
        session_ids.push(new_session(&daemon).await);
    }
    daemon.stop().await;
    // Only the file marks them as closed.
    let path = daemon.state_dir().join("records.json");
    let mut records = json_file(&path);
    let sessions = records["sessions"].as_array_mut().unwrap();
    for (index, end) in [(0, 3), (1, 1), (2, 4), (3, 2)] {
        sessions[index]["status"] = json!("closed");
        sessions[index]["updatedAt"] = json!(format!("2026-01-0{end}T00:00:00.000Z"));
    }
    fs::write(&path, records.to_string()).unwrap();
    (daemon, session_ids)
}

async fn listed(daemon: &Daemon) -> Vec<String> {
    let response = get(daemon, SESSIONS).await;
    response.data(200)["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|session| text(&session["sessionId"]))
        .collect()
}

async fn last_seq(daemon: &Daemon) -> u64 {
    let status = get(daemon, STATUS).await;
    let events = &status.data(200)["snapshot"]["recentEvents"]["events"];
    events.as_array().unwrap().last().unwrap()["seq"].as_u64().unwrap()
}

async fn forgotten_events(daemon: &Daemon) -> Vec<Value> {
    let page = get(daemon, &format!("{EVENTS_PATH}?type=session.forgotten")).await;
    page.data(200)["events"].as_array().unwrap().clone()
}

#[tokio::test]
async fn registry_removes_oldest_closed_sessions_above_limit() {
    let (before, ids) = stopped_daemon().await;
    let mut after = restart(&before, &["--closed-session-limit", "2"]).await;
    wait_for_event_type(&after, "app-server.connected").await;
    // The sessions that were closed last stay.
    assert_eq!(listed(&after).await, [&ids[0], &ids[2], &ids[4], &ids[5]].map(String::as_str));
    let removed = forgotten_events(&after).await;
    let names: Vec<_> = removed.iter().map(|event| text(&event["detail"]["sessionId"])).collect();
    assert_eq!(names, [ids[1].as_str(), &ids[3]]);
    assert!(removed.iter().all(|event| event["detail"]["threadId"].is_string()), "{removed:?}");
    get(&after, &format!("{SESSIONS}/{}", ids[1])).await.error(404, "not_found");
    after.stop().await;

    // They stay removed when only the log records the removal.
    let again = restart(&after, &["--closed-session-limit", "2"]).await;
    wait_for_event_type(&again, "app-server.connected").await;
    assert_eq!(listed(&again).await.len(), 4);
    assert_eq!(forgotten_events(&again).await.len(), 2);
}

#[tokio::test]
async fn registry_limit_keeps_active_sessions() {
    let (before, ids) = stopped_daemon().await;
    let after = restart(&before, &["--closed-session-limit", "0"]).await;
    wait_for_event_type(&after, "app-server.connected").await;
    assert_eq!(listed(&after).await, ids[4..]);
    let none = restart(&stopped_daemon().await.0, &["--closed-session-limit", "4"]).await;
    wait_for_event_type(&none, "app-server.connected").await;
    assert_eq!(listed(&none).await.len(), 6);
    assert_eq!(forgotten_events(&none).await, [Value::Null; 0]);
}

#[tokio::test]
async fn change_is_in_large_registry_within_a_second_without_writing_all_of_it() {
    let mut daemon = start_daemon().await;
    let mut ids = Vec::new();
    for _ in 0..40 {
        let metadata = json!({ "label": "x".repeat(15_000) });
        ids.push(text(&create_session(&daemon, json!({ "metadata": metadata })).await["sessionId"]));
    }
    let path = daemon.state_dir().join("session-registry.json");
    let read = |name: &str| json_file(&daemon.state_dir().join(name));
    let wait = async |what: &str| {
        let last = last_seq(&daemon).await;
        let is_through = || read("session-registry.json")["throughSeq"].as_u64().unwrap() >= last;
        wait_until(what, || is_through().then_some(())).await;
    };
    wait("the registry of all sessions").await;
    // The first change after a start replaces the file.
    start_turn(&daemon, &ids[39], "hello").await;
    wait_until_idle(&daemon, &ids[39]).await;
    wait("the first turn").await;
    let (inode, records) = (fs::metadata(&path).unwrap().ino(), read("records.json")["throughSeq"].clone());

    let started = std::time::Instant::now();
    let turn_id = start_turn(&daemon, &ids[7], "hello").await;
    let record = wait_until_idle(&daemon, &ids[7]).await;
    wait_until("the turn", || (read("session-registry.json")["sessions"][7] == record).then_some(())).await;
    assert!(started.elapsed().as_secs() < 30, "{:?}", started.elapsed());
    assert_eq!(record["lastTurnId"], turn_id.as_str());
    ids.push(new_session(&daemon).await);
    wait("one more session").await;
    let listed = |registry: &Value| {
        let sessions = registry["sessions"].as_array().unwrap().iter();
        sessions.map(|session| text(&session["sessionId"])).collect::<Vec<_>>()
    };
    assert_eq!(listed(&read("session-registry.json")), ids);
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode, "a small change replaced a large file");
    assert_eq!(read("records.json")["throughSeq"], records, "a small change wrote all records");

    // What another program did to the file is written over.
    let file = fs::read(&path).unwrap();
    fs::write(&path, &file[..file.len() / 2]).unwrap();
    start_turn(&daemon, &ids[3], "hello").await;
    let record = wait_until_idle(&daemon, &ids[3]).await;
    wait_until("the registry again", || {
        let registry: Value = serde_json::from_slice(&fs::read(&path).unwrap()).ok()?;
        (registry["sessions"][3] == record && listed(&registry) == ids).then_some(())
    })
    .await;

    daemon.kill().await;
    let after = restart(&daemon, &[""; 0]).await;
    assert_eq!(listed(&json!({ "sessions": get(&after, SESSIONS).await.data(200)["sessions"] })), ids);
}
