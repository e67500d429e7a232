//! `codexd doctor`: its findings without problems, with a running daemon, and with problems.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::api::{CommandOutput, run_command, start_daemon, wait_for_event_type, wait_until_ready};
use crate::support::codex::{CodexHome, codex};
use crate::support::daemon::{Daemon, codexd};
use crate::support::fake_codex::fake_codex;
use crate::support::http::Target;
use crate::support::model::MockModel;
use crate::support::scratch;

/// The flags of a daemon with the fake app-server.
fn fake_flags() -> [&'static str; 3] {
    ["--server-command", fake_codex(), "--server-arg=app-server"]
}

fn home() -> TempDir {
    scratch::directory("doctor")
}

fn command(home: &Path, arguments: &[&str]) -> Command {
    let mut command = codexd(home);
    command.arg("doctor").args(arguments).current_dir(home);
    command
}

/// The checks by their names, and whether all of them passed.
struct Findings {
    ok: bool,
    checks: BTreeMap<String, Value>,
}

impl Findings {
    fn of(ended: &CommandOutput) -> Self {
        assert_eq!(ended.stderr, "", "{ended:?}");
        let document: Value = serde_json::from_str(&ended.stdout).unwrap();
        let ok = document["ok"].as_bool().unwrap();
        assert_eq!(ended.code, Some(if ok { 0 } else { 1 }), "{ended:?}");
        let checks = document["checks"].as_array().unwrap().iter();
        let checks =
            checks.map(|check| (check["name"].as_str().unwrap().to_owned(), check.clone())).collect();
        Self { ok, checks }
    }

    /// Asserts the status of a check, and that its detail or advice contains this text.
    #[track_caller]
    fn assert(&self, name: &str, status: &str, expected: &str) {
        let check = self.checks.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.checks));
        assert_eq!(check["status"], status, "{check:#}");
        let text = format!("{} {}", check["detail"], check["advice"]);
        assert!(text.contains(expected), "no {expected:?} in {check:#}");
        // Every problem has advice.
        assert_eq!(check["advice"].is_null(), status == "ok", "{check:#}");
    }
}

async fn doctor(home: &Path, arguments: &[&str]) -> Findings {
    let arguments = [fake_flags().as_slice(), &["--json"], arguments].concat();
    Findings::of(&run_command(command(home, &arguments)).await)
}

/// The flag with an address at which no process listens.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("--local-api-base=http://{}", listener.local_addr().unwrap())
}

/// The flags with the address and the directories of this daemon.
fn flags_of(daemon: &Daemon) -> [String; 3] {
    let flag = |name: &str, path: PathBuf| format!("--{name}={}", path.display());
    [
        format!("--local-api-base={}", daemon.base_url()),
        flag("logs-dir", daemon.logs_dir()),
        flag("state-dir", daemon.state_dir()),
    ]
}

fn as_strs(flags: &[String]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}

/// The content, permissions and times of everything in a directory.
fn files_in(directory: &Path) -> Vec<(PathBuf, u32, i64, i64, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        let content = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        if metadata.is_dir() {
            found.extend(files_in(&path));
        }
        found.push((path, metadata.mode(), metadata.mtime(), metadata.mtime_nsec(), content));
    }
    found.sort();
    found
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn doctor_passes_and_creates_nothing() {
    let (home, bin) = (home(), home());
    let systemctl_double = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cli/test_doubles/systemctl");
    std::os::unix::fs::symlink(systemctl_double, bin.path().join("systemctl")).unwrap();
    std::os::unix::fs::symlink("/bin/true", bin.path().join("bwrap")).unwrap();
    let address = free_address();
    let run_doctor = |format: &[&str]| {
        let limit: &[&str] = &["--connection-limit=256"];
        let mut command =
            command(home.path(), &[fake_flags().as_slice(), limit, &[&address], format].concat());
        command.env(
            "PATH",
            std::env::join_paths([bin.path(), Path::new("/usr/bin"), Path::new("/bin")]).unwrap(),
        );
        run_command(command)
    };
    let found = run_doctor(&["--json"]).await;
    let normalize = |text: &str| {
        // The free space and the file limit depend on the machine.
        let mut parts: Vec<&str> = text.split(' ').collect();
        for index in 0..parts.len() {
            if parts.get(index + 1) == Some(&"MiB")
                || parts.get(index + 1..index + 3) == Some(&["open", "files"])
            {
                parts[index] = if parts[index].starts_with('"') { "\"N" } else { "N" };
            }
        }
        parts.join(" ")
    };
    let normalized = normalize(&found.stdout)
        .replace(home.path().to_str().unwrap(), "HOME")
        .replace(bin.path().to_str().unwrap(), "BIN")
        .replace(env!("CARGO_BIN_EXE_codexd"), "CODEXD")
        .replace(fake_codex(), "FAKE_CODEX")
        .replace(address.strip_prefix("--local-api-base=").unwrap(), "BASE")
        .replace(env!("CARGO_PKG_VERSION"), "VERSION");
    assert_eq!(normalized, include_str!("snapshots/doctor.json"));
    assert_eq!((found.code, found.stderr.as_str()), (Some(0), ""));
    assert!(fs::read_dir(home.path()).unwrap().next().is_none(), "doctor created files");

    let found = run_doctor(&[]).await;
    assert_eq!((found.code, found.stderr.as_str()), (Some(0), ""));
    assert_eq!(found.stdout.lines().last(), Some("All checks passed."), "{}", found.stdout);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn doctor_warns_without_bubblewrap() {
    let home = home();
    let mut command = command(home.path(), &[fake_flags().as_slice(), &["--json", &free_address()]].concat());
    command.env("PATH", home.path());
    let found = Findings::of(&run_command(command).await);
    assert!(found.ok, "Codex has a bwrap of its own: {:?}", found.checks);
    found.assert("bubblewrap", "warn", "Install the package bubblewrap");
}

#[tokio::test]
async fn doctor_finds_running_daemon_and_changes_nothing() {
    let daemon = start_daemon().await;
    wait_until_ready(&daemon).await;
    // It comes after the daemon is ready.
    wait_for_event_type(&daemon, "app-server.notification").await;
    let home = home();
    let flags = flags_of(&daemon);
    let before = (daemon.events_on_disk().len(), fs::read(daemon.state_dir().join("child.json")).unwrap());
    let found = doctor(home.path(), &as_strs(&flags)).await;
    assert!(found.ok, "{:?}", found.checks);
    found.assert("daemon", "ok", &format!("with PID {} is running and accepts turns", daemon.pid()));
    found.assert("address", "ok", "The daemon listens at");
    found.assert("app-server", "ok", "supports what codexd needs");
    found.assert("state-directory", "ok", daemon.state_dir().to_str().unwrap());
    let after = (daemon.events_on_disk().len(), fs::read(daemon.state_dir().join("child.json")).unwrap());
    assert_eq!(after, before);
    wait_until_ready(&daemon).await;

    // A daemon with other directories, whose address is in use.
    let found = doctor(home.path(), &[&flags[0]]).await;
    assert!(!found.ok);
    found.assert("daemon", "ok", "No codexd uses");
    found.assert("address", "fail", &format!("with PID {}", daemon.pid()));
    // The same directories, with another address.
    let other_address = free_address();
    let found = doctor(home.path(), &[&other_address, &flags[1], &flags[2]]).await;
    found.assert("daemon", "fail", &format!("in use by codexd (pid {})", daemon.pid()));
    found.assert("address", "ok", "is free");
}

#[tokio::test]
async fn doctor_keeps_files_of_stopped_daemon() {
    let mut daemon = start_daemon().await;
    wait_until_ready(&daemon).await;
    let flags = flags_of(&daemon);
    daemon.stop().await;
    let directories = [daemon.state_dir(), daemon.logs_dir()];
    let before = directories.each_ref().map(|directory| files_in(directory));
    let home = home();
    let found = doctor(home.path(), &as_strs(&flags)).await;
    found.assert("daemon", "ok", "No codexd uses");
    found.assert("clock", "ok", "not behind");
    assert_eq!(directories.each_ref().map(|directory| files_in(directory)), before);
}

#[tokio::test]
async fn doctor_warns_about_daemon_without_app_server() {
    let daemon = Daemon::builder().server("/nonexistent/codex", &["app-server"]).start().await;
    crate::api::wait_until_not_ready(&daemon, "was not found").await;
    let found = doctor(home().path(), &as_strs(&flags_of(&daemon))).await;
    assert!(found.ok, "{:?}", found.checks);
    found.assert("daemon", "warn", "does not accept turns: The server command");
}

#[tokio::test]
async fn doctor_fails_for_unusable_codex() {
    let home = home();
    let address = free_address();
    let run_doctor = async |flags: &[&str]| {
        let arguments = [&["--json", address.as_str()], flags].concat();
        Findings::of(&run_command(command(home.path(), &arguments)).await)
    };
    let found = run_doctor(&["--server-command=missing-codex"]).await;
    found.assert("codex", "fail", "npm install");
    assert!(!found.ok && !found.checks.contains_key("app-server"));

    let found =
        run_doctor(&["--server-command=/bin/sh", "--server-arg=-c", "--server-arg=echo gone >&2; exit 7"])
            .await;
    found.assert("codex", "ok", "/bin/sh");
    found.assert("app-server", "fail", "exited with code 7. Error output: gone");
    assert!(!found.checks.contains_key("login"));

    let startup = |arguments: &[&'static str]| {
        [fake_flags().as_slice(), &["--server-arg=--startup"], arguments].concat()
    };
    let found = run_doctor(&startup(&["--server-arg=hang-initialize", "--start-timeout=1"])).await;
    found.assert("app-server", "fail", "did not answer initialize within 1 s");
    let found = run_doctor(&startup(&["--server-arg=refuse-initialize"])).await;
    found.assert("app-server", "fail", "initialize refused");
}

#[tokio::test]
async fn doctor_names_process_at_address() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("--local-api-base=http://{}", listener.local_addr().unwrap());
    let answering = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").unwrap();
    });
    let found = doctor(home().path(), &[&address]).await;
    answering.join().unwrap();
    found.assert("address", "fail", "does not respond like codexd");
}

#[tokio::test]
async fn doctor_warns_about_the_demo_that_commands_use() {
    let (home, demo) = (home(), Daemon::builder().demo().start().await);
    let of_demo = |path: PathBuf| path.parent().unwrap().display().to_string();
    let flags = [
        format!("--local-api-base={}", demo.base_url()),
        format!("--logs-dir={}", of_demo(demo.logs_dir())),
        format!("--state-dir={}", of_demo(demo.state_dir())),
    ];
    let found = doctor(home.path(), &as_strs(&flags)).await;
    found.assert("address", "warn", "is in use by the demo of codexd");
    found.assert("address", "warn", "codexd stop");
    found.assert("daemon", "ok", "No codexd uses these directories");
    assert!(found.ok);
    // The demo of other directories is like any other program.
    let elsewhere = doctor(home.path(), &[&flags[0]]).await;
    elsewhere.assert("address", "fail", "is in use by the demo of codexd");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn doctor_compares_the_variables_of_the_service_with_the_shell() {
    let (home, address) = (home(), free_address());
    let flags = [fake_flags().as_slice(), &[&address]].concat();
    let run = |subcommand: &[&str], proxy: &str| {
        let mut command = codexd(home.path());
        command.args([subcommand, &flags].concat()).current_dir(home.path());
        // Without a service manager.
        command.env("PATH", home.path()).env("HTTPS_PROXY", proxy);
        run_command(command)
    };
    let installed = run(&["service", "install", "--service-env", "HTTPS_PROXY"], "http://127.0.0.1:1").await;
    assert_eq!(installed.code, Some(0), "{}", installed.stderr);
    let found = Findings::of(&run(&["doctor", "--json"], "http://127.0.0.1:1").await);
    assert!(!found.checks.contains_key("variables"), "{:?}", found.checks);
    found.assert("service", "warn", "there is no systemctl in PATH");
    found.assert("service", "warn", "starts codexd");
    let found = Findings::of(&run(&["doctor", "--json"], "http://127.0.0.1:2").await);
    found.assert("variables", "warn", "other values of HTTPS_PROXY");
    found.assert("variables", "warn", "codexd service install --service-env HTTPS_PROXY");
    assert!(!format!("{:?}", found.checks).contains("127.0.0.1:2"), "{:?}", found.checks);
}

#[tokio::test]
async fn doctor_checks_token_file() {
    let home = home();
    let token = home.path().join("token");
    let flag = format!("--auth-token-file={}", token.display());
    let address = free_address();
    let found = doctor(home.path(), &[&flag, &address]).await;
    found.assert("token", "fail", "codexd token --replace");
    fs::write(&token, "0123456789abcdef0123456789abcdef").unwrap();
    fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let daemon = Daemon::builder().arg(&flag).start().await;
    let flags = flags_of(&daemon);
    let found = doctor(home.path(), &[as_strs(&flags).as_slice(), &[&flag]].concat()).await;
    found.assert("token", "ok", "Requests need the token");
    found.assert("address", "ok", "The daemon listens at");
    let found = doctor(home.path(), &as_strs(&flags)).await;
    found.assert("address", "warn", "--auth-token-file");
    found.assert("token", "warn", &format!("the daemon at {} requires one", daemon.base_url()));
    found.assert("token", "warn", "--auth-token-file");
    found.assert("daemon", "ok", &format!("pid {}", daemon.pid()));
}

#[tokio::test]
async fn doctor_checks_real_codex_version_and_account() {
    let model = MockModel::start();
    let home = CodexHome::new(&model);
    let address = free_address();
    let run_doctor = |codex_home: PathBuf| {
        let server = format!("--server-command={}", codex().native.display());
        let mut command = command(&home.user_home(), &["--json", &address, &server]);
        command.env("CODEX_HOME", codex_home);
        run_command(command)
    };
    let found = Findings::of(&run_doctor(home.path()).await);
    assert!(found.ok, "{:?}", found.checks);
    found.assert("app-server", "ok", "supports");
    found.assert("version", "ok", &format!("Codex {}.", codex().version));
    found.assert("login", "ok", "needs no OpenAI account");

    let without_account = home.workspace();
    let found = Findings::of(&run_doctor(without_account).await);
    found.assert("login", "fail", "codex login");
}

#[tokio::test]
async fn doctor_reports_unknown_account_with_rejected_configuration() {
    let model = MockModel::start();
    let home = CodexHome::new(&model);
    home.configure(|config| config.replace("\"never\"", "\"bogus\""));
    let server = format!("--server-command={}", codex().native.display());
    let mut command = command(&home.user_home(), &["--json", &free_address(), &server]);
    command.env("CODEX_HOME", home.path());
    let found = Findings::of(&run_command(command).await);
    found.assert("app-server", "fail", "unknown variant `bogus`");
    found.assert("login", "warn", "unknown because Codex rejects its configuration");
}
