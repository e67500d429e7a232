//! `codexd ask` without a terminal.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::link::ProxyLink;
use super::{CliUser, assert_answer, document, user_with_session};
use crate::api::{
    CommandOutput, SESSIONS, create_session, run_command, session_record, start_daemon, start_turn, text,
    wait_for_event_type,
};
use crate::duplex::{decide, finished_turn, pending_request, resolved_request};
use crate::support::daemon::Daemon;
use crate::support::http::{get, post};
use crate::support::wait::{DEADLINE, wait_until, wait_until_async};

/// A running program whose output can be read.
pub(crate) struct RunningCommand(Child);

impl RunningCommand {
    pub(crate) fn new(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Waits until stderr contains this text; returns all of stderr so far.
    pub(crate) async fn wait_for_stderr(&mut self, expected: &str) -> String {
        let mut stderr = self.0.stderr.take().unwrap();
        let (expected, shown) = (expected.to_owned(), expected);
        let reading = tokio::task::spawn_blocking(move || {
            let mut text = Vec::new();
            let mut byte = [0];
            while !String::from_utf8_lossy(&text).contains(&expected) && stderr.read(&mut byte).unwrap() == 1
            {
                text.push(byte[0]);
            }
            (stderr, String::from_utf8(text).unwrap())
        });
        let read = tokio::time::timeout(DEADLINE, reading).await;
        let (stderr, text) = read.unwrap_or_else(|_| panic!("stderr does not contain {shown:?}")).unwrap();
        self.0.stderr = Some(stderr);
        text
    }

    pub(crate) async fn ended(mut self) -> CommandOutput {
        let status = wait_until("the end of the program", || self.0.try_wait().unwrap()).await;
        let (mut stdout, mut stderr) = (String::new(), String::new());
        if let Some(mut pipe) = self.0.stdout.take() {
            pipe.read_to_string(&mut stdout).unwrap();
        }
        self.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        CommandOutput { code: status.code(), stdout, stderr }
    }
}

impl Drop for RunningCommand {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for the first session of the daemon.
async fn first_session(daemon: &Daemon) -> Value {
    wait_until_async("a session", async || {
        let sessions = get(daemon, "/v1/codexd/sessions").await.data(200)["sessions"].clone();
        sessions.as_array().unwrap().first().cloned()
    })
    .await
}

/// Waits until a turn runs in the first session; returns the ID of the session.
async fn busy_session(daemon: &Daemon) -> String {
    wait_until_async("a turn", async || {
        let session = first_session(daemon).await;
        session["currentTurnId"].is_string().then(|| text(&session["sessionId"]))
    })
    .await
}

#[tokio::test]
async fn ask_writes_only_answer_to_pipe() {
    let daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    let asked = user.run(&["ask", "command=ls", "ask=unknown", "text=\u{1b}[1mbold"]).await;
    // Output to a pipe is not sanitized.
    assert_eq!((asked.code, asked.stdout.as_str()), (Some(0), "\u{1b}[1mbold\n"), "{asked:?}");
    let session = first_session(&daemon).await;
    let stderr = format!("session {}\n$ /bin/bash -lc 'ls'\n", text(&session["sessionId"]));
    assert_eq!(asked.stderr, stderr);
    assert_eq!(session["cwd"], json!(user.directory().canonicalize().unwrap()));

    let continued = user.run(&["ask", "--session", "last", "text=again"]).await;
    assert_eq!((continued.code, continued.stdout.as_str()), (Some(0), "again\n"), "{continued:?}");
    let answer = get(&daemon, "/v1/codexd/sessions").await;
    assert_eq!(answer.data(200)["sessions"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn ask_json_contains_session_and_turn() {
    let daemon = start_daemon().await;
    let asked = CliUser::of(&daemon).run(&["ask", "--json", "text=hello", "command=ls"]).await;
    assert_eq!(asked.code, Some(0), "{asked:?}");
    assert_answer("ask", &document(&asked));
}

#[tokio::test]
async fn exec_json_prints_lines_and_writes_last_message() {
    let daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    let arguments = ["exec", "--json", "-o", "last.txt", "-c", "a.b=1", "command=ls text=*done*"];
    let asked = user.run(&arguments).await;
    assert_eq!((asked.code, asked.stderr.as_str()), (Some(0), ""), "{asked:?}");
    let lines: Vec<Value> = asked.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let types: Vec<String> = lines.iter().map(|line| text(&line["type"])).collect();
    let expected = [
        "thread.started",
        "turn.started",
        "item.started",
        "item.completed",
        "item.completed",
        "turn.completed",
    ];
    assert_eq!(types, expected, "{}", asked.stdout);
    assert_eq!(lines[3]["item"]["type"], "command_execution");
    assert_eq!(lines[4]["item"]["text"], "*done*");
    assert_eq!(lines[5]["usage"]["output_tokens"], 1);
    assert_eq!(std::fs::read_to_string(user.directory().join("last.txt")).unwrap(), "*done*");
    let created = wait_for_event_type(&daemon, "session.created").await;
    assert_eq!(created["detail"]["settings"]["config"]["a"], json!({ "b": 1 }));
}

#[tokio::test]
async fn ask_reads_prompt_from_stdin() {
    let daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    for (arguments, input, expected) in [
        (["ask"].as_slice(), " from a file \n", "from a file"),
        (&["ask", "-"], "from a file", "from a file"),
        (&["ask", "look", "at this:", "-"], "a diff\n", "look at this:\n\na diff"),
        (&["ask", "-", "what is it?"], "a diff\n", "a diff\n\nwhat is it?"),
    ] {
        let mut command = user.command(&[arguments, &["--json"]].concat());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let asked = RunningCommand(child).ended().await;
        assert_eq!(asked.code, Some(0), "{asked:?}");
        assert_eq!(document(&asked)["turn"]["items"][0]["words"], expected, "{arguments:?}");
    }
    for arguments in [["ask"].as_slice(), &["ask", " "], &["ask", "-"]] {
        let refused = user.run(arguments).await;
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{arguments:?}: {refused:?}");
    }
}

#[tokio::test]
async fn ask_exit_code_reflects_turn_outcome() {
    let daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    for (prompt, code, expected) in [
        ("fail", 1, "codexd: The turn failed: We’re currently experiencing high demand"),
        ("crash=7 deltas=2", 1, "the app-server was lost"),
    ] {
        let asked = user.run(&["ask", prompt]).await;
        assert_eq!(asked.code, Some(code), "{asked:?}");
        assert!(asked.stderr.contains(expected), "{asked:?}");
    }
    for (arguments, expected) in [
        (["ask", "--cwd", "nowhere", "hello"].as_slice(), "nowhere"),
        (&["ask", "--sandbox", "none", "hello"], "none"),
    ] {
        let refused = user.run(arguments).await;
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains(expected), "{refused:?}");
    }
    let unknown = user.run(&["ask", "--session", "session-unknown", "hello"]).await;
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.stderr.contains("session-unknown"), "{}", unknown.stderr);
}

#[tokio::test]
async fn ask_without_terminal_names_answering_command() {
    let daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    let mut asking = RunningCommand::new(user.command(&["ask", "ask=command", "text=done"]));
    let stderr = asking.wait_for_stderr("declined at").await;
    let command =
        stderr.split("answer with codexd ").nth(1).unwrap_or_else(|| panic!("no command in {stderr}"));
    let arguments: Vec<&str> = command.split(" or ").next().unwrap().split(' ').collect();
    assert_eq!(arguments[0], "approve", "{stderr}");
    assert_eq!(user.run(&arguments).await.code, Some(0), "{arguments:?}");
    let ended = asking.ended().await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "done\n"), "{ended:?}");
}

#[tokio::test]
async fn ask_names_command_for_same_daemon() {
    let daemon = start_daemon().await;
    let base = crate::support::http::Target::base_url(&daemon).to_owned();
    let other_user = CliUser::at("http://127.0.0.1:1");
    let mut asking = RunningCommand::new(other_user.command(&[
        "ask",
        "ask=command",
        "text=done",
        "--local-api-base",
        &base,
    ]));
    let stderr = asking.wait_for_stderr("declined at").await;
    assert!(stderr.contains(&format!("--local-api-base {base} or codexd decline")), "{stderr}");
    let session_id = text(&first_session(&daemon).await["sessionId"]);
    let request = pending_request(&daemon, &session_id).await;
    let answer = ["decline", &text(&request["requestId"]), "--local-api-base", &base];
    assert_eq!(other_user.run(&answer).await.code, Some(0));
    assert_eq!(resolved_request(&daemon, &request["requestId"]).await["decision"], "decline");
    let ended = asking.ended().await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "done\n"));
    assert!(ended.stderr.contains("declined: $ "), "{}", ended.stderr);
}

#[tokio::test]
async fn ask_ctrl_c_interrupts_turn() {
    let daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    let mut asking = RunningCommand::new(user.command(&["ask", "hang"]));
    let session_id = busy_session(&daemon).await;
    asking.wait_for_stderr("session ").await;
    asking.signal(Signal::INT);
    let ended = asking.ended().await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(4), ""), "{ended:?}");
    assert!(ended.stderr.contains("Interrupting the turn"), "{}", ended.stderr);
    assert!(ended.stderr.ends_with("codexd: The turn was interrupted.\n"), "{}", ended.stderr);
    assert_eq!(session_record(&daemon, &session_id).await["lastTurnStatus"], "interrupted");
}

#[tokio::test]
async fn ask_second_ctrl_c_exits_at_once() {
    let daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    // An app-server that reads nothing more cannot be interrupted.
    let mut asking = RunningCommand::new(user.command(&["ask", "stop-reading hang-deltas"]));
    busy_session(&daemon).await;
    asking.wait_for_stderr("session ").await;
    asking.signal(Signal::INT);
    asking.wait_for_stderr("another Ctrl-C exits").await;
    asking.signal(Signal::INT);
    let ended = asking.ended().await;
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(ended.stderr.contains("continues in codexd"), "{}", ended.stderr);
}

#[tokio::test]
async fn ask_ctrl_c_during_disconnect_interrupts_after_reconnect() {
    let daemon = start_daemon().await;
    let link = ProxyLink::to(&daemon).await;
    let user = CliUser::at(link.base());
    let session_id = text(&create_session(&daemon, json!({ "cwd": user.directory() })).await["sessionId"]);
    // The first turn has started; the second one is queued behind a third one.
    for (arguments, expected) in
        [(["ask", "hang"].as_slice(), "session "), (&["ask", "never"], "the turn is queued")]
    {
        let mut arguments = [arguments, &["--session", &session_id]].concat();
        if expected != "session " {
            start_turn(&daemon, &session_id, "hang").await;
            arguments.extend(["--when-busy", "queue"]);
        }
        let mut asking = RunningCommand::new(user.command(&arguments));
        asking.wait_for_stderr(expected).await;
        link.disconnect();
        asking.wait_for_stderr("waiting for codexd").await;
        asking.signal(Signal::INT);
        asking.wait_for_stderr("Failed to interrupt the turn").await;
        link.reconnect();
        let ended = asking.ended().await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(4), ""), "{arguments:?}: {ended:?}");
    }
}

#[tokio::test]
async fn ask_when_busy_refuses_queues_or_steers() {
    let (daemon, user, session_id) = user_with_session().await;
    let first = start_turn(&daemon, &session_id, "hang").await;
    let refused = user.run(&["ask", "--session", &session_id, "hello"]).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("--when-busy queue"), "{}", refused.stderr);

    let mut waiting = RunningCommand::new(user.command(&[
        "ask",
        "--session",
        &session_id,
        "--when-busy",
        "queue",
        "text=second",
    ]));
    waiting.wait_for_stderr("the turn is queued at position 1").await;
    let steered = user.run(&["ask", "--session", &session_id, "--when-busy", "steer", "text=first"]).await;
    assert_eq!((steered.code, steered.stdout.as_str()), (Some(0), "first\n"), "{steered:?}");
    assert_eq!(finished_turn(&daemon, &session_id, &first).await["status"], "completed");
    let waited = waiting.ended().await;
    assert_eq!((waited.code, waited.stdout.as_str()), (Some(0), "second\n"), "{waited:?}");
}

#[tokio::test]
async fn ask_ctrl_c_withdraws_queued_turn() {
    let (daemon, user, session_id) = user_with_session().await;
    let running = start_turn(&daemon, &session_id, "hang").await;
    let command = user.command(&["ask", "--session", &session_id, "--when-busy", "queue", "text=never"]);
    let mut waiting = RunningCommand::new(command);
    waiting.wait_for_stderr("the turn is queued at position 1").await;
    waiting.signal(Signal::INT);
    let ended = waiting.ended().await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(4), ""), "{ended:?}");
    assert!(ended.stderr.contains("Withdrawing the queued turn; "), "{}", ended.stderr);
    let end = "codexd: The queued turn was withdrawn; it never started.\n";
    assert!(ended.stderr.ends_with(end) && !ended.stderr.contains("nterrupt"), "{}", ended.stderr);
    assert_eq!(session_record(&daemon, &session_id).await["currentTurnId"], running);
    let read = get(&daemon, &format!("/v1/codexd/sessions/{session_id}")).await;
    assert_eq!(read.data(200)["queuedTurns"], json!([]));
}

#[tokio::test]
async fn ask_steer_shows_pending_requests() {
    let (daemon, user, session_id) = user_with_session().await;
    start_turn(&daemon, &session_id, "ask=command").await;
    let request = pending_request(&daemon, &session_id).await;
    let mut joined = RunningCommand::new(user.command(&[
        "ask",
        "--session",
        "last",
        "--when-busy",
        "steer",
        "text=joined",
    ]));
    joined.wait_for_stderr(&text(&request["requestId"])).await;
    assert_eq!(user.run(&["approve"]).await.code, Some(0));
    let ended = joined.ended().await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "joined\n"), "{ended:?}");
}

#[tokio::test]
async fn ask_succeeds_when_pipe_reader_closes() {
    let daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    let mut asking = RunningCommand::new(user.command(&["ask", "deltas=3 chars=200000 delay=50"]));
    let mut stdout = asking.0.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 10]).unwrap();
    drop(stdout);
    let ended = asking.ended().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("the turn continues in codexd"), "{}", ended.stderr);
}

#[tokio::test]
async fn ask_ctrl_c_with_closed_pipe_interrupts_turn() {
    let daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    // With the first prompt, the command writes nothing until the turn ends; with the second one, it always writes.
    for prompt in ["hang-deltas text=half", "deltas=100000 delay=1"] {
        let mut asking = RunningCommand::new(user.command(&["ask", prompt]));
        let mut stdout = asking.0.stdout.take().unwrap();
        stdout.read_exact(&mut [0; 4]).unwrap();
        asking.signal(Signal::INT);
        drop(stdout);
        let ended = asking.ended().await;
        assert_eq!(ended.code, Some(4), "{prompt}: {ended:?}");
        assert!(ended.stderr.ends_with("codexd: The turn was interrupted.\n"), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn ask_reports_turn_lost_with_daemon() {
    let mut daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    let mut asking = RunningCommand::new(user.command(&["ask", "hang-deltas text=half"]));
    asking.wait_for_stderr("session ").await;
    wait_for_event_type(&daemon, "app-server.turn.message.delta").await;
    daemon.kill().await;
    let stderr = asking.wait_for_stderr("waiting for codexd").await;
    assert!(stderr.contains("Connection lost"), "{stderr}");
    let _again = Daemon::builder().state_from(&daemon).address_of(&daemon).start().await;
    let ended = asking.ended().await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), "half\n"), "{ended:?}");
    assert!(
        ended.stderr.contains("Reconnected to codexd") && ended.stderr.contains("The turn failed"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn ask_reads_outcome_from_turn_after_gap() {
    let mut daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    let mut asking = RunningCommand::new(user.command(&["ask", "hang-deltas text=half"]));
    asking.wait_for_stderr("session ").await;
    wait_for_event_type(&daemon, "app-server.turn.message.delta").await;
    daemon.kill().await;
    // Without this file the log gets a new epoch, so that older cursors are invalid.
    std::fs::remove_file(daemon.logs_dir().join("event-log.json")).unwrap();
    let _again = Daemon::builder().state_from(&daemon).address_of(&daemon).start().await;
    let ended = asking.ended().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for part in ["missing: the log was replaced by another one", "The turn failed"] {
        assert!(ended.stderr.contains(part), "no {part:?} in {ended:?}");
    }
}

#[tokio::test]
async fn ask_reports_requests_after_gap() {
    let daemon = start_daemon().await;
    let link = ProxyLink::to(&daemon).await;
    let user = CliUser::at(link.base());
    let mut asking = RunningCommand::new(user.command(&["ask", "hang"]));
    asking.wait_for_stderr("session ").await;
    let session_id = busy_session(&daemon).await;
    link.disconnect();
    asking.wait_for_stderr("waiting for codexd").await;
    let steer = json!({ "sessionId": session_id, "input": "ask=command text=done", "whenBusy": "steer" });
    post(&daemon, "/v1/codexd/turn", &steer).await.data(202);
    let request = pending_request(&daemon, &session_id).await;
    link.reconnect_without_missed_events();
    asking.wait_for_stderr(&format!("approve {}", text(&request["requestId"]))).await;
    decide(&daemon, &request["requestId"], "accept").await;
    let ended = asking.ended().await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "done\n"), "{ended:?}");
}

#[tokio::test]
async fn ask_passes_settings_to_session() {
    let daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    std::fs::create_dir(user.directory().join("below")).unwrap();
    let mut command = user.command(&["ask", "hello", "--cwd", "below", "--model", "other-model"]);
    command.args(["--sandbox", "read-only", "--approval-policy", "never"]);
    assert_eq!(run_command(command).await.code, Some(0));
    let created = wait_for_event_type(&daemon, "session.created").await;
    let below = user.directory().canonicalize().unwrap().join("below");
    let expected = json!({
        "cwd": below, "model": "other-model", "sandbox": "read-only", "approvalPolicy": "never",
    });
    let settings = &created["detail"]["settings"];
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&settings[name], value, "{name} in {settings}");
    }
}

#[tokio::test]
async fn ask_keeps_directory_bytes() {
    let daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    std::fs::create_dir(user.directory().join("proj")).unwrap();
    for name in ["proj ", "proj\u{a0}", "\u{3000}proj"] {
        let directory = user.directory().canonicalize().unwrap().join(name);
        std::fs::create_dir(&directory).unwrap();
        let newest = async || {
            let sessions = get(&daemon, &format!("{SESSIONS}?order=newest&limit=1")).await;
            sessions.data(200)["sessions"][0].clone()
        };
        let ended = user.run(&["ask", "--cwd", name, "hello"]).await;
        assert_eq!((ended.code, &newest().await["cwd"]), (Some(0), &json!(directory)), "{ended:?}");
        let mut command = user.command(&["ask", "hello"]);
        command.current_dir(&directory);
        let ended = run_command(command).await;
        assert_eq!((ended.code, &newest().await["cwd"]), (Some(0), &json!(directory)), "{ended:?}");
        let mut command = user.command(&["ask", "--session", "last", "continue"]);
        command.current_dir(&directory);
        let ended = run_command(command).await;
        assert_eq!((ended.code, &newest().await["cwd"]), (Some(0), &json!(directory)), "{ended:?}");
    }
    if cfg!(not(target_os = "linux")) {
        // The file systems of other systems reject such names.
        return;
    }
    let odd = OsStr::from_bytes(b"proj\xff");
    std::fs::create_dir(user.directory().join(odd)).unwrap();
    for session in [&[][..], &["--session", "any"]] {
        let mut command = user.command(&[&["ask", "hello", "--cwd", "."], session].concat());
        command.current_dir(user.directory().join(odd));
        let ended = run_command(command).await;
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains("is not UTF-8, so it cannot be sent to codexd"), "{ended:?}");
    }
}
