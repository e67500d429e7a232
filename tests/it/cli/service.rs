//! `codexd service` on Linux: the systemd unit, and the systemctl calls.
//!
//! A test double of systemctl records its calls; systemd-analyze verifies the unit where it is installed.
//! `src/service/tests.rs` and `tests/launchd.rs` test the launchd property list on any system.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::api::{CommandOutput, STATUS, create_session, run_command};
use crate::support::daemon::{Daemon, codexd};
use crate::support::fake_codex::fake_codex;
use crate::support::http::get;
use crate::support::scratch;
use crate::support::skip::skip;

/// A user with a home directory, with Codex and a test double of systemctl in `PATH`, and the daemon that the unit of
/// the test double runs.
struct ServiceUser {
    root: TempDir,
    daemon: SocketAddr,
}

impl ServiceUser {
    fn new() -> Self {
        let user = Self { root: scratch::directory("service"), daemon: answer_as_daemon() };
        for directory in ["home", "bin"] {
            fs::create_dir(user.path(directory)).unwrap();
        }
        let doubles = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cli/test_doubles");
        for name in ["systemctl", "journalctl"] {
            symlink(doubles.join(name), user.path("bin").join(name)).unwrap();
        }
        symlink(env!("CARGO_BIN_EXE_codexd"), user.path("bin/codex")).unwrap();
        user
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn unit(&self) -> PathBuf {
        self.path("home/.config/systemd/user/codexd.service")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = codexd(&self.path("home"));
        // The system directories are for the shell that runs the test double.
        let search = std::env::join_paths([self.path("bin"), "/usr/bin".into(), "/bin".into()]).unwrap();
        command.arg("service").args(arguments).env("PATH", search).current_dir(self.root.path());
        command.env("BAA_CODEXD_LOCAL_API_BASE", format!("http://{}", self.daemon));
        command
    }

    async fn run(&self, arguments: &[&str]) -> CommandOutput {
        run_command(self.command(arguments)).await
    }

    /// The calls of systemctl since the last call of this function.
    fn calls(&self) -> Vec<String> {
        let path = self.path("bin/calls");
        let calls = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(path);
        calls.lines().map(str::to_owned).collect()
    }

    /// The text with the values replaced that differ between runs.
    fn normalize(&self, text: &str) -> String {
        text.replace(self.root.path().to_str().unwrap(), "ROOT")
            .replace(env!("CARGO_BIN_EXE_codexd"), "CODEXD")
            .replace(&self.daemon.to_string(), "ADDRESS")
    }

    fn has_files(&self) -> bool {
        fs::read_dir(self.path("home")).unwrap().next().is_some()
    }
}

/// Answers every request as a daemon with the PID that the test double of systemctl reports.
fn answer_as_daemon() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let body = r#"{"ok":true,"data":{"snapshot":{"daemon":{"pid":4711}}}}"#;
        let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        for mut connection in listener.incoming().flatten() {
            let _ = connection.read(&mut [0; 4096]);
            let _ = connection.write_all(response.as_bytes());
        }
    });
    address
}

fn document(ended: &CommandOutput) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

const SHOW: &str = "--user show codexd.service \
                    --property=LoadState,ActiveState,SubState,UnitFileState,MainPID,Result,ExecMainStatus";
const SHOW_VERSION: &str = "--user show --property=Version";

#[tokio::test]
async fn service_install_is_repeatable_and_uninstall_reverts() {
    let user = ServiceUser::new();
    let install = ["install", "--json"];
    let first = user.run(&install).await;
    assert_eq!((first.code, first.stderr.as_str()), (Some(0), ""), "{first:?}");
    assert_eq!(user.normalize(&first.stdout), include_str!("snapshots/service-install.json"));
    let enable = ["--user daemon-reload", "--user enable codexd.service"];
    let (start, restart) = ("--user start codexd.service", "--user restart codexd.service");
    let asked = [SHOW_VERSION, SHOW];
    assert_eq!(user.calls(), [[SHOW_VERSION].as_slice(), &enable, &[restart], &asked].concat());
    let unit = fs::read_to_string(user.unit()).unwrap();
    assert_eq!(fs::metadata(user.unit()).unwrap().permissions().mode() & 0o777, 0o600);

    let again = user.run(&install).await;
    assert_eq!(document(&again)["change"], "unchanged");
    assert_eq!(user.calls(), [[SHOW_VERSION].as_slice(), &enable, &[start], &asked].concat());
    assert_eq!(fs::read_to_string(user.unit()).unwrap(), unit);

    let changed = user.run(&["install", "--json", "--event-cache-size", "7"]).await;
    assert_eq!(document(&changed)["change"], "updated");
    assert!(user.calls().contains(&restart.to_owned()));
    let text = fs::read_to_string(user.unit()).unwrap();
    assert!(text.contains("\nEnvironment=\"BAA_CODEXD_EVENT_CACHE_SIZE=7\"\n"), "{text}");

    // The address is that of the installed file.
    for (action, calls) in
        [("restart", [asked.as_slice(), &[restart], &asked]), ("start", [&asked, &[start], &asked])]
    {
        let started = user.run(&[action, "--local-api-base", "http://127.0.0.1:1"]).await;
        assert_eq!((started.code, started.stdout.as_str()), (Some(0), "systemd runs codexd, PID 4711.\n"));
        assert_eq!(user.calls(), calls.concat());
    }

    let status = user.run(&["status", "--json"]).await;
    assert_eq!((status.code, document(&status)["file"].as_str()), (Some(0), Some("different")), "{status:?}");
    let status = user.run(&["status", "--json", "--event-cache-size", "7"]).await;
    assert_eq!(user.normalize(&status.stdout), include_str!("snapshots/service-status.json"));
    user.calls();

    let uninstalled = user.run(&["uninstall", "--json"]).await;
    assert_eq!(user.normalize(&uninstalled.stdout), include_str!("snapshots/service-uninstall.json"));
    assert!(!user.unit().exists() && user.unit().parent().unwrap().is_dir());
    let disable = ["--user disable --now codexd.service", "--user daemon-reload"];
    assert_eq!(user.calls(), [[SHOW_VERSION, SHOW].as_slice(), &disable].concat());
    let nothing = user.run(&["uninstall", "--json"]).await;
    assert_eq!((nothing.code, document(&nothing)["removed"].as_bool()), (Some(0), Some(false)));
    let status = user.run(&["status"]).await;
    assert_eq!(status.code, Some(3), "{status:?}");
    assert!(status.stdout.contains("not installed"), "{}", status.stdout);
}

#[tokio::test]
async fn service_print_matches_install_and_writes_nothing() {
    let user = ServiceUser::new();
    let flags = ["--auth-token-file", "to ken", "--server-arg", "100% \"x\""];
    let ended = user.run(&[["print"].as_slice(), &flags].concat()).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert!(!user.has_files() && user.calls().is_empty());
    assert_eq!(user.normalize(&ended.stdout), include_str!("snapshots/codexd.service"));
    let json = user.run(&[["print", "--json"].as_slice(), &flags].concat()).await;
    assert_eq!(document(&json)["text"], ended.stdout);
    assert_eq!(document(&json)["path"], user.unit().to_str().unwrap());
    let installed = user.run(&[["install"].as_slice(), &flags].concat()).await;
    assert_eq!(installed.code, Some(0), "{installed:?}");
    assert_eq!(fs::read_to_string(user.unit()).unwrap(), ended.stdout);
}

/// A secret that no output and no file has, except the file of variables.
const CANARY: &str = "canary of the provider";

#[tokio::test]
async fn service_env_is_passed_on_and_never_shown() {
    let user = ServiceUser::new();
    let run = async |arguments: &[&str], value: Option<&str>| {
        let mut command = user.command(arguments);
        command.env("NO_PROXY", "localhost");
        command.envs(value.map(|value| ("PROVIDER_KEY", value)));
        let ended = run_command(command).await;
        assert!(!format!("{ended:?}").contains(CANARY), "{arguments:?}: {ended:?}");
        ended
    };
    let stored = || fs::read_to_string(user.path("home/.config/codexd/service.env")).unwrap();
    let restarts = || user.calls().contains(&"--user restart codexd.service".to_owned());

    let unset = run(&["install", "--service-env", "PROVIDER_KEY"], None).await;
    assert_eq!(unset.code, Some(2));
    assert!(
        unset.stderr.contains("PROVIDER_KEY cannot be passed to the service: it is not set"),
        "{unset:?}"
    );
    assert!(!user.has_files(), "a refused name changes nothing");

    let both = ["install", "--json", "--service-env", "PROVIDER_KEY", "--service-env", "NO_PROXY"];
    let first = run(&both, Some(CANARY)).await;
    assert_eq!(document(&first)["variables"], serde_json::json!(["NO_PROXY", "PROVIDER_KEY"]));
    assert!(stored().contains(&format!("PROVIDER_KEY=\"{CANARY}\"\n")) && restarts());
    let unit = fs::read_to_string(user.unit()).unwrap();
    assert!(unit.contains("\"BAA_CODEXD_SERVICE_ENV=") && !unit.contains(CANARY), "{unit}");

    // The variables stay without the flags, also where this shell has another value.
    let again = run(&["install", "--json"], Some("other")).await;
    assert_eq!((document(&again)["change"].as_str(), restarts()), (Some("unchanged"), false));
    assert!(stored().contains(CANARY));
    for action in ["print", "status"] {
        let shown = run(&[action], Some(CANARY)).await;
        let shown = format!("{}{}", shown.stdout, shown.stderr);
        assert!(shown.contains("NO_PROXY, PROVIDER_KEY"), "{shown}");
        assert!(!shown.contains("does not match"), "{shown}");
        let json = run(&[action, "--json"], Some(CANARY)).await;
        assert_eq!(document(&json)["variables"][1], "PROVIDER_KEY");
    }

    // A new value alone restarts the service, which has the old one.
    let changed = run(&["install", "--service-env", "PROVIDER_KEY"], Some("a second")).await;
    assert!(changed.stdout.contains("The service gets NO_PROXY, PROVIDER_KEY from "), "{changed:?}");
    assert!(stored().contains("a second") && !stored().contains(CANARY) && restarts());

    let removed = run(&["install", "--json", "--no-service-env", "PROVIDER_KEY"], None).await;
    assert_eq!(document(&removed)["variables"], serde_json::json!(["NO_PROXY"]));
    assert!(!stored().contains("PROVIDER_KEY") && restarts());
    let misplaced = run(&["restart", "--service-env", "NO_PROXY"], None).await;
    assert_eq!(misplaced.code, Some(2), "{misplaced:?}");

    assert_eq!(run(&["uninstall"], None).await.code, Some(0));
    assert!(!user.path("home/.config/codexd/service.env").exists());
    let after = run(&["install", "--json"], None).await;
    assert_eq!(document(&after)["variables"], serde_json::json!([]));
    assert!(!fs::read_to_string(user.unit()).unwrap().contains("SERVICE_ENV"));
}

#[tokio::test]
async fn service_starts_with_its_variables_or_says_why_not() {
    let directory = scratch::directory("service-env");
    let (file, environment) = (directory.path().join("service.env"), directory.path().join("environment"));
    let script = "env > \"$0.part\" && mv \"$0.part\" \"$0\"; exec \"$1\" app-server --store \"$2\"";
    let (program, store) = (fake_codex(), directory.path().join("store"));
    let arguments = ["-c", script, environment.to_str().unwrap(), program, store.to_str().unwrap()];
    let daemon = || {
        let builder = Daemon::builder().server("sh", &arguments);
        builder.env("BAA_CODEXD_SERVICE_ENV", &file).env("LC_ALL", "C")
    };
    let write = |permissions: u32| {
        fs::write(&file, format!("PROVIDER_KEY=\"{CANARY}\"\nLC_ALL=C.UTF-8\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(permissions)).unwrap();
    };
    let absent = daemon().start_refused().await;
    assert!(absent.stderr.contains("service.env has none"), "{absent:?}");
    write(0o644);
    let refused = daemon().start_refused().await;
    assert_eq!(refused.status.code(), Some(2), "systemd does not start it again: {refused:?}");
    let reason = "service.env has the permissions 0644, and others must have none; chmod 600 it.";
    assert!(refused.stderr.contains(reason) && !refused.stderr.contains(CANARY), "{refused:?}");
    write(0o600);
    let daemon = daemon().start().await;
    create_session(&daemon, serde_json::json!({})).await;
    let environment = fs::read_to_string(&environment).unwrap();
    let lines: Vec<_> = environment.lines().collect();
    assert!(lines.contains(&format!("PROVIDER_KEY={CANARY}").as_str()), "{environment}");
    assert!(lines.contains(&"LC_ALL=C.UTF-8"), "the file wins over the unit: {environment}");
    assert!(!environment.contains("BAA_CODEXD_SERVICE_ENV"), "{environment}");
    let status = get(&daemon, STATUS).await.text;
    let told = [daemon.stdout(), daemon.stderr(), status];
    assert!(!told.concat().contains(CANARY));
}

#[tokio::test]
async fn service_unit_path_follows_xdg() {
    let user = ServiceUser::new();
    let mut command = user.command(&["install"]);
    command.env("XDG_CONFIG_HOME", user.path("config")).env("CODEX_HOME", user.path("codex"));
    assert_eq!(run_command(command).await.code, Some(0));
    let unit = fs::read_to_string(user.path("config/systemd/user/codexd.service")).unwrap();
    assert!(unit.contains(&format!("\"CODEX_HOME={}\"", user.path("codex").display())), "{unit}");
    assert!(!user.has_files());
}

#[tokio::test]
async fn service_install_without_manager_prints_commands() {
    let user = ServiceUser::new();
    fs::write(user.path("bin/no-bus"), "").unwrap();
    let ended = user.run(&["install"]).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    for part in
        ["Failed to connect to bus", "systemctl --user daemon-reload", "systemctl --user enable --now"]
    {
        assert!(ended.stdout.contains(part), "no {part:?} in {}", ended.stdout);
    }
    assert!(user.unit().exists());
    fs::remove_file(user.path("bin/systemctl")).unwrap();
    let mut command = user.command(&["status", "--json"]);
    let status = run_command({
        command.env("PATH", user.path("bin"));
        command
    });
    let status = status.await;
    assert_eq!((status.code, &document(&status)["state"]), (Some(3), &Value::Null));
    assert!(document(&status)["reason"].as_str().unwrap().contains("no systemctl in PATH"), "{status:?}");
}

#[tokio::test]
async fn service_install_fails_when_manager_refuses() {
    let user = ServiceUser::new();
    fs::write(user.path("bin/refuse"), "").unwrap();
    let refused = user.run(&["install", "--json"]).await;
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""));
    assert!(refused.stderr.contains("Job for codexd.service failed."), "{}", refused.stderr);
    let status = user.run(&["status"]).await;
    assert_eq!(status.code, Some(3));
    assert!(status.stdout.contains("failed (failed), last ended with exit code 2"), "{}", status.stdout);
}

#[tokio::test]
async fn service_start_fails_when_daemon_ends() {
    let user = ServiceUser::new();
    let missing = user.run(&["restart"]).await;
    assert_eq!((missing.code, user.calls().len()), (Some(1), 0));
    assert!(missing.stderr.contains("is not installed as a service"), "{}", missing.stderr);
    assert_eq!(user.run(&["install"]).await.code, Some(0));

    fs::write(user.path("bin/crash"), "").unwrap();
    for action in ["install", "start", "restart"] {
        let ended = user.run(&[action]).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
        let reason = "codexd ended after its start (exit code 1), and is started again after a pause.";
        assert!(ended.stderr.contains(reason), "{}", ended.stderr);
    }
    let status = user.run(&["status"]).await;
    assert!(status.stdout.contains("last ended with exit code 1, is started again"), "{}", status.stdout);
    fs::remove_file(user.path("bin/crash")).unwrap();
    user.calls();

    let stopped = user.run(&["stop"]).await;
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
    assert_eq!(user.calls(), [SHOW_VERSION, SHOW, "--user stop codexd.service"]);
    assert_eq!(user.run(&["status"]).await.code, Some(3));
    let logs = user.run(&["logs"]).await;
    assert_eq!(
        (logs.code, logs.stdout.as_str()),
        (Some(0), "codexd[4711]: one\ncodexd[4711]: \u{1b}[31mtwo\n")
    );
    assert_eq!(user.calls().last().unwrap(), "--user --unit codexd.service --no-pager --lines 200");
}

#[tokio::test]
async fn service_is_not_stopped_by_a_command_of_its_own() {
    let user = ServiceUser::new();
    for action in ["install", "uninstall", "start", "stop", "restart"] {
        let mut command = user.command(&[action]);
        command.env("BAA_CODEXD_INSTANCE", "any");
        let refused = run_command(command).await;
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""));
        assert!(refused.stderr.contains("in a terminal of your own"), "{}", refused.stderr);
    }
    assert!(user.calls().is_empty() && !user.has_files());
}

#[tokio::test]
async fn service_install_rejects_secret() {
    let user = ServiceUser::new();
    for flags in [
        ["--server-strategy=external", "--server-endpoint=wss://me:hidden@host/"],
        ["--server-arg=app-server", "--server-arg=-cMY_API_KEY=hidden"],
    ] {
        for action in ["install", "print", "status"] {
            let refused = user.run(&[[action].as_slice(), &flags].concat()).await;
            assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""));
            assert!(
                !refused.stderr.contains("hidden") && refused.stderr.ends_with(".\n"),
                "{}",
                refused.stderr
            );
        }
    }
    assert!(!user.has_files());
}

#[tokio::test]
async fn service_install_does_not_follow_symlink() {
    let user = ServiceUser::new();
    fs::create_dir_all(user.unit().parent().unwrap()).unwrap();
    fs::write(user.path("precious"), "precious").unwrap();
    symlink(user.path("precious"), user.unit()).unwrap();
    let refused = user.run(&["install"]).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("is a symlink"), "{}", refused.stderr);
    assert_eq!(fs::read_to_string(user.path("precious")).unwrap(), "precious");
}

#[tokio::test]
async fn service_unit_passes_systemd_verify() {
    let user = ServiceUser::new();
    // A directory whose name has characters special to systemd; codexd is a symlink there, as after an upgrade that
    // moves the program.
    let special = user.path("a b $x ${HOME} 100%h");
    fs::create_dir(&special).unwrap();
    symlink(env!("CARGO_BIN_EXE_codexd"), special.join("codexd")).unwrap();
    fs::write(user.path("bin/no-bus"), "").unwrap();
    let mut command = user.command(&["install", "--server-arg", "50% $x \"y\" 'z' \\", "--node-id", "a b"]);
    let directories = [special, user.path("bin"), "/usr/bin".into(), "/bin".into()];
    command.env("PATH", std::env::join_paths(directories).unwrap());
    assert_eq!(run_command(command).await.code, Some(0));
    let text = fs::read_to_string(user.unit()).unwrap();
    assert!(text.contains("/a b $x ${HOME} 100%%h/codexd\" start\n"), "{text}");
    let verify = || {
        let mut verify = Command::new("systemd-analyze");
        verify.args(["--user", "verify"]).arg(user.unit());
        verify.env("XDG_RUNTIME_DIR", user.root.path()).env("HOME", user.path("home"));
        verify
    };
    if let Err(error) = Command::new("systemd-analyze").arg("--version").output() {
        let why = format!("systemd-analyze cannot be started: {error}");
        return skip("CODEXD_TEST_SYSTEMD", "the verification of the unit by systemd", &why);
    }
    let verified = run_command(verify()).await;
    assert_eq!((verified.code, verified.stderr.as_str()), (Some(0), ""), "{verified:?}");
    // An invalid unit is detected.
    fs::write(user.unit(), text.replace("100%%h", "100%h")).unwrap();
    let verified = run_command(verify()).await;
    assert!(verified.code != Some(0), "{verified:?}");
}
