//! The sandbox that Codex puts around a command on Linux: it makes directories in those that the command may write to,
//! and removes them when it may. However a command ends, a directory that was empty is empty afterwards.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use hyper::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{create_session, record, submit};
use crate::api::child_that_is;
use crate::cli::CliUser;
use crate::duplex::interrupt;
use crate::support::codex::{CodexHome, DEFAULT_VERSION, codex_version, versions};
use crate::support::daemon::Daemon;
use crate::support::http::request;
use crate::support::model::MockModel;
use crate::support::skip::{runs_long, skip};
use crate::support::wait::{wait_until, wait_until_async};

/// A command that would go on for long, and the same that does not end by itself when it is asked to.
const PROMPTS: [&str; 2] =
    ["mock:shell=[sleep 299]", "mock:shell=[trap '' TERM; while :; do sleep 299; done]"];

/// A daemon in front of one version of Codex.
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

    /// A session with a command that runs in a sandbox; its record.
    async fn at_work(&self, prompt: &str) -> Value {
        self.assert_tidy("before").await;
        let session =
            create_session(&self.daemon, &self.home, &json!({ "sandbox": "workspace-write" })).await;
        let body = json!({ "sessionId": session["sessionId"], "input": prompt });
        submit(&self.daemon, &body).await.data(202);
        self.command_runs().await;
        session
    }

    /// Waits until a command runs, and sees that its sandbox has made something in the workspace.
    async fn command_runs(&self) {
        wait_until("the command", || self.commands().first().copied()).await;
        assert!(
            self.home.workspace().join(".git").is_dir(),
            "this sandbox makes nothing that it would have to remove"
        );
    }

    /// The processes of commands.
    fn commands(&self) -> Vec<u32> {
        let is_command = |(pid, line): (u32, String)| line.starts_with("sleep 299").then_some(pid);
        self.daemon.survivors().into_iter().filter_map(is_command).collect()
    }

    /// Waits until no command runs and nothing of a sandbox is left; its helper removes it after the command has ended.
    async fn assert_tidy(&self, when: &str) {
        for directory in [self.home.workspace(), self.home.temporary()] {
            let what = format!("an empty {} {when}", directory.display());
            let is_tidy = || self.commands().is_empty() && entries(&directory).is_empty();
            wait_until(&what, || is_tidy().then_some(())).await;
        }
    }
}

/// What is in a directory, but for Codex's own notes about its sandboxes.
fn entries(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let names = entries.map(|name| name.to_string_lossy().into_owned());
    let mut names: Vec<_> = names.filter(|name| !name.starts_with("codex-bwrap-")).collect();
    names.sort();
    names
}

/// Whether this system lets Codex set up a sandbox at all; prints what is skipped when it does not.
///
/// Panics instead where `CODEXD_TEST_SANDBOX` is `required`.
fn can_use_the_sandbox(what: &str, version: &str) -> bool {
    let model = MockModel::start();
    let home = CodexHome::new(&model);
    let tried = Command::new(&codex_version(version).native)
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
    if tried.status.success() {
        return true;
    }
    let why = String::from_utf8_lossy(&tried.stderr).into_owned();
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
        if !can_use_the_sandbox("real::sandbox: interrupt, close, Ctrl-C", version) {
            continue;
        }
        let stage = Stage::start(version).await;
        for prompt in PROMPTS {
            let session = stage.at_work(prompt).await;
            let interrupted = interrupt(&stage.daemon, session["sessionId"].as_str().unwrap()).await;
            assert_eq!(interrupted.data(202)["commandsEnded"], true, "{}", interrupted.text);
            stage.assert_tidy("after an interrupt").await;

            let session = stage.at_work(prompt).await;
            let path =
                format!("/v1/codexd/sessions/{}?interrupt=true", session["sessionId"].as_str().unwrap());
            request(&stage.daemon, Method::DELETE, &path, &[], "").await.data(200);
            stage.assert_tidy("after a close").await;
        }

        let user = CliUser::beside(&stage.daemon);
        let workspace = stage.home.workspace();
        let words = ["ask", PROMPTS[0], "--sandbox", "workspace-write", "--cwd", workspace.to_str().unwrap()];
        let mut ask = user.command(&words);
        let mut ask = ask.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        stage.command_runs().await;
        kill_process(Pid::from_child(&ask), Signal::INT).unwrap();
        wait_until("the end of ask", || ask.try_wait().unwrap()).await;
        stage.assert_tidy("after Ctrl-C").await;
    }
}

#[tokio::test]
async fn interrupt_keeps_commands_of_other_sessions() {
    if !runs_long() {
        return;
    }
    let version = DEFAULT_VERSION;
    if !can_use_the_sandbox("real::sandbox: two sessions", version) {
        return;
    }
    let stage = Stage::start(version).await;
    let first = stage.at_work(PROMPTS[0]).await;
    let before = stage.commands();
    let second = create_session(&stage.daemon, &stage.home, &json!({ "sandbox": "workspace-write" })).await;
    submit(&stage.daemon, &json!({ "sessionId": second["sessionId"], "input": PROMPTS[0] })).await.data(202);
    wait_until("the second command", || (stage.commands().len() == 2).then_some(())).await;
    interrupt(&stage.daemon, second["sessionId"].as_str().unwrap()).await.data(202);
    wait_until("its end", || (stage.commands().len() < 2).then_some(())).await;
    assert_eq!(stage.commands(), before);
    assert_eq!(record(&stage.daemon, &first).await["lastTurnStatus"], "inProgress");
    interrupt(&stage.daemon, first["sessionId"].as_str().unwrap()).await.data(202);
    stage.assert_tidy("after both").await;
}

#[tokio::test]
async fn sandbox_directories_are_removed_after_daemon_stop() {
    for version in versions() {
        if !can_use_the_sandbox("real::sandbox: stop", version) {
            continue;
        }
        for prompt in PROMPTS {
            let mut stage = Stage::start(version).await;
            stage.at_work(prompt).await;
            let stopped = stage.daemon.stop().await;
            assert!(stopped.status.success(), "{stopped:?}");
            stage.assert_tidy("after a stop").await;
        }
        let mut stage = Stage::start(version).await;
        stage.at_work(PROMPTS[0]).await;
        stage.daemon.signal(Signal::TERM);
        wait_until("the first signal", || stage.daemon.stderr().contains("SIGTERM").then_some(())).await;
        assert!(stage.daemon.stop().await.status.success());
        stage.assert_tidy("after two signals").await;
    }
}

#[tokio::test]
async fn sandbox_directories_are_removed_after_app_server_sigkill() {
    if !runs_long() {
        return;
    }
    for version in versions() {
        if !can_use_the_sandbox("real::sandbox: SIGKILL of the app-server", version) {
            continue;
        }
        let stage = Stage::start(version).await;
        for prompt in PROMPTS {
            stage.at_work(prompt).await;
            let child = child_that_is(&stage.daemon, "running").await;
            kill(u32::try_from(child["pid"].as_u64().unwrap()).unwrap());
            stage.assert_tidy("after a SIGKILL of the app-server").await;
            wait_until_async("another app-server", async || {
                let now = child_that_is(&stage.daemon, "running").await;
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
        if !can_use_the_sandbox("real::sandbox: SIGKILL of codexd", version) {
            continue;
        }
        for prompt in PROMPTS {
            let mut stage = Stage::start(version).await;
            stage.at_work(prompt).await;
            stage.daemon.kill().await;
            stage.assert_tidy("after a SIGKILL of codexd").await;
            wait_until("the end of the app-server", || stage.daemon.survivors().is_empty().then_some(()))
                .await;
        }
    }
}
