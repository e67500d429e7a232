//! `codexd backup` of a running and of a stopped daemon.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{STATE_FILES, json_file, names, sealed, stopped_daemon};
use crate::api::{
    CommandOutput, SESSIONS, new_session, run_command, start_turn, wait_until_idle, wait_until_ready,
};
use crate::support::daemon::{Daemon, codexd};
use crate::support::http::get;
use crate::support::scratch;
use crate::support::websocket::EVENTS_PATH;

/// Runs `codexd backup TO` for the directories of a daemon.
async fn backup(daemon: &Daemon, to: &Path, arguments: &[&str]) -> CommandOutput {
    let mut command = codexd(to.parent().unwrap());
    command.arg("backup").arg(to).args(arguments);
    command.arg("--state-dir").arg(daemon.state_dir()).arg("--logs-dir").arg(daemon.logs_dir());
    run_command(command).await
}

async fn backup_in_json(daemon: &Daemon, to: &Path) -> Value {
    let ended = backup(daemon, to, &["--json"]).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", ended.stdout);
    serde_json::from_str(&ended.stdout).unwrap()
}

fn log_of(backup: &Path) -> Vec<Value> {
    let logs = backup.join("logs");
    let files = sealed(&logs).into_iter().chain([logs.join("events.jsonl")]);
    let text: String = files.map(|path| fs::read_to_string(path).unwrap()).collect();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn assert_private(directory: &Path) {
    assert_eq!(fs::metadata(directory).unwrap().mode() & 0o7777, 0o700, "{}", directory.display());
    for name in names(directory) {
        let path = directory.join(name);
        if path.is_dir() {
            assert_private(&path);
        } else {
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600, "{}", path.display());
        }
    }
}

/// Starts a daemon on a copy of the backup, restored as the manual describes.
async fn restored(backup: &Path) -> Daemon {
    let root = scratch::directory("restored");
    for name in ["state", "logs"] {
        let to = root.path().join("repo").join(name);
        fs::create_dir_all(&to).unwrap();
        let copied =
            std::process::Command::new("cp").arg("-R").arg(backup.join(name)).arg(to.join("codexd")).status();
        assert!(copied.unwrap().success());
    }
    let daemon = Daemon::builder().within(root).start().await;
    wait_until_ready(&daemon).await;
    let events = daemon.events_on_disk();
    assert!(!events.iter().any(|event| event["type"] == "log.damaged"), "the restored log has gaps");
    daemon
}

#[tokio::test]
async fn backup_of_running_daemon_has_every_event_before_it() {
    let daemon = Daemon::builder().arg("--event-segment-bytes").arg("5000").start().await;
    wait_until_ready(&daemon).await;
    let session_id = new_session(&daemon).await;
    let epoch = json_file(&daemon.logs_dir().join("event-log.json"))["epoch"].clone();
    let directory = scratch::directory("backup");
    let turns = RefCell::new(Vec::new());
    let writes = async {
        loop {
            let turn_id = start_turn(&daemon, &session_id, "deltas=100").await;
            turns.borrow_mut().push(turn_id);
            wait_until_idle(&daemon, &session_id).await;
        }
    };
    let backups = async {
        for number in 0..8 {
            let acknowledged = turns.borrow().clone();
            let to = directory.path().join(format!("backup-{number}"));
            let report = backup_in_json(&daemon, &to).await;
            let log = log_of(&to);
            let seqs: Vec<u64> = log.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
            assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "backup {number}");
            assert_eq!(report["events"], json!({ "first": 1, "last": seqs.len() }));
            assert_eq!((&report["missing"], &report["directory"]), (&json!([]), &json!(to)));
            for turn_id in acknowledged {
                let accepted = |event: &Value| {
                    event["type"] == "turn.accepted" && event["detail"]["turnId"] == turn_id.as_str()
                };
                assert!(log.iter().any(accepted), "backup {number} lacks the turn {turn_id}");
            }
            for name in ["daemon-state.json", "session-registry.json", "records.json", "recent-events.json"] {
                let through = json_file(&to.join("state").join(name))["throughSeq"].as_u64().unwrap();
                assert!(through <= seqs.len() as u64, "{name} is ahead of the log: {through}");
            }
        }
    };
    tokio::select! {
        () = writes => {}
        () = backups => {}
    }
    let last = directory.path().join("backup-7");
    assert!(sealed(&last.join("logs")).len() > 5, "the test needs more segments");
    assert_private(&last);
    let restored = restored(&last).await;
    let read = get(&restored, &format!("{SESSIONS}/{session_id}")).await;
    assert_eq!(read.data(200)["session"]["sessionId"], session_id.as_str());
    let page = get(&restored, &format!("{EVENTS_PATH}?after=0&limit=1")).await;
    assert_ne!(
        page.data(200)["epoch"],
        epoch,
        "the restored log must have a new epoch, because the original log continued"
    );
}

#[tokio::test]
async fn backup_of_stopped_daemon_restores_its_state() {
    let daemon = stopped_daemon().await;
    fs::write(daemon.state_dir().join("auth-token"), "t".repeat(64)).unwrap();
    fs::create_dir(daemon.logs_dir().join("attachments")).unwrap();
    fs::write(daemon.logs_dir().join("attachments/a"), "image").unwrap();
    let directory = scratch::directory("backup");
    // The target may be an empty directory.
    let to = directory.path().join("backup");
    fs::create_dir(&to).unwrap();
    let shown = backup(&daemon, &to, &[]).await;
    assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""));
    let last = daemon.events_on_disk().last().unwrap()["seq"].clone();
    let line = |name: &str| shown.stdout.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(line("backup ").ends_with(to.to_str().unwrap()), "{}", shown.stdout);
    assert!(line("events ").ends_with(&format!(" 1 to {last}")), "{}", shown.stdout);
    assert!(!shown.stdout.contains("missing"), "{}", shown.stdout);
    assert_private(&to);
    let mut expected = [&STATE_FILES[..], &["auth-token"]].concat();
    expected.sort_unstable();
    assert_eq!(names(&to.join("state")), expected);
    assert_eq!(names(&to.join("logs")), ["attachments", "event-log.json", "events.jsonl"]);
    assert_eq!(fs::read(to.join("logs/attachments/a")).unwrap(), b"image");
    for name in expected {
        let (copy, source) = (to.join("state").join(name), daemon.state_dir().join(name));
        assert_eq!(fs::read(copy).unwrap(), fs::read(source).unwrap(), "{name}");
    }
    assert_eq!(names(directory.path()), ["backup"], "the backup left other files");

    let before = json_file(&to.join("state/session-registry.json"))["sessions"].clone();
    let restored = restored(&to).await;
    let sessions = get(&restored, SESSIONS).await.data(200)["sessions"].clone();
    assert_eq!(sessions[0]["sessionId"], before[0]["sessionId"]);
    assert_eq!(sessions[0]["lastTurnId"], before[0]["lastTurnId"]);
    let turn_path = format!(
        "{SESSIONS}/{}/turns/{}",
        before[0]["sessionId"].as_str().unwrap(),
        before[0]["lastTurnId"].as_str().unwrap()
    );
    assert_eq!(get(&restored, &turn_path).await.data(200)["turn"]["status"], "completed");
}

/// Asserts that the backup fails with this exit code, reports these texts and leaves no file.
async fn assert_refused(daemon: &Daemon, to: &Path, code: i32, texts: &[&str]) {
    let before = names(to.parent().unwrap());
    let ended = backup(daemon, to, &["--json"]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(code), ""), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    for text in texts {
        assert!(ended.stderr.contains(text), "no {text} in {}", ended.stderr);
    }
    assert_eq!(names(to.parent().unwrap()), before);
}

#[tokio::test]
async fn refused_backup_reports_cause_and_leaves_no_files() {
    let daemon = stopped_daemon().await;
    let directory: TempDir = scratch::directory("backup");
    let at = |name: &str| -> PathBuf { directory.path().join(name) };
    fs::create_dir(at("full")).unwrap();
    fs::write(at("full").join("precious"), "p").unwrap();
    fs::write(at("file"), "f").unwrap();
    fs::create_dir(at("begun.new")).unwrap();
    assert_refused(&daemon, &at("full"), 2, &["/full is not empty", "does not exist yet"]).await;
    assert_refused(&daemon, &at("file"), 2, &["/file is not a directory"]).await;
    assert_refused(&daemon, &at("begun"), 2, &["/begun.new exists", "remove it"]).await;
    assert_eq!(fs::read(at("full").join("precious")).unwrap(), b"p");

    // Root can read every file, so the test uses files that are refused for every user.
    for (directory, name) in [
        (daemon.state_dir(), "session-registry.json"),
        (daemon.logs_dir(), "event-log.json"),
        (daemon.logs_dir(), "events.jsonl"),
    ] {
        let (path, away) = (directory.join(name), directory.join("away"));
        fs::rename(&path, &away).unwrap();
        symlink(&away, &path).unwrap();
        assert_refused(&daemon, &at("copy"), 1, &["No backup was created", name, "is a symlink"]).await;
        fs::rename(&away, &path).unwrap();
    }

    let registry = daemon.state_dir().join("session-registry.json");
    let original = fs::read(&registry).unwrap();
    fs::write(&registry, r#"{"formatVersion":5}"#).unwrap();
    assert_refused(&daemon, &at("copy"), 1, &["session-registry.json was written by a newer codexd"]).await;
    fs::write(&registry, original).unwrap();

    let log = daemon.logs_dir().join("events.jsonl");
    let text = fs::read_to_string(&log).unwrap();
    fs::write(&log, text.lines().take(3).map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    assert_refused(
        &daemon,
        &at("copy"),
        1,
        &["ends at event 3", "the state files know event", "Start codexd"],
    )
    .await;
    fs::write(&log, text).unwrap();
    assert_eq!(backup_in_json(&daemon, &at("copy")).await["ok"], true);

    let mut command = codexd(directory.path());
    command
        .arg("backup")
        .arg(at("empty"))
        .arg("--state-dir")
        .arg(at("no-state"))
        .arg("--logs-dir")
        .arg(at("no-logs"));
    let ended = run_command(command).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("There is nothing to back up"), "{}", ended.stderr);
    assert!(!at("empty").exists() && !at("no-state").exists(), "{}", ended.stderr);
}

#[tokio::test]
async fn restore_puts_a_backup_in_place_and_keeps_what_it_replaces() {
    let mut daemon = Daemon::builder().start().await;
    wait_until_ready(&daemon).await;
    let first = new_session(&daemon).await;
    let directory = scratch::directory("backup");
    let copy = directory.path().join("copy");
    backup_in_json(&daemon, &copy).await;
    let second = new_session(&daemon).await;
    let restore = async |daemon: &Daemon, from: &Path| {
        let mut command = codexd(directory.path());
        command.arg("restore").arg(from);
        command.arg("--state-dir").arg(daemon.state_dir()).arg("--logs-dir").arg(daemon.logs_dir());
        run_command(command).await
    };

    let ended = restore(&daemon, &copy).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("is in use by codexd"), "{ended:?}");
    daemon.stop().await;
    let before = names(&daemon.state_dir());
    let ended = restore(&daemon, &directory.path().join("nothing")).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("is not a backup"), "{ended:?}");
    assert_eq!(names(&daemon.state_dir()), before);

    let ended = restore(&daemon, &copy).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    let kept: Vec<_> =
        ended.stdout.lines().filter_map(|line| line.strip_prefix("kept")).map(str::trim).collect();
    let [state, logs] = kept[..] else { panic!("{ended:?}") };
    assert!(fs::read_to_string(Path::new(state).join("session-registry.json")).unwrap().contains(&second));
    assert!(Path::new(logs).join("events.jsonl").exists());
    assert_private(&daemon.state_dir());

    let daemon = Daemon::builder().state_from(&daemon).start().await;
    let known = get(&daemon, &format!("{SESSIONS}/{first}")).await;
    assert_eq!(known.status, 200, "{}", known.text);
    get(&daemon, &format!("{SESSIONS}/{second}")).await.error(404, "not_found");
}
