//! Starting and ending daemons, with a shell script in place of codexd.

use std::path::Path;

use crate::support::codex::{CodexHome, codex};
use crate::support::daemon::{Daemon, DaemonBuilder, codexd};
use crate::support::http::Target;
use crate::support::model::MockModel;

fn stub() -> DaemonBuilder {
    Daemon::builder().program(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/stub_daemon.sh"))
}

fn arguments(daemon: &Daemon) -> String {
    daemon.documents()[0]["arguments"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn daemon_starts_with_clean_environment_and_stops() {
    let mut daemon = stub().arg("--run-once").env("GREETING", "hello").start().await;
    assert_eq!(daemon.base_url(), "http://127.0.0.1:9");
    assert_eq!(daemon.authority(), "127.0.0.1:9");
    let environment = daemon.documents()[0]["environment"].as_str().unwrap().to_owned();
    // A shell adds variables such as PWD.
    let environment: Vec<&str> = environment
        .split_whitespace()
        .filter(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name))
        .collect();
    assert_eq!(
        environment,
        [
            "BAA_CODEXD_DRAIN_TIMEOUT",
            "BAA_CODEXD_KEEP_AWAKE",
            "CODEXD_TEST_MARK",
            "GREETING",
            "HOME",
            "PATH",
            "TMPDIR"
        ]
    );
    assert!(arguments(&daemon).starts_with("start --json --local-api-base http://127.0.0.1:0 --repo-root /"));
    assert!(arguments(&daemon).ends_with(" --run-once"));

    let stopped = daemon.stop().await;
    assert_eq!(stopped.status.code(), Some(7));
    assert!(stopped.took.as_secs() < 10, "{stopped:?}");
    assert_eq!(daemon.documents()[1]["stopped"], true);
    assert_eq!(daemon.stderr(), "");
}

#[tokio::test]
async fn daemon_start_reports_early_exit() {
    let refusal = stub().env("STUB", "refuse").start_refused().await;
    assert_eq!(refusal.status.code(), Some(3));
    assert_eq!(refusal.stderr, "the stub refuses to start\n");
    assert_eq!(refusal.stdout, "");
    let start = tokio::spawn(stub().env("STUB", "refuse").start());
    assert!(start.await.is_err(), "a start without a daemon must fail the test");
}

#[tokio::test]
async fn daemon_restart_reuses_directories_with_a_new_mark() {
    let mut first = stub().start().await;
    first.kill().await;
    let second = stub().state_from(&first).start().await;
    assert_eq!(second.state_dir(), first.state_dir());
    assert_ne!(second.pid(), first.pid());
    drop(first);
    // The log of the stub has two files and an incomplete last line.
    let seqs: Vec<u64> = second.events_on_disk().iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, [1, 2, 3]);
    assert!(second.logs_dir().join("events.jsonl").is_file());
}

#[tokio::test]
async fn daemon_builder_translates_app_server_to_flags() {
    let fake = stub().startup("slow").start().await;
    let flags = "--server-arg app-server --server-arg --store --server-arg /";
    assert!(arguments(&fake).contains(flags), "{}", arguments(&fake));
    assert!(arguments(&fake).ends_with("--server-arg --startup --server-arg slow"));
    let plain = stub().startup("slow").fake_codex().start().await;
    assert!(!arguments(&plain).contains("--startup"));
    let home = CodexHome::new(&MockModel::start());
    let real = stub().real(&home).start().await;
    let flags = format!("--server-command {} --server-arg app-server", codex().native.display());
    assert!(arguments(&real).ends_with(&flags), "{}", arguments(&real));
    assert_eq!(real.documents()[0]["home"], home.user_home().to_str().unwrap());
    let external = stub().external("ws://127.0.0.1:1").start().await;
    assert!(arguments(&external).ends_with("--server-strategy external --server-endpoint ws://127.0.0.1:1"));
}

#[test]
fn codexd_command_has_a_clean_environment() {
    let command = codexd(Path::new("/"));
    let names: Vec<_> = command.get_envs().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(names, ["HOME", "PATH", "TMPDIR"]);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn daemon_drop_kills_surviving_processes() {
    use rustix::process::Signal;

    use crate::support::wait::{wait_until, wait_until_async};

    let mut daemon = stub().start().await;
    let pid = daemon.pid();
    assert!(daemon.survivors().iter().any(|(survivor, _)| *survivor == pid));
    daemon.signal(Signal::KILL);
    assert!(daemon.exited().await.code().is_none());
    // Between fork and exec a process still has the command line of its parent.
    let orphan = wait_until("the sleep that the stub started", || match daemon.survivors().as_slice() {
        [(orphan, line)] if line == "sleep 300" => Some(*orphan),
        _ => None,
    })
    .await;
    drop(daemon);
    wait_until_async("the end of the orphan", async || {
        let state = std::fs::read_to_string(format!("/proc/{orphan}/stat")).unwrap_or_default();
        (state.is_empty() || state.contains(") Z ")).then_some(())
    })
    .await;
}
