//! The shared app-server where codexd is a service of a real systemd: of the manager of a user, which needs root here,
//! because it starts only on a machine that systemd booted, and a mount namespace imitates one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::support::codex::{CodexHome, codex};
use crate::support::http::{get, post};
use crate::support::model::{MockModel, text_of_deltas};
use crate::support::scratch;
use crate::support::skip::skip;
use crate::support::wait::{wait_until, wait_until_async};

/// The directory for the sockets of the manager, in its own mount namespace.
const RUNTIME_DIRECTORY: &str = "/run/user";

/// A manager of a user; its end ends its units.
struct Manager {
    process: Child,
    home: TempDir,
}

/// Starts a manager; prints that the test is skipped where that is impossible.
async fn manager() -> Option<Manager> {
    let program = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    let reason = match program {
        _ if !rustix::process::geteuid().is_root() => "this is not root",
        None => "there is no systemd",
        Some(_) => "",
    };
    if !reason.is_empty() {
        skip("CODEXD_TEST_USER_MANAGER", "the shared app-server under systemd", reason);
        return None;
    }
    let home = scratch::directory("systemd");
    let log = File::create(home.path().join("manager.log")).unwrap();
    let script = format!(
        "mount --types tmpfs tmpfs /run && mkdir --parents /run/systemd/system {RUNTIME_DIRECTORY} && \
         chmod 700 {RUNTIME_DIRECTORY} && exec {} --user",
        program.unwrap()
    );
    let process = Command::new("unshare")
        .args(["--mount", "bash", "-c", &script])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", home.path())
        .env("XDG_RUNTIME_DIR", RUNTIME_DIRECTORY)
        .env("SYSTEMD_LOG_TARGET", "console")
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut manager = Manager { process, home };
    let is_up = wait_until("a manager that runs", || {
        if manager.process.try_wait().unwrap().is_some() {
            return Some(false);
        }
        let state = manager.run("systemctl", &["--user", "is-system-running"]).stdout;
        matches!(state.trim_ascii(), b"running" | b"degraded").then_some(true)
    })
    .await;
    if !is_up {
        let log = fs::read_to_string(manager.home.path().join("manager.log")).unwrap();
        let reason = format!("the manager does not start here: {}", log.lines().last().unwrap_or_default());
        skip("CODEXD_TEST_USER_MANAGER", "the shared app-server under systemd", &reason);
    }
    is_up.then_some(manager)
}

impl Manager {
    /// Runs a program in its mount namespace.
    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        Command::new("nsenter")
            .args(["--mount", "--target", &self.process.id().to_string(), program])
            .args(arguments)
            .env("XDG_RUNTIME_DIR", RUNTIME_DIRECTORY)
            .env_remove("DBUS_SESSION_BUS_ADDRESS")
            .output()
            .unwrap()
    }

    fn succeed(&self, program: &str, arguments: &[&str]) {
        let output = self.run(program, arguments);
        assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = self.run("systemctl", &["--user", "exit"]);
        let _ = self.process.wait();
    }
}

/// codexd as a service, which a script starts.
struct Service<'a> {
    manager: &'a Manager,
    unit: String,
    base_url: String,
}

impl<'a> Service<'a> {
    /// Starts it with the files in this directory, and waits until it listens.
    async fn start(manager: &'a Manager, home: &CodexHome, directory: &Path, environment: &[&str]) -> Self {
        let unit = format!("codexd-test-{}.service", Uuid::new_v4());
        let output: PathBuf = directory.join(&unit);
        let native = &codex().native;
        let script = format!(
            "'{}' start --json --local-api-base http://127.0.0.1:0 --repo-root '{}' --server-strategy shared \
             --server-command '{}' --server-arg app-server; exit $?",
            env!("CARGO_BIN_EXE_codexd"),
            directory.display(),
            native.display()
        );
        let variables = [
            format!("CODEX_HOME={}", home.path().display()),
            format!("HOME={}", home.user_home().display()),
            format!("TMPDIR={}", home.temporary().display()),
        ];
        let variables = variables.iter().map(String::as_str).chain(environment.iter().copied());
        let variables: Vec<_> = variables.map(|variable| format!("--setenv={variable}")).collect();
        let unit_flag = format!("--unit={unit}");
        let output_flag = format!("--property=StandardOutput=file:{}", output.display());
        let log_flag = format!("--property=StandardError=file:{}.log", output.display());
        // As in the unit that codexd installs.
        let mut arguments = vec![
            "--user",
            "--quiet",
            "--collect",
            "--property=KillMode=mixed",
            &unit_flag,
            &output_flag,
            &log_flag,
        ];
        arguments.extend(variables.iter().map(String::as_str));
        arguments.extend(["sh", "-c", &script]);
        manager.succeed("systemd-run", &arguments);
        let base_url = wait_until("the address of the service", || {
            let printed = fs::read_to_string(&output).ok()?;
            let document: Value = serde_json::from_str(&printed).ok()?;
            Some(document["service"]["resolvedBaseUrl"].as_str()?.trim_end_matches('/').to_owned())
        })
        .await;
        Self { manager, unit, base_url }
    }

    /// Waits until it is connected; returns the PID of the app-server.
    async fn app_server(&self) -> i32 {
        wait_until_async("a connection to the shared app-server", async || {
            let status = get(self.base_url.as_str(), "/v1/codexd/status").await;
            let child = &status.data(200)["snapshot"]["daemon"]["child"];
            (child["state"] == "running").then(|| i32::try_from(child["pid"].as_i64().unwrap()).unwrap())
        })
        .await
    }

    /// Runs `systemctl --user VERB UNIT`, and waits for the end of the unit.
    async fn end(self, verb: &[&str]) {
        let arguments: Vec<_> = ["--user"].iter().chain(verb).copied().chain([self.unit.as_str()]).collect();
        self.manager.succeed("systemctl", &arguments);
        wait_until("the end of the unit", || {
            let state = self.manager.run("systemctl", &["--user", "is-active", &self.unit]).stdout;
            (state.trim_ascii() != b"active" && state.trim_ascii() != b"deactivating").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn shared_server_gets_a_scope_or_is_not_started() {
    let Some(manager) = manager().await else { return };
    turns_survive_the_service(&manager).await;
    service_without_a_bus_says_what_to_do(&manager).await;
}

async fn turns_survive_the_service(manager: &Manager) {
    let model = MockModel::start();
    let home = CodexHome::new(&model);
    let directory = scratch::directory("service");
    let mut service = Service::start(manager, &home, directory.path(), &[]).await;
    let server = service.app_server().await;
    let group = fs::read_to_string(format!("/proc/{server}/cgroup")).unwrap();
    assert!(group.contains(".scope"), "{group}");
    let base_url = service.base_url.clone();
    let body = json!({ "cwd": home.workspace() });
    let session = post(base_url.as_str(), "/v1/codexd/sessions", &body).await.data(201)["session"].clone();
    for verb in [&["stop"][..], &["kill", "--signal=KILL"]] {
        let base_url = service.base_url.clone();
        let body = json!({ "sessionId": session["sessionId"], "input": "mock:deltas=20 mock:delay=100" });
        let accepted = post(base_url.as_str(), "/v1/codexd/turn", &body).await.data(202).clone();
        service.end(verb).await;
        service = Service::start(manager, &home, directory.path(), &[]).await;
        assert_eq!(service.app_server().await, server, "{verb:?} ended the app-server");
        let path = format!(
            "/v1/codexd/sessions/{}/turns/{}?wait=30",
            session["sessionId"].as_str().unwrap(),
            accepted["turnId"].as_str().unwrap()
        );
        let turn = get(service.base_url.as_str(), &path).await.data(200)["turn"].clone();
        assert_eq!(
            (&turn["status"], &turn["text"]),
            (&json!("completed"), &json!(text_of_deltas(20))),
            "{verb:?}: {turn:#}"
        );
    }
    service.end(&["stop"]).await;
    kill_process(Pid::from_raw(server).unwrap(), Signal::TERM).unwrap();
}

async fn service_without_a_bus_says_what_to_do(manager: &Manager) {
    let model = MockModel::start();
    let home = CodexHome::new(&model);
    let directory = scratch::directory("service");
    let no_bus = ["XDG_RUNTIME_DIR=/nonexistent", "DBUS_SESSION_BUS_ADDRESS="];
    let service = Service::start(manager, &home, directory.path(), &no_bus).await;
    let reason = wait_until_async("the reason", async || {
        let health = get(service.base_url.as_str(), "/healthz").await;
        let reason = health.json["service"]["notReadyReason"].as_str()?.to_owned();
        reason.contains("scope").then_some(reason)
    })
    .await;
    assert!(
        reason.contains("Failed to connect to bus") && reason.contains("codexd service install"),
        "{reason}"
    );
    assert!(fs::symlink_metadata(home.path().join("app-server-control/app-server-control.sock")).is_err());
    service.end(&["stop"]).await;
}
