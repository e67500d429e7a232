//! The commands on a terminal.

use serde_json::json;

use super::CliUser;
use super::link::ProxyLink;
use crate::api::{create_session, new_session, start_daemon, start_turn, text};
use crate::duplex::{current_request, decide, pending_request, resolved_request};
use crate::support::http::get;
use crate::support::terminal::Terminal;
use crate::support::wait::wait_until_async;

const QUESTION: &str = "Your decision (y, n, 1 to 4): ";

/// Waits for a pending request.
async fn request(daemon: &crate::support::daemon::Daemon) -> serde_json::Value {
    wait_until_async("a request", async || {
        let requests = get(daemon, "/v1/codexd/requests").await.data(200)["requests"].clone();
        requests.as_array().unwrap().iter().find(|request| request["status"] == "pending").cloned()
    })
    .await
}

#[tokio::test]
async fn ask_prompt_lists_decisions_and_accepts_number() {
    let daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    for (typed, decision, code, expected) in [
        ("y\n", json!("accept"), 0, "✓ touch approved\r\n"),
        ("decline\n", json!("decline"), 0, "✗ touch approved · declined\r\n"),
        ("No\n", json!("decline"), 0, "done"),
        ("4\n", json!("cancel"), 4, "The turn was interrupted."),
        (
            "2\n",
            json!({ "acceptWithExecpolicyAmendment": { "execpolicy_amendment": ["touch", "approved"] } }),
            0,
            "done",
        ),
    ] {
        let mut command = user.command(&["ask", "ask=command text=done"]);
        command.env("NO_COLOR", "1");
        let mut terminal = Terminal::start(command, 80);
        terminal.shows(QUESTION).await;
        for line in [
            "Codex asks to run touch approved",
            "1  yes\r\n",
            "2  yes, and do not ask again for commands that begin with \"touch approved\"\r\n",
            "3  no, and go on without it\r\n",
            "4  no, and end the turn\r\n",
        ] {
            assert!(terminal.text().contains(line), "no {line:?} in {}", terminal.text());
        }
        let request = request(&daemon).await;
        terminal.type_in("5\n");
        terminal.shows("y, n, a number from 1 to 4, or the name of a decision: ").await;
        terminal.type_in(typed);
        let (ended, shown) = terminal.ended().await;
        assert_eq!(ended, Some(code), "{shown}");
        assert!(shown.contains(expected), "{shown}");
        assert_eq!(resolved_request(&daemon, &request["requestId"]).await["decision"], decision);
    }
}

#[tokio::test]
async fn ask_prompt_lists_files_of_patch() {
    let daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    let directory = user.directory().join("a-name-that-is-too-long-for-the-line-of-a-narrow-terminal\u{9b}");
    std::fs::create_dir(&directory).unwrap();
    let line = "  add approved.txt";
    let arguments = ["ask", "ask=file text=done", "--cwd", directory.to_str().unwrap()];
    let mut command = user.command(&arguments);
    command.env("NO_COLOR", "1");
    let mut terminal = Terminal::start(command, 60);
    terminal.shows("Your decision (y, n, 1 to ").await;
    assert!(terminal.text().contains(line), "no {line:?} in {}", terminal.text());
    terminal.type_in("\u{4}");
    terminal.shows_again(line, "answer with codexd approve request-").await;
    decide(&daemon, &request(&daemon).await["requestId"], "accept").await;
    assert_eq!(terminal.ended().await.0, Some(0));
}

#[tokio::test]
async fn ask_prompts_questions_in_turn_and_hides_secret() {
    let daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    let mut terminal = Terminal::start(user.command(&["ask", "ask=questions text=done"]), 200);
    terminal.shows("Your answer, 1 to 2 or any text (empty to decline): ").await;
    let request = request(&daemon).await;
    for line in ["Codex asks: Which colour?", "  1  red: The first one\r\n", "  2  blue: The other one\r\n"] {
        assert!(terminal.text().contains(line), "no {line:?} in {}", terminal.text());
    }
    terminal.type_in("2\n");
    terminal.shows("Your answer (hidden, empty to decline): ").await;
    terminal.type_in("sesame\n");
    let (code, shown) = terminal.ended().await;
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("What is the secret word?") && !shown.contains("sesame"), "{shown}");
    let resolved = resolved_request(&daemon, &request["requestId"]).await;
    assert_eq!((&resolved["resolvedBy"], &resolved["decision"]), (&json!("client"), &json!(null)));

    let mut terminal = Terminal::start(user.command(&["ask", "ask=questions text=done"]), 200);
    terminal.shows("empty to decline): ").await;
    terminal.type_in("\n");
    let (code, shown) = terminal.ended().await;
    assert_eq!(code, Some(0), "{shown}");
    assert!(!shown.contains("What is the secret word?"), "{shown}");
}

#[tokio::test]
async fn ask_restores_echo_when_interrupted_at_secret() {
    let daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    let mut terminal = Terminal::start(user.command(&["ask", "ask=questions text=done"]), 200);
    terminal.shows("empty to decline): ").await;
    terminal.type_in("red\n");
    terminal.shows("hidden").await;
    assert!(!terminal.echoes());
    terminal.interrupt();
    wait_until_async("the terminal to echo input", async || terminal.echoes().then_some(())).await;
    assert_eq!(terminal.ended().await.0, Some(4));
}

#[tokio::test]
async fn ask_discards_input_typed_before_prompt() {
    let daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    let mut terminal = Terminal::start(user.command(&["ask", "ask=command ask=file text=done"]), 80);
    terminal.shows(QUESTION).await;
    let first = request(&daemon).await;
    // Two lines at once: the second one must not answer a question that was not shown yet.
    terminal.type_in("3\n1\n");
    resolved_request(&daemon, &first["requestId"]).await;
    terminal.shows("Codex asks to change files").await;
    let second = request(&daemon).await;
    assert_ne!(second["requestId"], first["requestId"]);
    terminal.type_in("decline\n");
    let (code, shown) = terminal.ended().await;
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!(resolved_request(&daemon, &second["requestId"]).await["decision"], "decline", "{shown}");
}

#[tokio::test]
async fn ask_prompt_ends_when_other_client_answers() {
    let daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    let terminal = Terminal::start(user.command(&["ask", "ask=command text=done"]), 80);
    terminal.shows(QUESTION).await;
    decide(&daemon, &request(&daemon).await["requestId"], "accept").await;
    let (code, shown) = terminal.ended().await;
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("answered by another client: accept") && shown.contains("done"), "{shown}");
}

#[tokio::test]
async fn ask_repeats_prompt_after_undelivered_answer() {
    let daemon = start_daemon().await;
    let link = ProxyLink::to(&daemon).await;
    let user = CliUser::at(link.base());
    let mut terminal = Terminal::start(user.command(&["ask", "ask=command text=done"]), 200);
    terminal.shows(QUESTION).await;
    let request = request(&daemon).await;
    link.disconnect();
    terminal.shows("waiting for codexd").await;
    terminal.type_in("1\n");
    terminal.shows("Failed to deliver the answer").await;
    link.reconnect();
    terminal.shows_again(QUESTION, "Reconnected to codexd").await;
    assert_eq!(current_request(&daemon, &request["requestId"]).await["status"], "pending");
    terminal.type_in("1\n");
    let (code, shown) = terminal.ended().await;
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("done"), "{shown}");
    assert_eq!(resolved_request(&daemon, &request["requestId"]).await["decision"], "accept");
}

#[tokio::test]
async fn ask_repeats_prompt_below_other_output() {
    let daemon = start_daemon().await;
    let link = ProxyLink::to(&daemon).await;
    let user = CliUser::at(link.base());
    let mut command = user.command(&["ask", "ask=questions hang"]);
    command.env("NO_COLOR", "1");
    let mut terminal = Terminal::start(command, 200);
    terminal.shows("empty to decline): ").await;
    terminal.type_in("red\n");
    let secret = "Your answer (hidden, empty to decline): ";
    terminal.shows(secret).await;
    link.disconnect();
    terminal.shows(&format!("{secret}\r\ncodexd: Connection lost; waiting for codexd.\r\n")).await;
    terminal.shows_again(secret, "waiting for codexd").await;
    link.reconnect();
    terminal.shows(&format!("{secret}\r\ncodexd: Reconnected to codexd.\r\n")).await;
    terminal.shows_again(secret, "Reconnected to codexd").await;
    assert!(!terminal.echoes());
    terminal.type_in("sesame\n");
    wait_until_async("the terminal to echo input", async || terminal.echoes().then_some(())).await;
    let request = get(&daemon, "/v1/codexd/requests").await.data(200)["requests"][0].clone();
    assert_eq!(resolved_request(&daemon, &request["requestId"]).await["resolvedBy"], "client");
    terminal.interrupt();
    let (code, shown) = terminal.ended().await;
    assert_eq!(code, Some(4), "{shown}");
    assert!(!shown.contains("sesame"), "{shown}");
}

#[tokio::test]
async fn ask_drops_prompt_resolved_during_gap() {
    let daemon = start_daemon().await;
    let link = ProxyLink::to(&daemon).await;
    let user = CliUser::at(link.base());
    let terminal = Terminal::start(user.command(&["ask", "ask=command hang"]), 80);
    terminal.shows(QUESTION).await;
    let request = request(&daemon).await;
    link.disconnect();
    decide(&daemon, &request["requestId"], "accept").await;
    resolved_request(&daemon, &request["requestId"]).await;
    link.reconnect_without_missed_events();
    terminal.shows_again("no longer pending", "missing: the log was replaced").await;
    terminal.interrupt();
    assert_eq!(terminal.ended().await.0, Some(4));
}

#[tokio::test]
async fn ask_at_end_of_input_reports_request() {
    let daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    let mut terminal = Terminal::start(user.command(&["ask", "ask=command text=done"]), 80);
    terminal.shows(QUESTION).await;
    terminal.type_in("\u{4}");
    terminal.shows("answer with codexd approve request-").await;
    decide(&daemon, &request(&daemon).await["requestId"], "accept").await;
    assert_eq!(terminal.ended().await.0, Some(0));
}

/// `setsid` of util-linux makes the terminal the controlling terminal of the program, as a shell does.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn ask_prompts_terminal_when_stdin_is_pipe() {
    use std::process::Command;

    let daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    let mut command = Command::new("setsid");
    let user_command = user.command(&[]);
    command.env_clear().envs(user_command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let script = "printf 'ask=command text=done' | \"$0\" ask";
    command.args(["--ctty", "--wait", "sh", "-c", script]).arg(env!("CARGO_BIN_EXE_codexd"));
    command.current_dir(user.directory());
    let mut terminal = Terminal::start(command, 80);
    terminal.shows(QUESTION).await;
    terminal.type_in("accept\n");
    let (code, shown) = terminal.ended().await;
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("done"), "{shown}");
}

#[tokio::test]
async fn ask_sanitizes_codex_output_for_terminal() {
    let daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    let prompt = "ask=command command=\u{1b}]0;title\u{7} text=a\u{1b}[2J\u{9b}1mb\u{8}c";
    let mut command = user.command(&["ask", prompt]);
    command.env("NO_COLOR", "1");
    let mut terminal = Terminal::start(command, 200);
    terminal.shows(QUESTION).await;
    terminal.type_in("1\n");
    let (code, shown) = terminal.ended().await;
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("a␛[2J\u{fffd}1mb␈c"), "{shown}");
    assert!(shown.contains("␛]0;title␇"), "{shown}");
    let control_character = shown.chars().find(|c| c.is_control() && !"\r\n\t".contains(*c));
    assert_eq!(control_character, None, "{shown:?}");
}

#[tokio::test]
async fn ask_lays_out_markdown_and_ends_with_totals_at_80_and_140_columns() {
    let daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    for columns in [80, 140] {
        let mut command = user.command(&["ask", "command=ls text=**bold**"]);
        command.env("NO_COLOR", "1");
        let (code, shown) = Terminal::start(command, columns).ended().await;
        assert_eq!(code, Some(0), "{shown}");
        assert!(shown.contains("\r\n\r\nbold\r\n\r\ncompleted in "), "{shown}");
        assert!(shown.ends_with(" · 101 tokens\r\n"), "{shown}");
    }
}

#[tokio::test]
async fn start_prints_three_lines_on_a_terminal_and_stops() {
    let user = CliUser::at("http://127.0.0.1:0");
    let mut command = user.command(&["start", "--demo", "--repo-root", "."]);
    command.env("NO_COLOR", "1");
    let terminal = Terminal::start(command, 200);
    terminal.shows("Ctrl-C stops codexd. Its log is ").await;
    let shown = terminal.text();
    let lines: Vec<&str> = shown.lines().collect();
    assert!(
        lines.len() == 3 && lines[0].starts_with("codexd ") && lines[1].starts_with("Open http://"),
        "{shown}"
    );
    terminal.interrupt();
    let (code, shown) = terminal.ended().await;
    assert!(code == Some(0) && shown.ends_with("codexd has stopped.\r\n"), "{shown}");
    let log = user.directory().join("logs/codexd/demo/codexd.log");
    assert!(std::fs::read_to_string(log).unwrap().contains("listening"));
}

#[tokio::test]
async fn status_json_is_sanitized_for_terminal() {
    let daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    start_turn(&daemon, &new_session(&daemon).await, "stderr=a\u{9b}2J\u{202e}b\u{7f}c").await;
    wait_until_async("the stderr of the app-server in the status", async || {
        let status = get(&daemon, "/v1/codexd/status").await.data(200).to_string();
        status.contains("\u{9b}2J").then_some(())
    })
    .await;
    let (code, shown) = Terminal::start(user.command(&["status", "--json"]), 80).ended().await;
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("a\u{fffd}2J\u{fffd}b␡c"), "{shown}");
    let control_character = shown.chars().find(|c| c.is_control() && !"\r\n".contains(*c));
    assert_eq!(control_character, None, "{shown:?}");
    let piped = user.document(&["status", "--json"]).await.to_string();
    assert!(piped.contains("a\u{9b}2J"), "{piped}");
}

#[tokio::test]
async fn output_uses_colors_only_on_terminals_without_no_color() {
    let daemon = start_daemon().await;
    new_session(&daemon).await;
    let user = CliUser::of(&daemon);
    for (variable, has_color) in [
        (None, true),
        (Some(("NO_COLOR", "1")), false),
        (Some(("CLICOLOR", "0")), false),
        (Some(("TERM", "dumb")), false),
    ] {
        for arguments in [["sessions"].as_slice(), &["ask", "command=ls"]] {
            let mut command = user.command(arguments);
            command.envs(variable);
            let (code, shown) = Terminal::start(command, 80).ended().await;
            assert_eq!(code, Some(0), "{shown}");
            assert_eq!(shown.contains('\u{1b}'), has_color, "{variable:?} {arguments:?}: {shown:?}");
        }
    }
    for arguments in [["sessions"].as_slice(), &["ask", "command=ls"]] {
        let piped = user.run(arguments).await;
        assert!(!(piped.stdout + &piped.stderr).contains('\u{1b}'), "{arguments:?}");
    }
}

#[tokio::test]
async fn requests_lists_full_text_below_row() {
    let daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    let session_id = new_session(&daemon).await;
    start_turn(&daemon, &session_id, "ask=command").await;
    let request = pending_request(&daemon, &session_id).await;
    let mut command = user.command(&["requests"]);
    command.env("NO_COLOR", "1");
    let (code, shown) = Terminal::start(command, 80).ended().await;
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!((code, lines.len()), (Some(0), 3), "{shown}");
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["REQUEST", "SESSION", "STATE", "AGE"]);
    let id = text(&request["requestId"]);
    assert_eq!(lines[1].split_whitespace().take(3).collect::<Vec<_>>(), [&id, &session_id, "open"]);
    assert_eq!(lines[2], "  run /bin/bash -lc 'touch approved'");
    let listed = user.run(&["requests"]).await.stdout;
    assert!(listed.contains("CODEX ASKS TO") && listed.lines().count() == 2, "{listed}");
}

#[tokio::test]
async fn tables_and_lines_fit_terminal_width() {
    let daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    let directory = user.directory().join("世界世界世界世界世界世界世界世界世界世界");
    std::fs::create_dir(&directory).unwrap();
    let session_id = text(&create_session(&daemon, json!({ "cwd": directory })).await["sessionId"]);
    start_turn(&daemon, &session_id, "ask=command").await;
    pending_request(&daemon, &session_id).await;
    for arguments in [["sessions"].as_slice(), &["requests"]] {
        for columns in [40, 70, 100] {
            let mut command = user.command(arguments);
            command.env("NO_COLOR", "1");
            let (code, shown) = Terminal::start(command, columns).ended().await;
            assert_eq!(code, Some(0), "{shown}");
            let (details, lines): (Vec<_>, Vec<_>) = shown.lines().partition(|line| line.starts_with("  "));
            assert_eq!((lines.len(), details.len()), (2, usize::from(arguments == ["requests"])), "{shown}");
            for line in lines {
                let wide_characters =
                    line.chars().filter(|c| ('世'..='界').contains(c) || "世界".contains(*c)).count();
                assert!(line.chars().count() + wide_characters <= usize::from(columns), "{columns}: {line}");
            }
        }
    }
}
