//! Starts with files that are damaged, missing, of another file type, or written by a newer version.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{STATE_FILES, json_file, names, restart, stopped_daemon};
use crate::api::{SESSIONS, new_session, wait_for_event, wait_for_event_type, wait_until_ready};
use crate::support::daemon::Daemon;
use crate::support::http::get;
use crate::support::websocket::EVENTS_PATH;

const NO_ARGUMENTS: [&str; 0] = [];

/// An object whose fields are of other types than those of any state file.
const WRONG_TYPES: &[u8] = br#"{"daemonId": 1, "started": 1, "sessions": 1, "events": 1}"#;

/// Returns the daemon ID and the sessions, which recovery must preserve.
async fn known(daemon: &Daemon) -> (Value, Value) {
    let status = get(daemon, crate::api::STATUS).await;
    let snapshot = &status.data(200)["snapshot"];
    (snapshot["identity"]["daemonId"].clone(), snapshot["sessionRegistry"]["sessions"].clone())
}

fn known_on_disk(daemon: &Daemon) -> (Value, Value) {
    let file = |name: &str| json_file(&daemon.state_dir().join(name));
    (file("identity.json")["daemonId"].clone(), file("session-registry.json")["sessions"].clone())
}

async fn recovered_message(daemon: &Daemon, name: &str) -> String {
    let names_file = |event: &Value| {
        event["type"] == "state.recovered" && event["message"].as_str().unwrap().contains(name)
    };
    wait_for_event(daemon, name, names_file).await["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn unusable_state_file_is_renamed_and_rebuilt() {
    for name in STATE_FILES {
        let mut daemon = stopped_daemon().await;
        let known_before = known_on_disk(&daemon);
        let path = daemon.state_dir().join(name);
        for (number, damage) in
            [&b"\xff\x00 no JSON"[..], b"[]", b"null", WRONG_TYPES, b""].into_iter().enumerate()
        {
            fs::write(&path, damage).unwrap();
            let mut after = restart(&daemon, &NO_ARGUMENTS).await;
            wait_until_ready(&after).await;
            assert_eq!(known(&after).await, known_before, "{name}, {damage:?}");
            let aside = match number {
                0 => format!("{name}.bad"),
                number => format!("{name}.bad-{number}"),
            };
            assert_eq!(fs::read(after.state_dir().join(&aside)).unwrap(), damage, "{aside}");
            recovered_message(&after, &aside).await;
            assert!(after.stop().await.status.success());
            assert!(json_file(&path).is_object(), "{name} was not rebuilt");
            daemon = after;
        }
    }
}

#[tokio::test]
async fn directory_at_state_file_path_is_renamed_with_contents() {
    let mut daemon = stopped_daemon().await;
    let known_before = known_on_disk(&daemon);
    for name in STATE_FILES {
        let path = daemon.state_dir().join(name);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        fs::write(path.join("precious"), "p").unwrap();
        let mut after = restart(&daemon, &NO_ARGUMENTS).await;
        assert_eq!(known(&after).await, known_before, "{name}");
        let aside = format!("{name}.bad");
        recovered_message(&after, &aside).await;
        assert_eq!(fs::read(after.state_dir().join(aside).join("precious")).unwrap(), b"p");
        after.stop().await;
        daemon = after;
    }
    // The same for the file with the epoch and for the log.
    for name in ["event-log.json", "events.jsonl"] {
        let path = daemon.logs_dir().join(name);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let mut after = restart(&daemon, &NO_ARGUMENTS).await;
        assert_eq!(known(&after).await, known_before, "{name}");
        assert!(after.logs_dir().join(format!("{name}.bad")).is_dir());
        after.stop().await;
        daemon = after;
    }
}

#[tokio::test]
async fn directories_of_newer_version_are_refused_unchanged() {
    for name in STATE_FILES.into_iter().chain(["event-log.json"]) {
        let daemon = stopped_daemon().await;
        let directory = if name == "event-log.json" { daemon.logs_dir() } else { daemon.state_dir() };
        let path = directory.join(name);
        let known = if name == "session-registry.json" { 4 } else { 1 };
        let newer = json!({ "formatVersion": known + 1, "news": true }).to_string();
        let original = fs::read(&path).unwrap();
        fs::write(&path, &newer).unwrap();
        let listed = || (names(&daemon.state_dir()), names(&daemon.logs_dir()));
        let before = (listed(), daemon.events_on_disk());
        let refusal = Daemon::builder().state_from(&daemon).start_refused().await;
        assert_eq!(refusal.status.code(), Some(2), "{name}: {}", refusal.stderr);
        let error = refusal.stderr.lines().find(|line| line.contains(name)).unwrap_or_default();
        let expected = format!("was written by a newer codexd (layout {}, and this one, ", known + 1);
        assert!(error.contains(&expected), "{name}: {}", refusal.stderr);
        assert!(error.contains(&format!(", knows {known})")), "{name}: {}", refusal.stderr);
        assert!(error.contains(path.to_str().unwrap()) && error.contains("--state-dir"), "{error}");
        assert_eq!(refusal.stdout, "", "{name}");
        assert_eq!(fs::read_to_string(&path).unwrap(), newer, "{name}");
        assert_eq!((listed(), daemon.events_on_disk()), before, "{name}: other files changed");
        fs::write(&path, original).unwrap();
        let after = restart(&daemon, &NO_ARGUMENTS).await;
        assert_eq!(self::known(&after).await.1.as_array().unwrap().len(), 1, "{name}");
    }
}

#[tokio::test]
async fn each_state_file_has_its_format_version() {
    let daemon = stopped_daemon().await;
    let version = |name: &str| json_file(&daemon.state_dir().join(name))["formatVersion"].clone();
    // Up to version 3 the registry was what `records.json` is now.
    assert_eq!(STATE_FILES.map(version), [1, 1, 4, 1, 1].map(Value::from), "{STATE_FILES:?}");
}

#[tokio::test]
async fn sessions_without_creation_event_survive_loss_of_another_file() {
    let small = ["--event-segment-bytes", "20000", "--event-log-bytes", "60000"];
    for lost in ["daemon-state.json", "recent-events.json", "identity.json"] {
        let mut daemon =
            small.iter().fold(Daemon::builder(), |builder, argument| builder.arg(argument)).start().await;
        let old = new_session(&daemon).await;
        crate::api::start_turn(&daemon, &old, "deltas=500").await;
        crate::api::wait_until_idle(&daemon, &old).await;
        daemon.stop().await;
        let known_before = known_on_disk(&daemon);
        let created = daemon.events_on_disk().iter().any(|event| event["type"] == "session.created");
        assert!(!created, "the test needs a log without session.created");
        fs::write(daemon.state_dir().join(lost), "{").unwrap();
        let after = restart(&daemon, &small).await;
        assert_eq!(known(&after).await.1, known_before.1, "without {lost}");
    }
}

#[tokio::test]
async fn invalid_sequence_numbers_do_not_prevent_start() {
    for name in ["session-registry.json", "records.json", "daemon-state.json", "recent-events.json"] {
        let daemon = stopped_daemon().await;
        let known_before = known_on_disk(&daemon);
        let path = daemon.state_dir().join(name);
        let mut file = json_file(&path);
        file["throughSeq"] = json!(u64::MAX);
        fs::write(&path, file.to_string()).unwrap();
        let after = restart(&daemon, &NO_ARGUMENTS).await;
        wait_until_ready(&after).await;
        assert_eq!(known(&after).await, known_before, "{name}");
        new_session(&after).await;
        let last = after.events_on_disk().last().unwrap()["seq"].as_u64().unwrap();
        assert!(last < 1 << 53, "{name}: {last}");
    }
    for key in ["reservedThrough", "syncedThrough"] {
        let daemon = stopped_daemon().await;
        let path = daemon.logs_dir().join("event-log.json");
        let mut file = json_file(&path);
        file[key] = json!(u64::MAX);
        fs::write(&path, file.to_string()).unwrap();
        let after = restart(&daemon, &NO_ARGUMENTS).await;
        wait_until_ready(&after).await;
        new_session(&after).await;
        let last = after.events_on_disk().last().unwrap()["seq"].as_u64().unwrap();
        assert!(last < 1 << 53, "{key}: {last}");
    }
}

fn damage(path: &Path, line: usize) {
    let text = fs::read_to_string(path).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines[line] = lines[line].replace("\"createdAt\"", "\u{0}createdAt");
    fs::write(path, lines.join("\n") + "\n").unwrap();
}

#[tokio::test]
async fn log_damage_is_recorded_once_and_reported_to_each_reader() {
    let mut before = stopped_daemon().await;
    let log = before.events_on_disk();
    damage(&before.logs_dir().join("events.jsonl"), 4);
    for _ in 0..2 {
        let mut after = restart(&before, &NO_ARGUMENTS).await;
        wait_until_ready(&after).await;
        let page = async |query: &str| {
            let page = get(&after, &format!("{EVENTS_PATH}?{query}")).await;
            page.data(200)["events"].as_array().unwrap().clone()
        };
        let damaged = crate::support::wait::wait_until_async("the log.damaged event", async || {
            Some(page("after=5&type=log.damaged").await).filter(|events| !events.is_empty())
        });
        let damaged = damaged.await;
        assert_eq!(damaged.len(), 1, "recorded more than once: {damaged:?}");
        let part = &damaged[0]["detail"]["damage"][0];
        assert_eq!((&part["afterSeq"], &part["beforeSeq"]), (&json!(4), &json!(6)));
        assert_eq!(part["file"], after.logs_dir().join("events.jsonl").to_str().unwrap());
        assert!(part["bytes"].as_u64().unwrap() > 100, "{part}");
        assert_eq!((&part["missingFrom"], &part["missingThrough"]), (&json!(5), &json!(5)));
        // A client that reads the damaged range receives a gap and continues after it.
        assert_eq!(page("limit=1000").await, log[..4]);
        let refused = get(&after, &format!("{EVENTS_PATH}?after=4&limit=1000")).await;
        refused.error(410, "cursor_gone");
        let gap = &refused.json["details"];
        assert_eq!(
            (&gap["reason"], &gap["lostFrom"], &gap["lostThrough"]),
            (&json!("lost"), &json!(5), &json!(5))
        );
        let behind = gap["cursor"].as_str().unwrap();
        let events = page(&format!("after={behind}&limit=1000")).await;
        assert_eq!(events[..log.len() - 5], log[5..], "other events are missing");
        after.stop().await;
        before = after;
    }
}

#[tokio::test]
async fn incomplete_last_log_line_is_preserved() {
    let before = stopped_daemon().await;
    let path = before.logs_dir().join("events.jsonl");
    let mut text = fs::read(&path).unwrap();
    text.extend_from_slice(b"{\"seq\":12345,\"half");
    fs::write(&path, text).unwrap();
    let after = restart(&before, &NO_ARGUMENTS).await;
    wait_until_ready(&after).await;
    let recovered = wait_for_event_type(&after, "state.recovered").await;
    assert!(recovered["message"].as_str().unwrap().contains("events.torn"), "{recovered}");
    assert_eq!(fs::read(after.logs_dir().join("events.torn")).unwrap(), b"{\"seq\":12345,\"half");
    assert_eq!(get(&after, SESSIONS).await.data(200)["sessions"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn all_files_except_the_log_may_be_missing() {
    let before = stopped_daemon().await;
    let known_before = known_on_disk(&before);
    for name in STATE_FILES {
        fs::remove_file(before.state_dir().join(name)).unwrap();
    }
    for name in ["stdout.log", "stderr.log", "codexd.lock"] {
        fs::remove_file(before.logs_dir().join(name)).unwrap();
    }
    let after = restart(&before, &NO_ARGUMENTS).await;
    assert_eq!(known(&after).await, known_before);
}

#[tokio::test]
async fn first_start_keeps_existing_identity_and_writes_all_files() {
    let mut first = Daemon::builder().start().await;
    assert!(
        names(&first.state_dir()).iter().filter(|name| STATE_FILES.contains(&name.as_str())).count() == 5
    );
    let child = json_file(&first.state_dir().join("daemon-state.json"))["child"].clone();
    let shown = get(&first, crate::api::STATUS).await.data(200)["snapshot"]["daemon"]["child"].clone();
    for key in ["strategy", "mode", "endpoint", "command", "args", "cwd"] {
        assert!(!child[key].is_null() && child[key] == shown[key], "{key}: {child}");
    }
    assert!(first.stop().await.status.success());
    let identity = json!({
        "daemonId": "5b1b5d3c-6a0e-4a8e-9a55-0d1d6c1f7c11", "nodeId": "mini-main", "repoRoot": "/repo",
        "createdAt": "2026-03-29T10:00:00.000Z", "version": null
    });
    fs::write(first.state_dir().join("identity.json"), identity.to_string()).unwrap();
    let after = restart(&first, &NO_ARGUMENTS).await;
    assert_eq!(known(&after).await.0, identity["daemonId"]);
    assert!(json_file(&after.state_dir().join("identity.json"))["version"].is_string());
}

#[tokio::test]
async fn events_escape_unicode_line_separators() {
    let daemon = Daemon::builder().start().await;
    let session_id = new_session(&daemon).await;
    let input = "one\u{2028}two\u{2029}three\u{85}four";
    crate::api::start_turn(&daemon, &session_id, input).await;
    crate::api::wait_until_idle(&daemon, &session_id).await;
    let log = fs::read_to_string(daemon.logs_dir().join("events.jsonl")).unwrap();
    assert!(!log.contains(['\u{2028}', '\u{2029}', '\u{85}']), "{log}");
    assert!(
        daemon.events_on_disk().iter().any(|event| event.to_string().contains(input)),
        "the log lacks the input"
    );
}
