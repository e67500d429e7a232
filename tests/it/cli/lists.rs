//! `sessions`, `requests`, `approve`, `decline`, `interrupt` and `close`.

use serde_json::{Value, json};

use super::{CliUser, assert_answer, user_with_session};
use crate::api::{new_session, run_command, session_record, start_daemon, start_turn, text};
use crate::duplex::{finished_turn, pending_request, resolved_request};
use crate::support::daemon::Daemon;

/// Starts a turn with a server request; returns the turn ID and the request.
async fn turn_with_request(daemon: &Daemon, session_id: &str, prompt: &str) -> (String, Value) {
    let turn_id = start_turn(daemon, session_id, prompt).await;
    (turn_id, pending_request(daemon, session_id).await)
}

#[tokio::test]
async fn sessions_shows_state_of_each_session() {
    let (daemon, user, idle) = user_with_session().await;
    let turn_id = start_turn(&daemon, &idle, "hello").await;
    finished_turn(&daemon, &idle, &turn_id).await;
    assert_answer("sessions", &user.document(&["sessions", "--json"]).await);

    let (busy, waits, closed) =
        (new_session(&daemon).await, new_session(&daemon).await, new_session(&daemon).await);
    start_turn(&daemon, &busy, "hang").await;
    turn_with_request(&daemon, &waits, "ask=command").await;
    assert_eq!(user.run(&["close", &closed]).await.code, Some(0));
    let shown = user.run(&["sessions"]).await;
    assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""));
    let line = |text: &str, name: &str| {
        let found = text.lines().find(|line| line.contains(name)).map(str::to_owned);
        found.unwrap_or_else(|| panic!("no {name} in {text}"))
    };
    assert!(shown.stdout.starts_with("SESSION "), "{}", shown.stdout);
    let of_idle = line(&shown.stdout, &idle);
    // Without a terminal no column is truncated.
    assert!(of_idle.contains(user.directory().to_str().unwrap()), "{of_idle}");
    assert!(of_idle.contains(" idle ") && of_idle.contains(" completed "), "{of_idle}");
    assert!(line(&shown.stdout, &busy).contains(" busy "), "{}", shown.stdout);
    assert!(line(&shown.stdout, &waits).contains(" asks "), "{}", shown.stdout);
    assert!(!shown.stdout.contains(&closed), "{}", shown.stdout);
    let all = user.run(&["sessions", "--all"]).await;
    assert!(line(&all.stdout, &closed).contains(" closed "), "{}", all.stdout);
}

#[tokio::test]
async fn lists_print_sentence_or_empty_json() {
    let daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    for (command, sentence) in [("sessions", "No active sessions.\n"), ("requests", "No pending requests.\n")]
    {
        let shown = user.run(&[command]).await;
        assert_eq!((shown.code, shown.stdout.as_str()), (Some(0), sentence));
        assert_eq!(user.document(&[command, "--json"]).await, json!({ command: [] }));
    }
}

/// Writes to `/dev/full` fail as on a full disk.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn commands_fail_when_stdout_is_full() {
    let (_daemon, user, _) = user_with_session().await;
    for arguments in
        [["sessions"].as_slice(), &["requests", "--json"], &["status"], &["config", "--json"], &["--help"]]
    {
        let mut command = user.command(arguments);
        command.stdout(std::fs::File::options().write(true).open("/dev/full").unwrap());
        let ended = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let stderr = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{arguments:?}: {stderr}");
        assert!(stderr.starts_with("codexd: Failed to write to stdout: "), "{arguments:?}: {stderr}");
    }
}

#[tokio::test]
async fn approve_answers_only_pending_request() {
    let (daemon, user, session_id) = user_with_session().await;
    for (command, decision) in [("approve", "accept"), ("decline", "decline")] {
        let none_pending = user.run(&[command]).await;
        assert_eq!(
            (none_pending.code, none_pending.stderr.as_str()),
            (Some(1), "codexd: No pending requests.\n")
        );

        let (turn_id, request) = turn_with_request(&daemon, &session_id, "ask=command").await;
        let shown = user.run(&["requests"]).await;
        for part in [&text(&request["requestId"]), &session_id, "open", "run /bin/bash -lc 'touch approved'"]
        {
            assert!(shown.stdout.contains(part), "no {part} in {}", shown.stdout);
        }
        if command == "approve" {
            assert_answer("requests", &user.document(&["requests", "--json"]).await);
            assert_answer("approve", &user.document(&["approve", "--json"]).await);
        } else {
            let ended = user.run(&["decline"]).await;
            assert_eq!(ended.code, Some(0), "{ended:?}");
            assert!(ended.stdout.starts_with("decline: run "), "{}", ended.stdout);
        }
        assert_eq!(resolved_request(&daemon, &request["requestId"]).await["decision"], decision);
        assert_eq!(finished_turn(&daemon, &session_id, &turn_id).await["status"], "completed");
    }
    let all = user.run(&["requests", "--all"]).await;
    assert!(all.stdout.contains(" accept ") && all.stdout.contains(" decline "), "{}", all.stdout);
}

#[tokio::test]
async fn approve_requires_id_among_several_requests() {
    let (daemon, user, first) = user_with_session().await;
    let second = new_session(&daemon).await;
    let (turn_id, request) = turn_with_request(&daemon, &first, "ask=command").await;
    let (_, other) = turn_with_request(&daemon, &second, "ask=file").await;
    let refused = user.run(&["approve"]).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    for request in [&request, &other] {
        assert!(refused.stderr.contains(&text(&request["requestId"])), "{}", refused.stderr);
    }
    let id = text(&request["requestId"]);
    let amended =
        user.document(&["approve", &id, "--decision", "acceptWithExecpolicyAmendment", "--json"]).await;
    assert!(amended["request"]["decision"]["acceptWithExecpolicyAmendment"].is_object(), "{amended}");
    assert_eq!(finished_turn(&daemon, &first, &turn_id).await["status"], "completed");

    let again = user.run(&["approve", &id]).await;
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("already resolved"), "{}", again.stderr);
    let unknown = user.run(&["approve", "request-unknown"]).await;
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.stderr.contains("request-unknown"), "{}", unknown.stderr);
}

#[tokio::test]
async fn approve_rejects_decision_not_offered() {
    let (daemon, user, session_id) = user_with_session().await;
    turn_with_request(&daemon, &session_id, "ask=command").await;
    let refused = user.run(&["approve", "--decision", "perhaps"]).await;
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("\"perhaps\"") && refused.stderr.contains("decline"),
        "{}",
        refused.stderr
    );
    let refused = user.run(&["approve", "--answer", "red"]).await;
    assert!(refused.code == Some(1) && refused.stderr.contains("with --decision"), "{refused:?}");
}

#[tokio::test]
async fn approve_answers_questions() {
    let (daemon, user, session_id) = user_with_session().await;
    let (turn_id, first) = turn_with_request(&daemon, &session_id, "ask=questions ask=input").await;
    for (arguments, code, expected) in [
        (["approve"].as_slice(), 1, "Codex asks to answer \"Which colour? What is the secret word?\""),
        (&["approve", "--answer", "2"], 1, "Codex asks 2 questions"),
        (&["approve", "--result", "{"], 2, "--result is not JSON"),
    ] {
        let refused = user.run(arguments).await;
        assert!(refused.code == Some(code) && refused.stderr.contains(expected), "{refused:?}");
    }
    let ended = user.run(&["approve", "--answer", "2", "--answer", "7"]).await;
    assert!(
        ended.code == Some(0) && ended.stdout.starts_with("answered: answer \"Which colour?"),
        "{ended:?}"
    );
    assert_eq!(resolved_request(&daemon, &first["requestId"]).await["resolvedBy"], "client");
    pending_request(&daemon, &session_id).await;
    let result = r#"{"answers": {"colour": {"answers": ["red"]}}}"#;
    assert_eq!(user.run(&["approve", "--result", result]).await.code, Some(0));
    assert_eq!(finished_turn(&daemon, &session_id, &turn_id).await["status"], "completed");
}

#[tokio::test]
async fn approve_accepts_elicitation() {
    let (daemon, user, session_id) = user_with_session().await;
    let (turn_id, request) = turn_with_request(&daemon, &session_id, "ask=leave").await;
    let ended = user.run(&["approve"]).await;
    assert_eq!(
        (ended.code, ended.stdout.starts_with("accept: answer \"May the")),
        (Some(0), true),
        "{ended:?}"
    );
    assert_eq!(resolved_request(&daemon, &request["requestId"]).await["decision"], "accept");
    assert_eq!(finished_turn(&daemon, &session_id, &turn_id).await["status"], "completed");
}

#[tokio::test]
async fn decline_cancel_ends_turn() {
    let (daemon, user, session_id) = user_with_session().await;
    let (turn_id, _) = turn_with_request(&daemon, &session_id, "ask=command").await;
    assert_answer("decline", &user.document(&["decline", "--cancel", "--json"]).await);
    assert_eq!(finished_turn(&daemon, &session_id, &turn_id).await["status"], "interrupted");
}

#[tokio::test]
async fn interrupt_finds_running_turn() {
    let (daemon, user, session_id) = user_with_session().await;
    let none_pending = user.run(&["interrupt"]).await;
    assert_eq!((none_pending.code, none_pending.stderr.as_str()), (Some(1), "codexd: No turn is running.\n"));
    let first = start_turn(&daemon, &session_id, "hang").await;
    assert_answer("interrupt", &user.document(&["interrupt", "--json"]).await);
    assert_eq!(finished_turn(&daemon, &session_id, &first).await["status"], "interrupted");

    let other = new_session(&daemon).await;
    let second = start_turn(&daemon, &session_id, "hang").await;
    start_turn(&daemon, &other, "hang").await;
    let compacted = user.run(&["compact", &session_id]).await;
    assert_eq!(compacted.code, Some(1), "{compacted:?}");
    let advice = format!("has a running turn; wait for it, or interrupt it: codexd interrupt {session_id}\n");
    assert!(compacted.stderr.ends_with(&advice) && !compacted.stderr.contains("whenBusy"), "{compacted:?}");
    let refused = user.run(&["interrupt"]).await;
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains(&session_id) && refused.stderr.contains(&other), "{}", refused.stderr);
    // `last` is the last session of this directory, not of another one.
    let ended = user.run(&["interrupt", "last"]).await;
    assert_eq!((ended.code, ended.stdout), (Some(0), format!("Turn {second} was interrupted.\n")));
    assert!(session_record(&daemon, &other).await["currentTurnId"].is_string());
}

#[tokio::test]
async fn close_closes_or_reports_running_turn() {
    let (daemon, user, session_id) = user_with_session().await;
    start_turn(&daemon, &session_id, "hang").await;
    let refused = user.run(&["close", &session_id]).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("--interrupt"), "{}", refused.stderr);
    assert_answer("close", &user.document(&["close", "last", "--interrupt", "--json"]).await);
    assert_eq!(session_record(&daemon, &session_id).await["status"], "closed");
    let no_session = user.run(&["close", "last"]).await;
    assert_eq!(no_session.code, Some(1));
    assert!(no_session.stderr.contains("No active session uses"), "{}", no_session.stderr);
}

#[tokio::test]
async fn client_commands_without_daemon_name_start() {
    let user = CliUser::at("http://127.0.0.1:1");
    for arguments in [
        ["ask", "hello"].as_slice(),
        &["sessions"],
        &["follow"],
        &["follow", "--after", "0"],
        &["requests"],
        &["approve"],
        &["decline", "request-1"],
        &["interrupt"],
        &["close", "session-1"],
    ] {
        for arguments in [arguments.to_vec(), [arguments, &["--json"]].concat()] {
            let ended = user.run(&arguments).await;
            assert_eq!((ended.code, ended.stdout.as_str()), (Some(3), ""), "{arguments:?}: {ended:?}");
            assert_eq!(ended.stderr.lines().count(), 1, "{arguments:?}: {}", ended.stderr);
            for part in ["No codexd answers", "http://127.0.0.1:1", "codexd start"] {
                assert!(ended.stderr.contains(part), "{arguments:?}: {}", ended.stderr);
            }
        }
    }
}

#[tokio::test]
async fn empty_names_are_usage_errors() {
    let user = CliUser::at("http://127.0.0.1:1");
    for arguments in [
        ["archive", ""].as_slice(),
        &["close", ""],
        &["compact", " "],
        &["rename", "last", ""],
        &["rename", "last", " "],
        &["approve", ""],
        &["ask", "--session", "", "x"],
    ] {
        let refused = user.run(arguments).await;
        assert_eq!(refused.code, Some(2), "{arguments:?}: {refused:?}");
        assert!(!refused.stderr.contains("No codexd answers"), "{arguments:?}: {refused:?}");
    }
}

#[tokio::test]
async fn completions_need_no_daemon() {
    let user = CliUser::at("http://127.0.0.1:1");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ended = user.run(&["completions", shell]).await;
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        assert!(ended.stdout.contains("CODEXD_COMPLETE"), "{}", ended.stdout);
    }
    assert_eq!(completed(&user, &["codexd", "comp"]).await, ["compact", "completions"]);
    assert_eq!(completed(&user, &["codexd", "show", ""]).await.first().map(String::as_str), Some("last"));
}

#[tokio::test]
async fn completions_know_sessions_models_and_event_types() {
    let (_daemon, user, session_id) = user_with_session().await;
    assert_eq!(completed(&user, &["codexd", "close", "session-"]).await, [session_id.as_str()]);
    assert!(!completed(&user, &["codexd", "ask", "--model", ""]).await.is_empty());
    let types = completed(&user, &["codexd", "follow", "--type", "request."]).await;
    assert_eq!(types, ["request.opened", "request.resolved"]);
}

/// What a shell offers for the last of these words.
async fn completed(user: &CliUser, words: &[&str]) -> Vec<String> {
    let mut command = user.command(&[&["--"], words].concat());
    command.env("CODEXD_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string());
    command.env("_CLAP_COMPLETE_COMP_TYPE", "9").env("_CLAP_COMPLETE_SPACE", "true").env("_CLAP_IFS", "\n");
    let ended = run_command(command).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.stdout.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
}
