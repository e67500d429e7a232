//! The programs that keep the machine awake while turns run, with a stand-in for `systemd-inhibit`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::api::{STATUS, assert_no_survivors, new_session, start_turn, wait_until_ready};
use crate::metrics;
use crate::support::daemon::Daemon;
use crate::support::http::get;
use crate::support::scratch;
use crate::support::wait::{wait_until, wait_until_async};

/// Writes its arguments to a file and runs the command after them, as `systemd-inhibit` does, then notes its end.
const INHIBIT: &str = r#"#!/bin/sh
printf '%s\n' "$@" > "$0.arguments.new" && mv "$0.arguments.new" "$0.arguments"
while [ "${1#--}" != "$1" ]; do shift; done
"$@"
: > "$0.ended"
"#;

fn inhibitor(script: &str) -> TempDir {
    let directory = scratch::directory("keep-awake");
    let path = directory.path().join("systemd-inhibit");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

async fn start(programs: &Path) -> Daemon {
    let path = format!("{}:/usr/bin:/bin", programs.display());
    let daemon = Daemon::builder().env("BAA_CODEXD_KEEP_AWAKE", "auto").env("PATH", path).start().await;
    wait_until_ready(&daemon).await;
    daemon
}

async fn keep_awake(daemon: &Daemon) -> Value {
    get(daemon, STATUS).await.data(200)["service"]["keepAwake"].clone()
}

#[tokio::test]
async fn turn_keeps_the_machine_awake_and_nothing_stays_behind() {
    for is_killed in [false, true] {
        let programs = inhibitor(INHIBIT);
        let mut daemon = start(programs.path()).await;
        let idle = keep_awake(&daemon).await;
        assert_eq!((&idle["state"], &idle["programs"][0]), (&json!("idle"), &json!("systemd-inhibit")));
        start_turn(&daemon, &new_session(&daemon).await, "hang").await;
        let arguments = programs.path().join("systemd-inhibit.arguments");
        let arguments = wait_until("the program", || fs::read_to_string(&arguments).ok()).await;
        assert_eq!(
            arguments,
            "--what=idle\n--who=codexd\n--why=A turn of Codex is running\n--mode=block\ncat\n"
        );
        assert_eq!(keep_awake(&daemon).await["state"], "active");
        let metrics = metrics::page(&daemon).await;
        assert!(metrics.contains("\ncodexd_keep_awake 1\n"), "{metrics}");
        let ended = programs.path().join("systemd-inhibit.ended");
        assert!(!ended.exists());
        if is_killed {
            daemon.kill().await;
            wait_until("the end of the program", || ended.exists().then_some(())).await;
        } else {
            daemon.stop().await;
            assert_no_survivors(&daemon);
        }
    }
}

#[tokio::test]
async fn failure_of_the_program_is_shown() {
    let programs = inhibitor("#!/bin/sh\necho there is no session >&2\nexit 1\n");
    let daemon = start(programs.path()).await;
    start_turn(&daemon, &new_session(&daemon).await, "hang").await;
    let failed = wait_until_async("the failure", async || {
        let view = keep_awake(&daemon).await;
        (view["state"] == "failed").then_some(view)
    })
    .await;
    let error = failed["error"].as_str().unwrap();
    assert!(
        error.starts_with("systemd-inhibit failed: it exited with code 1: there is no session"),
        "{error}"
    );
}
