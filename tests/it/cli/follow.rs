//! `codexd follow`.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::CliUser;
use crate::api::{new_session, start_daemon, start_turn, wait_for_event, wait_for_event_type};
use crate::duplex::finished_turn;
use crate::support::daemon::Daemon;
use crate::support::wait::wait_until;

/// A running `codexd follow`, with its lines on stdout and stderr so far.
struct Follow {
    process: Child,
    lines: Arc<Mutex<Vec<String>>>,
    stderr_lines: Arc<Mutex<Vec<String>>>,
}

impl Follow {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let lines = collect(process.stdout.take().unwrap());
        let stderr_lines = collect(process.stderr.take().unwrap());
        Self { process, lines, stderr_lines }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    fn events(&self) -> Vec<Value> {
        self.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    async fn shows(&self, part: &str) {
        let has = || self.lines().iter().any(|line| line.contains(part)).then_some(());
        wait_until(&format!("a line with {part:?}"), has).await;
    }

    async fn wait_for_stderr(&self, part: &str) {
        let has = || self.stderr_lines.lock().unwrap().iter().any(|line| line.contains(part)).then_some(());
        wait_until(&format!("{part:?} on stderr"), has).await;
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn collect(pipe: impl Read + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let collected = Arc::clone(&lines);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            collected.lock().unwrap().push(line);
        }
    });
    lines
}

fn seqs(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["seq"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn follow_prints_one_line_per_event() {
    let daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    let follow = Follow::start(user.command(&["follow", "--after", "0"]));
    let session_id = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "command=ls text=\u{1b}[31mred").await;
    finished_turn(&daemon, &session_id, &turn_id).await;
    follow.shows("app-server.turn.completed").await;
    let lines = follow.lines();
    assert!(lines[0].contains(" daemon.started codexd started in app-server mode."), "{}", lines[0]);
    for (name, text) in [
        (" session.created ", session_id.as_str()),
        (" app-server.notification ", "began: $ /bin/bash -lc 'ls'"),
        (" app-server.turn.message.delta ", "␛[31mred"),
        (" app-server.turn.completed ", "completed."),
    ] {
        assert!(lines.iter().any(|line| line.contains(name) && line.contains(text)), "{name} in {lines:#?}");
    }
    assert!(!lines.concat().contains('\u{1b}'));
}

#[tokio::test]
async fn follow_json_prints_lines_and_applies_filters() {
    let daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    let (followed, other) = (new_session(&daemon).await, new_session(&daemon).await);
    let filters = ["--session", &followed, "--type", "turn.", "--type", "app-server.turn.completed"];
    let arguments = [["follow", "--json", "--after=0"].as_slice(), &filters].concat();
    let follow = Follow::start(user.command(&arguments));
    for session_id in [&other, &followed] {
        let turn_id = start_turn(&daemon, session_id, "hello").await;
        finished_turn(&daemon, session_id, &turn_id).await;
    }
    follow.shows("app-server.turn.completed").await;
    let events = follow.events();
    let types: Vec<&Value> = events.iter().map(|event| &event["type"]).collect();
    assert_eq!(types, ["turn.accepted", "app-server.turn.completed"]);
    let on_disk = wait_for_event_type(&daemon, "turn.accepted").await;
    assert_ne!(
        on_disk["detail"]["sessionId"],
        json!(followed),
        "the turn of the other session was not first"
    );
    let same = wait_for_event(&daemon, "the event", |event| event["seq"] == events[0]["seq"]).await;
    assert_eq!(events[0], same);
}

#[tokio::test]
async fn follow_continues_across_restart_without_loss() {
    let mut daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    let follow = Follow::start(user.command(&["follow", "--json", "--after", "0"]));
    for round in 0..3 {
        let session_id = new_session(&daemon).await;
        let turn_id = start_turn(&daemon, &session_id, "deltas=20").await;
        finished_turn(&daemon, &session_id, &turn_id).await;
        follow.shows(&turn_id).await;
        if round == 0 {
            daemon.kill().await;
        } else {
            daemon.stop().await;
        }
        follow.wait_for_stderr("waiting for codexd").await;
        daemon = Daemon::builder().state_from(&daemon).address_of(&daemon).start().await;
    }
    follow.wait_for_stderr("Reconnected to codexd").await;
    let last = new_session(&daemon).await;
    follow.shows(&format!("Created session {last}")).await;
    let shown = seqs(&follow.events());
    let mut written = seqs(&daemon.events_on_disk());
    written.retain(|seq| shown.last().is_some_and(|last| seq <= last));
    assert_eq!(shown, written);
    assert!(follow.stderr_lines.lock().unwrap().iter().all(|line| !line.contains("missing")));
}

#[tokio::test]
async fn follow_session_continues_on_new_thread() {
    let mut daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    // Codex does not store a thread without turns, so the session gets a new thread after a restart.
    let session_id = new_session(&daemon).await;
    daemon.stop().await;
    let daemon = Daemon::builder().state_from(&daemon).address_of(&daemon).start().await;
    let follow = Follow::start(user.command(&["follow", "--session", &session_id, "--after", "0"]));
    follow.shows("session.created").await;
    let turn_id = start_turn(&daemon, &session_id, "hello").await;
    follow.shows("session.recreated").await;
    follow.shows(&format!("App-server turn {turn_id} completed")).await;
}

#[tokio::test]
async fn follow_reports_unknown_cursor_and_continues() {
    let daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    for (cursor, reason) in [
        ("000000000000-1", "the log was replaced by another one"),
        ("4000000000", "the log ends before this cursor"),
    ] {
        let follow = Follow::start(user.command(&["follow", "--after", cursor]));
        follow.wait_for_stderr(&format!("Events are missing here: {reason}.")).await;
        // The next event may come before the stream is connected.
        wait_for_event_line(&daemon, &follow).await;
    }
    let refused = user.run(&["follow", "--after", "soon"]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("after"), "{}", refused.stderr);
}

async fn wait_for_event_line(daemon: &Daemon, follow: &Follow) {
    crate::support::wait::wait_until_async("an event after the gap", async || {
        new_session(daemon).await;
        (!follow.lines().is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn follow_rejects_unknown_session() {
    let daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    for more in [&[][..], &["--after", "0"], &["--after", "000000000000-1"]] {
        let arguments = [&["follow", "--session", "session-unknown"], more].concat();
        let refused = user.run(&arguments).await;
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""), "{refused:?}");
        assert!(refused.stderr.contains("session-unknown"), "{}", refused.stderr);
    }
}

#[tokio::test]
async fn follow_succeeds_when_pipe_reader_closes() {
    let daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    let mut command = user.command(&["follow", "--after", "0", "--type", "daemon.started"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    let mut stdout: BufReader<ChildStdout> = BufReader::new(process.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert!(line.contains("daemon.started"), "{line}");
    drop(stdout);
    // No more matching events occur, so that only the closed pipe can end the command.
    let status = wait_until("the end of follow", || process.try_wait().unwrap()).await;
    let mut stderr = String::new();
    process.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
}
