//! The stock Codex in a terminal beside codexd: both use the shared app-server, whichever starts it, and see and answer each
//! other's turns.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::{create_session, record, submit};
use crate::duplex::pending_request;
use crate::support::codex::{CodexHome, codex};
use crate::support::daemon::Daemon;
use crate::support::http::{get, post};
use crate::support::model::{MockModel, text_of_deltas};
use crate::support::screen::Screen;
use crate::support::wait::wait_until_async;

const COMPOSER: &str = "Ask Codex to do anything";
const APPROVAL: &str = "Would you like to run the following command?";
const ESCAPE: &str = "\x1b";

/// `codex` with these arguments, as a user of this home types it.
pub(super) fn codex_command(home: &CodexHome, arguments: &[&str]) -> Command {
    let mut command = Command::new(&codex().launcher);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", home.user_home())
        .env("CODEX_HOME", home.path())
        .env("TMPDIR", home.temporary())
        .current_dir(home.workspace());
    command
}

/// Ends the processes of a home, such as the app-server that Codex starts in the background, when dropped.
pub(super) struct Background(String);

impl Background {
    pub(super) fn of(home: &CodexHome) -> Self {
        Self(format!("CODEX_HOME={}", home.path().display()))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            let is_of_home =
                environment.split(|byte| *byte == 0).any(|variable| variable == self.0.as_bytes());
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw).filter(|_| is_of_home) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// A terminal with Codex, and codexd; the fields are dropped in this order.
struct Stage {
    screen: Screen,
    daemon: Daemon,
    session: Value,
    _background: Background,
    home: CodexHome,
    _model: MockModel,
}

impl Stage {
    /// Starts both, and a turn in the terminal, on whose thread codexd then has a session.
    async fn start(is_terminal_first: bool) -> Self {
        let model = MockModel::start();
        let home = CodexHome::builder(&model).approval_policy("on-request").sandbox_mode("read-only").build();
        let folder = format!("[projects.{:?}]\ntrust_level = \"trusted\"\n", home.workspace());
        home.configure(|config| config + &folder);
        let background = Background::of(&home);
        let start_daemon = || Daemon::builder().real(&home).arg("--server-strategy").arg("shared").start();
        let first = match is_terminal_first {
            true => None,
            false => Some(ready(start_daemon().await).await),
        };
        let mut screen = Screen::start(codex_command(&home, &[]));
        screen.shows(COMPOSER).await;
        submit_in_terminal(&mut screen, "mock:deltas=3").await;
        screen.shows("gamma-2").await;
        let daemon = match first {
            Some(daemon) => daemon,
            None => ready(start_daemon().await).await,
        };
        let thread_id = newest_thread(&home);
        let session = create_session(&daemon, &home, &json!({ "threadId": thread_id })).await;
        Self { screen, daemon, session, _background: background, home, _model: model }
    }

    fn session_id(&self) -> &str {
        self.session["sessionId"].as_str().unwrap()
    }

    async fn submit(&self, prompt: &str) -> String {
        let body = json!({ "sessionId": self.session_id(), "input": prompt });
        submit(&self.daemon, &body).await.data(202)["turnId"].as_str().unwrap().to_owned()
    }

    /// Submits a turn in the terminal; returns its ID when codexd has heard of it.
    async fn submit_in_terminal(&mut self, prompt: &str) -> String {
        let last = record(&self.daemon, &self.session).await["lastTurnId"].clone();
        submit_in_terminal(&mut self.screen, prompt).await;
        self.turn_after(&last).await
    }

    async fn turn_after(&self, last: &Value) -> String {
        wait_until_async("a turn of another client", async || {
            let turn_id = record(&self.daemon, &self.session).await["lastTurnId"].clone();
            (turn_id != *last).then(|| turn_id.as_str().unwrap().to_owned())
        })
        .await
    }

    async fn turn_when_over(&self, turn_id: &str) -> Value {
        let path = format!("/v1/codexd/sessions/{}/turns/{turn_id}?wait=30", self.session_id());
        get(&self.daemon, &path).await.data(200)["turn"].clone()
    }

    /// Turns of both sides are seen on the other side.
    async fn exchange_turns(&mut self) {
        let theirs = self.submit_in_terminal("mock:deltas=5").await;
        let turn = self.turn_when_over(&theirs).await;
        assert_eq!(
            (&turn["status"], &turn["text"], &turn["startedBy"]),
            (&json!("completed"), &json!(text_of_deltas(5)), &Value::Null),
            "{turn:#}"
        );
        let ours = self.submit("mock:text=[hello from codexd]").await;
        self.screen.shows("hello from codexd").await;
        assert_eq!(self.turn_when_over(&ours).await["startedBy"], self.session["sessionId"]);
    }

    /// Requests of the turns of both sides are answered on the other side, and the second answer is told so.
    async fn exchange_answers(&mut self) {
        let theirs = self.submit_in_terminal("mock:escalate=[true]").await;
        self.screen.shows(APPROVAL).await;
        let request = pending_request(&self.daemon, self.session_id()).await;
        // The terminal decides about its own turn, as long as it likes.
        assert_eq!((&request["expiresAt"], &request["turnId"]), (&Value::Null, &json!(theirs)));
        let path = format!("/v1/codexd/requests/{}", request["requestId"].as_str().unwrap());
        post(&self.daemon, &path, &json!({ "decision": "accept" })).await.data(200);
        self.screen.shows_no_more(APPROVAL).await;
        self.screen.shows("Ran true").await;
        assert_eq!(self.turn_when_over(&theirs).await["status"], "completed");

        let ours = self.submit("mock:escalate=[false]").await;
        self.screen.shows(APPROVAL).await;
        let request = pending_request(&self.daemon, self.session_id()).await;
        self.screen.press("y");
        self.screen.shows("You approved codex to run false").await;
        assert_eq!(self.turn_when_over(&ours).await["status"], "completed");
        let path = format!("/v1/codexd/requests/{}", request["requestId"].as_str().unwrap());
        let late = post(&self.daemon, &path, &json!({ "decision": "decline" })).await;
        late.error(409, "already_resolved");
        assert_eq!(late.json["details"]["request"]["resolvedBy"], "otherClient");
    }

    /// Turns of both sides are interrupted on the other side.
    async fn exchange_interrupts(&mut self) {
        let theirs = self.submit_in_terminal("mock:hang").await;
        let body = json!({ "sessionId": self.session_id(), "turnId": theirs });
        post(&self.daemon, "/v1/codexd/turn/interrupt", &body).await.data(202);
        self.screen.shows("Conversation interrupted").await;
        assert_eq!(self.turn_when_over(&theirs).await["status"], "interrupted");

        let ours = self.submit("mock:hang mock:text=[ours]").await;
        self.screen.shows("mock:text=[ours]").await;
        self.screen.shows("esc to interrupt").await;
        self.screen.press(ESCAPE);
        assert_eq!(self.turn_when_over(&ours).await["status"], "interrupted");
    }

    /// `codex queue` and `codex agents` work on the same threads.
    async fn use_commands_of_codex(&mut self) {
        let last = record(&self.daemon, &self.session).await["lastTurnId"].clone();
        let thread_id = self.session["threadId"].as_str().unwrap();
        let arguments =
            ["queue", "--thread", thread_id, "--message", "mock:text=[from the queue]", "--resume"];
        let queued = codex_command(&self.home, &arguments).output().unwrap();
        assert!(queued.status.success(), "{queued:?}");
        let turn_id = self.turn_after(&last).await;
        assert_eq!(self.turn_when_over(&turn_id).await["text"], "from the queue");
        self.screen.shows("from the queue").await;

        let ours = create_session(&self.daemon, &self.home, &json!({})).await;
        let body = json!({ "sessionId": ours["sessionId"], "input": "mock:deltas=1 of codexd" });
        submit(&self.daemon, &body).await.data(202);
        let agents = Screen::start(codex_command(&self.home, &["agents"]));
        agents.shows("Agent command center").await;
        agents.shows("mock:deltas=3").await;
        agents.shows("of codexd").await;
    }
}

/// Waits until a daemon is connected to the shared app-server.
async fn ready(daemon: Daemon) -> Daemon {
    wait_until_async("a connection to the shared app-server", async || {
        let status = get(&daemon, "/v1/codexd/status").await;
        (status.data(200)["snapshot"]["daemon"]["child"]["state"] == "running").then_some(())
    })
    .await;
    daemon
}

/// Types a prompt and submits it once it is on the screen.
async fn submit_in_terminal(screen: &mut Screen, prompt: &str) {
    screen.shows(COMPOSER).await;
    screen.paste(prompt);
    screen.shows_no_more(COMPOSER).await;
    screen.press("\r");
    screen.shows(COMPOSER).await;
}

/// The thread whose file is the newest of a home.
fn newest_thread(home: &CodexHome) -> String {
    let mut files = rollouts(&home.path().join("sessions"));
    files.sort();
    let name = files.last().unwrap().file_stem().unwrap().to_str().unwrap().to_owned();
    // It ends with the UUID of the thread.
    name.split_at(name.len() - 36).1.to_owned()
}

/// The files of the threads in a directory.
pub(super) fn rollouts(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { rollouts(&path) } else { vec![path] }).collect()
}

fn count(daemon: &Daemon, event_type: &str) -> usize {
    daemon.events_on_disk().iter().filter(|event| event["type"] == event_type).count()
}

#[tokio::test]
async fn terminal_that_starts_second_shares_turns_answers_and_interrupts() {
    let mut stage = Stage::start(false).await;
    assert_eq!(count(&stage.daemon, "child.started"), 1);
    stage.exchange_turns().await;
    stage.exchange_answers().await;
    stage.use_commands_of_codex().await;
    stage.exchange_interrupts().await;
}

#[tokio::test]
async fn terminal_that_starts_first_shares_turns_answers_and_interrupts() {
    let mut stage = Stage::start(true).await;
    assert_eq!((count(&stage.daemon, "child.started"), count(&stage.daemon, "child.joined")), (0, 1));
    stage.exchange_turns().await;
    stage.exchange_answers().await;
    stage.exchange_interrupts().await;
}
