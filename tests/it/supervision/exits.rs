//! App-servers that exit or are killed.

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use super::{assert_recovered, child, follow, generation, to_pid, types_of_supervision};
use crate::api::{new_session, start_daemon, start_turn, wait_for_backoff_event, wait_until_ready};
use crate::support::daemon::Daemon;
use crate::support::wait::wait_until;

#[tokio::test]
async fn app_server_is_restarted_after_every_kind_of_exit() {
    for (prompt, exit_code, signal) in [
        ("crash=0", json!(0), Value::Null),
        ("crash=1", json!(1), Value::Null),
        ("crash=101", json!(101), Value::Null),
        ("abort", Value::Null, json!("SIGABRT")),
        ("kill", Value::Null, json!("SIGKILL")),
        ("stderr-flood=300000 crash=2", json!(2), Value::Null),
        ("spawn-background=300 spawn-double=300 spawn-double=300 kill", Value::Null, json!("SIGKILL")),
    ] {
        let daemon = start_daemon().await;
        let mut events = follow(&daemon).await;
        let session_id = new_session(&daemon).await;
        start_turn(&daemon, &session_id, prompt).await;
        let child = assert_recovered(&daemon, &mut events, 2).await;
        assert_eq!((&child["deaths"], &child["nextStartAt"]), (&json!(1), &Value::Null), "{prompt}");
        assert_eq!((&child["lastError"], &child["stderrTail"]), (&Value::Null, &json!([])), "{prompt}");
        let backoff = wait_for_backoff_event(&daemon).await;
        let detail = &backoff["detail"];
        assert_eq!((&detail["exitCode"], &detail["signal"]), (&exit_code, &signal), "{prompt}");
        assert_eq!((&backoff["level"], &detail["deaths"]), (&json!("warn"), &json!(1)));
        assert!((400..=600).contains(&detail["delayMs"].as_u64().unwrap()), "{detail}");
        assert!(detail["until"].as_str() > backoff["createdAt"].as_str(), "{backoff}");
        assert_eq!(
            types_of_supervision(&daemon.events_on_disk()),
            [
                "child.started",
                "app-server.connected",
                "app-server.transport.closed",
                "app-server.turn.completed.missing",
                "child.exited",
                "child.backoff",
                "child.started",
                "app-server.connected",
            ],
            "{prompt}"
        );
    }
}

#[tokio::test]
async fn daemon_recovers_from_app_server_signals_during_turns() {
    let daemon = start_daemon().await;
    let mut events = follow(&daemon).await;
    // Each app-server is killed a little later in its turn than the previous one, by another signal.
    for (number, signal) in [(1, Signal::SEGV), (2, Signal::KILL), (3, Signal::KILL), (4, Signal::BUS)] {
        let child = generation(&daemon, number).await;
        let session_id = new_session(&daemon).await;
        start_turn(&daemon, &session_id, "spawn-double=300 deltas=100000 delay=1").await;
        let mut deltas = 0;
        events
            .wait_for("some deltas of the turn", |event| {
                deltas += u64::from(event["type"] == "app-server.turn.message.delta");
                deltas >= number * 7
            })
            .await;
        // The first SIGSEGV or SIGBUS only removes the handler that Rust installs to detect stack overflows.
        wait_until("the exit", || kill_process(to_pid(&child["pid"]), signal).err()).await;
        events.wait_for("child.backoff", |event| event["type"] == "child.backoff").await;
    }
    let child = assert_recovered(&daemon, &mut events, 5).await;
    assert_eq!(child["deaths"], 4);
}

#[tokio::test]
async fn stderr_tail_is_redacted() {
    let daemon = start_daemon().await;
    wait_until_ready(&daemon).await;
    let session_id = new_session(&daemon).await;
    let prompt = "stderr=first stderr=sk-abcdefghijklmnop stderr=OPENAI_API_KEY=hunter22 crash";
    start_turn(&daemon, &session_id, prompt).await;
    let backoff = wait_for_backoff_event(&daemon).await;
    let tail = backoff["detail"]["stderrTail"].as_array().unwrap();
    assert_eq!(tail[tail.len() - 3..], [json!("first"), json!("sk-***"), json!("OPENAI_API_KEY=***")]);
    let stderr_events = daemon.events_on_disk().into_iter().filter(|event| event["type"] == "child.stderr");
    let messages: Vec<String> = stderr_events.map(|event| event["message"].to_string()).collect();
    assert!(messages.iter().any(|message| message.contains("first")), "{messages:?}");
    assert!(
        !messages.iter().any(|message| message.contains("hunter22") || message.contains("abcdefgh")),
        "{messages:?}"
    );
}

/// Starts a daemon with this script as app-server and waits for its exit; returns the daemon and the restart event.
async fn exited_app_server(script: &str) -> (Daemon, Value) {
    let daemon = Daemon::builder().server("/bin/sh", &["-c", script]).start().await;
    let backoff = wait_for_backoff_event(&daemon).await;
    (daemon, backoff)
}

#[tokio::test]
async fn restart_message_quotes_only_the_exit_reason() {
    let log = r"printf '\033[2m2026-11-28T13:12:45.136872Z\033[0m \033[31mERROR\033[0m no bubblewrap\n' >&2";
    for (end, message) in [
        ("exit 1", "The app-server exited with code 1. The next"),
        ("exit 0", "The app-server exited with code 0. The next"),
        ("echo why >&2; kill -KILL $$", "The app-server was ended by SIGKILL. The next"),
        ("echo why >&2; exit 0", "The app-server exited with code 0. The next"),
        ("echo why >&2; exit 3", "The app-server exited with code 3. Error output: why. The next"),
        (
            r"printf '\033[1mError:\033[0m no such setting\nStack backtrace:\n' >&2; exit 1",
            "The app-server exited with code 1. Error output: Error: no such setting. The next",
        ),
    ] {
        let (daemon, backoff) = exited_app_server(&format!("{log}; {end}")).await;
        assert!(backoff["message"].as_str().unwrap().starts_with(message), "{end}: {backoff}");
        let tail = backoff["detail"]["stderrTail"].as_array().unwrap();
        assert_eq!(tail[0], "2026-11-28T13:12:45.136872Z ERROR no bubblewrap", "{end}");
        assert!(!json!(daemon.events_on_disk()).to_string().contains("u001b"), "{end}");
    }
}

#[tokio::test]
async fn empty_stderr_line_records_no_event() {
    let script = r"printf '\n' >&2; read line; echo words >&2; exit 1";
    let (daemon, _) = exited_app_server(script).await;
    let stderr_events = daemon.events_on_disk().into_iter().filter(|event| event["type"] == "child.stderr");
    let messages: Vec<Value> = stderr_events.map(|event| event["message"].clone()).collect();
    assert!(!messages.contains(&json!("stderr: ")), "{messages:?}");
}

#[tokio::test]
async fn exit_before_initialize_reports_connect_failed() {
    let (daemon, _) = exited_app_server("echo broken >&2; exit 4").await;
    let events = daemon.events_on_disk();
    let position = |name: &str| events.iter().position(|event| event["type"] == name).unwrap();
    let failed = &events[position("app-server.connect.failed")];
    assert_eq!(
        (&failed["level"], &failed["detail"]),
        (&json!("error"), &json!({ "endpoint": "stdio://codex-app-server" }))
    );
    let message = failed["message"].as_str().unwrap();
    assert!(message.starts_with("The app-server exited with code 4."), "{message}");
    assert!(position("app-server.connect.failed") < position("app-server.transport.closed"));
}

#[tokio::test]
async fn invalid_responses_do_not_restart_the_app_server() {
    let daemon = start_daemon().await;
    for prompt in ["answer-twice", "answer-foreign", "answer-late=200", "garbage"] {
        let session_id = new_session(&daemon).await;
        start_turn(&daemon, &session_id, prompt).await;
        assert_eq!(
            crate::api::wait_until_idle(&daemon, &session_id).await["lastTurnStatus"],
            "completed",
            "{prompt}"
        );
    }
    let child = child(&daemon).await;
    assert_eq!((&child["generation"], &child["deaths"]), (&json!(1), &json!(0)));
}
