//! The sandbox of Codex on Linux creates directories in each directory that a command may write to, and its helper
//! removes them unless it is killed. The tests check that the workspace is empty again after every end of a command.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use hyper::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{create_session, record, submit};
use crate::api::wait_for_child_status;
use crate::cli::CliUser;
use crate::duplex::interrupt;
use crate::support::codex::{CodexHome, DEFAULT_VERSION, codex_version, versions};
use crate::support::daemon::Daemon;
use crate::support::http::request;
use crate::support::model::MockModel;
use crate::support::skip::{runs_long, skip};
use crate::support::wait::{wait_until, wait_until_async};

/// A command that runs for a long time, and one that also ignores SIGTERM.
const PROMPTS: [&str; 2] =
    ["mock:shell=[sleep 299]", "mock:shell=[trap '' TERM; while :; do sleep 299; done]"];

/// A daemon with one version of Codex.
struct Stage {
    daemon: Daemon,
    home: CodexHome,
    _model: MockModel,
}

impl Stage {
    async fn start(version: &str) -> Self {
        let model = MockModel::start();
        let home = CodexHome::new(&model);
        let daemon = Daemon::builder().real_version(&home, version).start().await;
        Self { daemon, home, _model: model }
    }

    /// Starts a session and a turn whose command runs in a sandbox; returns the record of the session.
    async fn start_command(&self, prompt: &str) -> Value {
        self.assert_clean("before").await;
        let session =
            create_session(&self.daemon, &self.home, &json!({ "sandbox": "workspace-write" })).await;
        let body = json!({ "sessionId": session["sessionId"], "input": prompt });
        let turn_id = submit(&self.daemon, &body).await.data(202)["turnId"].clone();
        self.wait_for_command(&turn_id).await;
        session
    }

    /// Waits until a command runs, and asserts that its sandbox has created a directory in the workspace. `turn_id` is its
    /// turn, if that is known.
    async fn wait_for_command(&self, turn_id: &Value) {
        // A command that fails ends its turn; its output says why.
        let ended = |event: &Value| {
            let params = &event["detail"]["params"];
            params["turnId"] == *turn_id
                && params["item"]["type"] == "commandExecution"
                && !params["completedAtMs"].is_null()
        };
        wait_until("the command", || {
            let ended = self.daemon.events_on_disk().into_iter().find(ended);
            assert!(ended.is_none(), "the command has ended: {ended:#?}");
            self.commands().first().copied()
        })
        .await;
        assert!(
            self.home.workspace().join(".git").is_dir(),
            "the sandbox created no directory, so the test proves nothing"
        );
    }

    /// Returns the PIDs of the running commands.
    fn commands(&self) -> Vec<u32> {
        let is_command = |(pid, line): (u32, String)| line.starts_with("sleep 299").then_some(pid);
        self.daemon.survivors().into_iter().filter_map(is_command).collect()
    }

    /// Waits until no command runs and the directories are empty; the helper removes them after the command has ended.
    async fn assert_clean(&self, when: &str) {
        for directory in [self.home.workspace(), self.home.temporary()] {
            let what = format!("an empty {} {when}", directory.display());
            let is_clean = || self.commands().is_empty() && entries(&directory).is_empty();
            wait_until(&what, || is_clean().then_some(())).await;
        }
    }
}

/// Returns the names in a directory without Codex's own files about its sandboxes.
fn entries(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let names = entries.map(|name| name.to_string_lossy().into_owned());
    let mut names: Vec<_> = names.filter(|name| !name.starts_with("codex-bwrap-")).collect();
    names.sort();
    names
}

/// Whether Codex can set up a sandbox on this system; if not, prints what is skipped.
///
/// Panics instead where `CODEXD_TEST_SANDBOX` is `required`.
fn can_use_sandbox(what: &str, version: &str) -> bool {
    let model = MockModel::start();
    let home = CodexHome::new(&model);
    let output = Command::new(&codex_version(version).native)
        .args(["sandbox", "-c", "sandbox_mode=\"workspace-write\"", "true"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home.user_home())
        .env("CODEX_HOME", home.path())
        .env("TMPDIR", home.temporary())
        .current_dir(home.workspace())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    if output.status.success() {
        return true;
    }
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    let why = format!("Codex cannot set up its sandbox here: {}", why.trim());
    skip("CODEXD_TEST_SANDBOX", &format!("{what} with {version}"), &why);
    false
}

fn kill(pid: u32) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
}

#[tokio::test]
async fn sandbox_directories_are_removed_after_interrupt_and_close() {
    for version in versions() {
        if !can_use_sandbox("real::sandbox: interrupt, close, Ctrl-C", version) {
            continue;
        }
        let stage = Stage::start(version).await;
        for prompt in PROMPTS {
            let session = stage.start_command(prompt).await;
            let interrupted = interrupt(&stage.daemon, session["sessionId"].as_str().unwrap()).await;
            assert_eq!(interrupted.data(202)["commandsEnded"], true, "{}", interrupted.text);
            stage.assert_clean("after an interrupt").await;

            let session = stage.start_command(prompt).await;
            let path =
                format!("/v1/codexd/sessions/{}?interrupt=true", session["sessionId"].as_str().unwrap());
            request(&stage.daemon, Method::DELETE, &path, &[], "").await.data(200);
            stage.assert_clean("after a close").await;
        }

        let user = CliUser::of(&stage.daemon);
        let workspace = stage.home.workspace();
        let arguments =
            ["ask", PROMPTS[0], "--sandbox", "workspace-write", "--cwd", workspace.to_str().unwrap()];
        let mut ask = user.command(&arguments);
        let mut ask = ask.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        stage.wait_for_command(&Value::Null).await;
        kill_process(Pid::from_child(&ask), Signal::INT).unwrap();
        wait_until("the end of ask", || ask.try_wait().unwrap()).await;
        stage.assert_clean("after Ctrl-C").await;
    }
}

#[tokio::test]
async fn interrupt_keeps_commands_of_other_sessions() {
    if !runs_long() {
        return;
    }
    let version = DEFAULT_VERSION;
    if !can_use_sandbox("real::sandbox: two sessions", version) {
        return;
    }
    let stage = Stage::start(version).await;
    let first = stage.start_command(PROMPTS[0]).await;
    let before = stage.commands();
    let second = create_session(&stage.daemon, &stage.home, &json!({ "sandbox": "workspace-write" })).await;
    submit(&stage.daemon, &json!({ "sessionId": second["sessionId"], "input": PROMPTS[0] })).await.data(202);
    wait_until("the second command", || (stage.commands().len() == 2).then_some(())).await;
    interrupt(&stage.daemon, second["sessionId"].as_str().unwrap()).await.data(202);
    wait_until("the end of the second command", || (stage.commands().len() < 2).then_some(())).await;
    assert_eq!(stage.commands(), before);
    assert_eq!(record(&stage.daemon, &first).await["lastTurnStatus"], "inProgress");
    interrupt(&stage.daemon, first["sessionId"].as_str().unwrap()).await.data(202);
    stage.assert_clean("after both").await;
}

#[tokio::test]
async fn sandbox_directories_are_removed_after_daemon_stop() {
    for version in versions() {
        if !can_use_sandbox("real::sandbox: stop", version) {
            continue;
        }
        for prompt in PROMPTS {
            let mut stage = Stage::start(version).await;
            stage.start_command(prompt).await;
            let stopped = stage.daemon.stop().await;
            assert!(stopped.status.success(), "{stopped:?}");
            stage.assert_clean("after a stop").await;
        }
        let mut stage = Stage::start(version).await;
        stage.start_command(PROMPTS[0]).await;
        stage.daemon.signal(Signal::TERM);
        wait_until("the first signal", || stage.daemon.stderr().contains("SIGTERM").then_some(())).await;
        assert!(stage.daemon.stop().await.status.success());
        stage.assert_clean("after two signals").await;
    }
}

#[tokio::test]
async fn sandbox_directories_are_removed_after_app_server_sigkill() {
    if !runs_long() {
        return;
    }
    for version in versions() {
        if !can_use_sandbox("real::sandbox: SIGKILL of the app-server", version) {
            continue;
        }
        let stage = Stage::start(version).await;
        for prompt in PROMPTS {
            stage.start_command(prompt).await;
            let child = wait_for_child_status(&stage.daemon, "running").await;
            kill(u32::try_from(child["pid"].as_u64().unwrap()).unwrap());
            stage.assert_clean("after a SIGKILL of the app-server").await;
            wait_until_async("the next app-server", async || {
                let now = wait_for_child_status(&stage.daemon, "running").await;
                (now["pid"] != child["pid"]).then_some(())
            })
            .await;
        }
    }
}

#[tokio::test]
async fn sandbox_directories_are_removed_after_daemon_sigkill() {
    if !runs_long() {
        return;
    }
    for version in versions() {
        if !can_use_sandbox("real::sandbox: SIGKILL of codexd", version) {
            continue;
        }
        for prompt in PROMPTS {
            let mut stage = Stage::start(version).await;
            stage.start_command(prompt).await;
            stage.daemon.kill().await;
            stage.assert_clean("after a SIGKILL of codexd").await;
            wait_until("the end of the app-server", || stage.daemon.survivors().is_empty().then_some(()))
                .await;
        }
    }
}
