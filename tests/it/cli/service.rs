//! `codexd service` on Linux: the unit, and what systemd is told about it.
//!
//! systemctl is a stand-in that writes down its calls; whether systemd takes the unit, systemd itself says.
//! What launchd would be given is tried out in `src/service/tests.rs` and `tests/launchd.rs`, on any system.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::api::{Ended, run};
use crate::support::daemon::codexd;
use crate::support::scratch;
use crate::support::skip::skip;

/// A person with a home folder, with Codex and a stand-in for systemctl in `PATH`.
struct ServiceUser {
    root: TempDir,
}

impl ServiceUser {
    fn new() -> Self {
        let user = Self { root: scratch::directory("service") };
        for folder in ["home", "bin"] {
            fs::create_dir(user.path(folder)).unwrap();
        }
        let stand_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cli/stand_ins/systemctl");
        symlink(stand_in, user.path("bin/systemctl")).unwrap();
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
        // The folders of the system are for the shell that runs the stand-in.
        let search = std::env::join_paths([self.path("bin"), "/usr/bin".into(), "/bin".into()]).unwrap();
        command.arg("service").args(arguments).env("PATH", search).current_dir(self.root.path());
        command
    }

    async fn types(&self, arguments: &[&str]) -> Ended {
        run(self.command(arguments)).await
    }

    /// The calls of systemctl since the last look.
    fn calls(&self) -> Vec<String> {
        let path = self.path("bin/calls");
        let calls = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(path);
        calls.lines().map(str::to_owned).collect()
    }

    /// The text with what differs from run to run replaced.
    fn plain(&self, text: &str) -> String {
        text.replace(self.root.path().to_str().unwrap(), "ROOT")
            .replace(env!("CARGO_BIN_EXE_codexd"), "CODEXD")
    }

    fn has_files(&self) -> bool {
        fs::read_dir(self.path("home")).unwrap().next().is_some()
    }
}

fn document(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

const SHOW: &str = "--user show codexd.service \
                    --property=LoadState,ActiveState,SubState,UnitFileState,MainPID,Result,ExecMainStatus";
const GREETING: &str = "--user show --property=Version";

#[tokio::test]
async fn service_install_is_repeatable_and_uninstall_reverts() {
    let user = ServiceUser::new();
    let install = ["install", "--json"];
    let first = user.types(&install).await;
    assert_eq!((first.code, first.stderr.as_str()), (Some(0), ""), "{first:?}");
    assert_eq!(user.plain(&first.stdout), include_str!("snapshots/service-install.json"));
    let put_in = ["--user daemon-reload", "--user enable codexd.service"];
    let (start, restart) = ("--user start codexd.service", "--user restart codexd.service");
    assert_eq!(user.calls(), [[GREETING, SHOW].as_slice(), &put_in, &[restart]].concat());
    let unit = fs::read_to_string(user.unit()).unwrap();
    assert_eq!(fs::metadata(user.unit()).unwrap().permissions().mode() & 0o777, 0o600);

    let again = user.types(&install).await;
    assert_eq!(document(&again)["change"], "unchanged");
    assert_eq!(user.calls(), [[GREETING, SHOW].as_slice(), &put_in, &[start]].concat());
    assert_eq!(fs::read_to_string(user.unit()).unwrap(), unit);

    let changed = user.types(&["install", "--json", "--event-cache-size", "7"]).await;
    assert_eq!(document(&changed)["change"], "updated");
    assert_eq!(user.calls().last().unwrap(), restart);
    let text = fs::read_to_string(user.unit()).unwrap();
    assert!(text.contains("\nEnvironment=\"BAA_CODEXD_EVENT_CACHE_SIZE=7\"\n"), "{text}");

    let status = user.types(&["status", "--json"]).await;
    assert_eq!((status.code, document(&status)["file"].as_str()), (Some(0), Some("different")), "{status:?}");
    let status = user.types(&["status", "--json", "--event-cache-size", "7"]).await;
    assert_eq!(user.plain(&status.stdout), include_str!("snapshots/service-status.json"));
    user.calls();

    let gone = user.types(&["uninstall", "--json"]).await;
    assert_eq!(user.plain(&gone.stdout), include_str!("snapshots/service-uninstall.json"));
    assert!(!user.unit().exists() && user.unit().parent().unwrap().is_dir());
    let taken_out = ["--user disable --now codexd.service", "--user daemon-reload"];
    assert_eq!(user.calls(), [[GREETING, SHOW].as_slice(), &taken_out].concat());
    let nothing = user.types(&["uninstall", "--json"]).await;
    assert_eq!((nothing.code, document(&nothing)["removed"].as_bool()), (Some(0), Some(false)));
    let status = user.types(&["status"]).await;
    assert_eq!(status.code, Some(3), "{status:?}");
    assert!(status.stdout.contains("not installed"), "{}", status.stdout);
}

#[tokio::test]
async fn service_print_matches_install_and_writes_nothing() {
    let user = ServiceUser::new();
    let flags = ["--auth-token-file", "to ken", "--server-arg", "100% \"x\""];
    let shown = user.types(&[["print"].as_slice(), &flags].concat()).await;
    assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""));
    assert!(!user.has_files() && user.calls().is_empty());
    assert_eq!(user.plain(&shown.stdout), include_str!("snapshots/codexd.service"));
    let json = user.types(&[["print", "--json"].as_slice(), &flags].concat()).await;
    assert_eq!(document(&json)["text"], shown.stdout);
    assert_eq!(document(&json)["path"], user.unit().to_str().unwrap());
    let installed = user.types(&[["install"].as_slice(), &flags].concat()).await;
    assert_eq!(installed.code, Some(0), "{installed:?}");
    assert_eq!(fs::read_to_string(user.unit()).unwrap(), shown.stdout);
}

#[tokio::test]
async fn service_unit_path_follows_xdg() {
    let user = ServiceUser::new();
    let mut command = user.command(&["install"]);
    command.env("XDG_CONFIG_HOME", user.path("config")).env("CODEX_HOME", user.path("codex"));
    assert_eq!(run(command).await.code, Some(0));
    let unit = fs::read_to_string(user.path("config/systemd/user/codexd.service")).unwrap();
    assert!(unit.contains(&format!("\"CODEX_HOME={}\"", user.path("codex").display())), "{unit}");
    assert!(!user.has_files());
}

#[tokio::test]
async fn service_install_without_manager_prints_commands() {
    let user = ServiceUser::new();
    fs::write(user.path("bin/no-bus"), "").unwrap();
    let shown = user.types(&["install"]).await;
    assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""));
    for part in
        ["Failed to connect to bus", "systemctl --user daemon-reload", "systemctl --user enable --now"]
    {
        assert!(shown.stdout.contains(part), "no {part:?} in {}", shown.stdout);
    }
    assert!(user.unit().exists());
    fs::remove_file(user.path("bin/systemctl")).unwrap();
    let mut command = user.command(&["status", "--json"]);
    let status = run({
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
    let refused = user.types(&["install", "--json"]).await;
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""));
    assert!(refused.stderr.contains("Job for codexd.service failed."), "{}", refused.stderr);
    let status = user.types(&["status"]).await;
    assert_eq!(status.code, Some(3));
    assert!(status.stdout.contains("failed (failed), last ended with exit code 2"), "{}", status.stdout);
}

#[tokio::test]
async fn service_install_rejects_secret() {
    let user = ServiceUser::new();
    for flags in [
        ["--server-strategy=external", "--server-endpoint=wss://me:hidden@host/"],
        ["--server-arg=app-server", "--server-arg=-cMY_API_KEY=hidden"],
    ] {
        for action in ["install", "print", "status"] {
            let refused = user.types(&[[action].as_slice(), &flags].concat()).await;
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
    let refused = user.types(&["install"]).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("is a symlink"), "{}", refused.stderr);
    assert_eq!(fs::read_to_string(user.path("precious")).unwrap(), "precious");
}

#[tokio::test]
async fn service_unit_passes_systemd_verify() {
    let user = ServiceUser::new();
    // A folder whose name means something to systemd; codexd is a link there, as where an upgrade moves the program.
    let odd = user.path("a b $x ${HOME} 100%h");
    fs::create_dir(&odd).unwrap();
    symlink(env!("CARGO_BIN_EXE_codexd"), odd.join("codexd")).unwrap();
    fs::write(user.path("bin/no-bus"), "").unwrap();
    let mut command = user.command(&["install", "--server-arg", "50% $x \"y\" 'z' \\", "--node-id", "a b"]);
    let folders = [odd, user.path("bin"), "/usr/bin".into(), "/bin".into()];
    command.env("PATH", std::env::join_paths(folders).unwrap());
    assert_eq!(run(command).await.code, Some(0));
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
        return skip("CODEXD_TEST_SYSTEMD", "the check of the unit by systemd", &why);
    }
    let verified = run(verify()).await;
    assert_eq!((verified.code, verified.stderr.as_str()), (Some(0), ""), "{verified:?}");
    // That it would notice.
    fs::write(user.unit(), text.replace("100%%h", "100%h")).unwrap();
    let verified = run(verify()).await;
    assert!(verified.code != Some(0), "{verified:?}");
}
