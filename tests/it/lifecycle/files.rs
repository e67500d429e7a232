//! The files that a daemon leaves on disk, and how the next daemon reads them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::api::{
    SESSIONS, STATUS, assert_keys, create_session, keys, new_session, session_record, start_daemon,
    start_turn, text, wait_for_event_type, wait_until_idle, wait_until_ready,
};
use crate::support::daemon::Daemon;
use crate::support::http::get;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn json_file(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}: {text}", path.display()))
}

/// Starts a daemon, runs a turn in one session and stops the daemon; returns the daemon and the session.
async fn stopped_daemon() -> (Daemon, Value) {
    let mut daemon = start_daemon().await;
    let session_id = text(&create_session(&daemon, json!({ "metadata": { "a": "b" } })).await["sessionId"]);
    start_turn(&daemon, &session_id, "hello").await;
    let record = wait_until_idle(&daemon, &session_id).await;
    assert!(daemon.stop().await.status.success());
    (daemon, record)
}

#[tokio::test]
async fn state_files_have_contract_keys_and_private_permissions() {
    let (daemon, session) = stopped_daemon().await;
    let (state, logs) = (daemon.state_dir(), daemon.logs_dir());
    for directory in [&state, &logs] {
        assert_eq!(mode(directory), 0o700, "{}", directory.display());
    }
    for name in
        ["identity.json", "daemon-state.json", "session-registry.json", "records.json", "recent-events.json"]
    {
        assert_eq!(mode(&state.join(name)), 0o600, "{name}");
    }
    assert_eq!(mode(&state.join("codexd.lock")), 0o600);
    for name in ["events.jsonl", "event-log.json", "codexd.lock", "stdout.log", "stderr.log"] {
        assert_eq!(mode(&logs.join(name)), 0o600, "{name}");
    }
    let identity = json_file(&state.join("identity.json"));
    assert_keys(&identity, &["daemonId", "nodeId", "repoRoot", "createdAt", "version"]);
    let daemon_state = json_file(&state.join("daemon-state.json"));
    assert_keys(&daemon_state, &["started", "startedAt", "stoppedAt", "updatedAt", "pid", "child"]);
    assert_eq!((&daemon_state["started"], &daemon_state["pid"]), (&json!(false), &Value::Null));
    assert!(daemon_state["stoppedAt"].is_string());
    assert_eq!(daemon_state["child"]["status"], "stopped");
    let registry = json_file(&state.join("session-registry.json"));
    assert_keys(&registry, &["updatedAt", "sessions"]);
    assert_eq!(registry["sessions"], json!([session]));
    let recent = json_file(&state.join("recent-events.json"));
    assert_keys(&recent, &["maxEntries", "updatedAt", "events"]);
    let log = daemon.events_on_disk();
    let newest = &log[log.len().saturating_sub(50)..];
    assert_eq!(
        recent["events"],
        json!(newest),
        "recent-events.json is not the end of the log including daemon.stopped"
    );
    for event in &log {
        assert_eq!(keys(event), ["seq", "createdAt", "level", "type", "message", "detail"]);
    }
    assert!(fs::metadata(logs.join("stdout.log")).unwrap().len() > 0);
    let names = |directory: &Path| {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(
        names(&state),
        [
            "codexd.lock",
            "daemon-state.json",
            "identity.json",
            "recent-events.json",
            "records.json",
            "session-registry.json"
        ],
        "unexpected files"
    );
    assert_eq!(
        names(&logs),
        ["codexd.lock", "event-log.json", "events.jsonl", "stderr.log", "stdout.log"],
        "unexpected files"
    );
}

#[tokio::test]
async fn restart_continues_identity_sessions_and_sequence() {
    let (before, session) = stopped_daemon().await;
    let identity = json_file(&before.state_dir().join("identity.json"));
    let last = before.events_on_disk().pop().unwrap();

    let after = Daemon::builder().state_from(&before).start().await;
    let status = get(&after, STATUS).await;
    let snapshot = &status.data(200)["snapshot"];
    assert_eq!(snapshot["identity"], identity);
    assert_eq!(snapshot["sessionRegistry"]["sessions"], json!([session]));
    assert_eq!(snapshot["daemon"]["stoppedAt"], Value::Null);
    let recent = snapshot["recentEvents"]["events"].as_array().unwrap();
    assert!(recent.contains(&last), "the recent events do not continue");
    assert_eq!(recent.len(), 50.min(recent.last().unwrap()["seq"].as_u64().unwrap() as usize));
    let session_id = text(&session["sessionId"]);
    assert_eq!(session_record(&after, &session_id).await, session);
    // `events_on_disk` checks that the sequence numbers strictly increase; the log has the events of both daemons.
    let started = after.events_on_disk().into_iter().filter(|event| event["type"] == "daemon.started");
    let started: Vec<_> = started.map(|event| event["seq"].as_u64()).collect();
    assert_eq!(started.len(), 2);
    assert_eq!(started[1], last["seq"].as_u64().map(|seq| seq + 1));
}

#[tokio::test]
async fn missing_state_files_are_rebuilt_from_the_log() {
    for lost in [
        ["session-registry.json", "records.json", "daemon-state.json", "recent-events.json"].as_slice(),
        &["session-registry.json", "records.json"],
        &["session-registry.json"],
        &["records.json"],
        &["daemon-state.json"],
        &["recent-events.json"],
    ] {
        let (before, session) = stopped_daemon().await;
        for name in lost {
            fs::remove_file(before.state_dir().join(name)).unwrap();
        }
        let log = before.events_on_disk();
        let after = Daemon::builder().state_from(&before).start().await;
        assert_eq!(get(&after, SESSIONS).await.data(200)["sessions"], json!([session]), "without {lost:?}");
        let events = after.events_on_disk();
        assert_eq!(events[log.len()]["type"], "daemon.started", "without {lost:?}");
        assert_eq!(events[..log.len()], log, "without {lost:?}");
    }
}

#[tokio::test]
async fn torn_state_file_is_renamed_and_reported() {
    let (before, session) = stopped_daemon().await;
    let path = before.state_dir().join("session-registry.json");
    fs::write(&path, "{\"sessions\": [").unwrap();
    let after = Daemon::builder().state_from(&before).start().await;
    assert_eq!(get(&after, SESSIONS).await.data(200)["sessions"], json!([session]));
    let recovered = wait_for_event_type(&after, "state.recovered").await;
    assert!(recovered["message"].as_str().unwrap().contains("session-registry.json"), "{recovered}");
    assert_eq!(fs::read_to_string(path.with_extension("json.bad")).unwrap(), "{\"sessions\": [");
}

#[tokio::test]
async fn incomplete_last_log_line_is_removed() {
    let (before, session) = stopped_daemon().await;
    let path = before.logs_dir().join("events.jsonl");
    let log = before.events_on_disk();
    let mut text = fs::read(&path).unwrap();
    text.extend_from_slice(b"{\"seq\": 99999, \"crea");
    fs::write(&path, text).unwrap();
    let after = Daemon::builder().state_from(&before).start().await;
    wait_until_ready(&after).await;
    assert_eq!(get(&after, SESSIONS).await.data(200)["sessions"], json!([session]));
    let events = after.events_on_disk();
    assert_eq!(events[..log.len()], log);
    assert!(events[log.len()..].iter().all(|event| event["seq"].as_u64() < Some(99999)));
    wait_for_event_type(&after, "state.recovered").await;
}

#[tokio::test]
async fn restart_reports_turn_interrupted_by_sigkill() {
    let mut before = start_daemon().await;
    let session_id = new_session(&before).await;
    let turn_id = start_turn(&before, &session_id, "hang").await;
    let done = new_session(&before).await;
    let done_turn = start_turn(&before, &done, "hello").await;
    wait_until_idle(&before, &done).await;
    before.kill().await;
    let log = before.events_on_disk();
    // Dropping `after` also ends the processes that the killed daemon left.
    let after = Daemon::builder().state_from(&before).start().await;
    let interrupted = session_record(&after, &session_id).await;
    assert_eq!(
        (&interrupted["lastTurnId"], &interrupted["lastTurnStatus"]),
        (&json!(turn_id), &json!("failed"))
    );
    assert_eq!(interrupted["currentTurnId"], Value::Null);
    let completed = session_record(&after, &done).await;
    assert_eq!(
        (&completed["lastTurnId"], &completed["lastTurnStatus"]),
        (&json!(done_turn), &json!("completed"))
    );
    let events = after.events_on_disk();
    assert_eq!(events[..log.len()], log, "the restart changed the log");
    let missing = events.iter().filter(|event| event["type"] == "app-server.turn.completed.missing");
    let missing: Vec<_> = missing.collect();
    assert_eq!(missing.len(), 1);
    assert_eq!(missing[0]["detail"]["turnId"], turn_id);
    assert_eq!(missing[0]["detail"]["transportCloseSource"], "daemon.restart");
    assert_eq!(missing[0]["detail"]["failureClass"], "transport_closed_before_turn_completed");
}

#[tokio::test]
async fn acknowledged_turn_survives_immediate_sigkill() {
    let mut daemon = start_daemon().await;
    for _ in 0..5 {
        let session_id = new_session(&daemon).await;
        let turn_id = start_turn(&daemon, &session_id, "hang").await;
        daemon.kill().await;
        daemon = Daemon::builder().state_from(&daemon).start().await;
        assert_eq!(session_record(&daemon, &session_id).await["lastTurnId"], turn_id);
    }
    let sessions = get(&daemon, SESSIONS).await;
    assert_eq!(sessions.data(200)["sessions"].as_array().unwrap().len(), 5);
}
