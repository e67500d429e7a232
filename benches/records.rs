//! What many sessions cost: memory, the size of the registry, and the bytes written for a small turn.
//!
//! `cargo bench --bench records` makes 450 sessions with 20 turns of 20 commands each, every request with an
//! `Idempotency-Key`, and prints the resident memory and the size of `session-registry.json`, then what 30 small turns
//! write, state files and log together. `CODEXD_BENCH_SESSIONS` is another number of sessions. Needs Linux.

#![expect(clippy::disallowed_methods, reason = "a benchmark is a separate process")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark that cannot continue has no result"
)]

#[path = "support/client.rs"]
mod client;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "../tests/fake_codex/program.rs"]
mod fake_codex;

use std::time::Duration;

use client::{Client, Stream};
use daemon::Daemon;

const TURNS: usize = 20;
const COMMANDS: usize = 20;
const SMALL_TURNS: u64 = 30;
/// The pause between two small turns.
const PAUSE: Duration = Duration::from_millis(500);

fn main() {
    // `cargo test --benches` only checks that the benchmark builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let sessions = std::env::var("CODEXD_BENCH_SESSIONS").ok().and_then(|text| text.parse().ok());
    let sessions: usize = sessions.unwrap_or(450);
    let directory = tempfile::tempdir().unwrap();
    let registry = directory.path().join("state/codexd/session-registry.json");
    let daemon = Daemon::start_in(directory);
    daemon.wait_healthy();
    daemon.wait_ready();
    println!("RSS without sessions             {:8.2} MB", daemon.kib("VmRSS") as f64 / 1024.0);
    let mut client = Client::connect(&daemon);
    let pid = client.get("/v1/codexd/status")["data"]["snapshot"]["daemon"]["pid"].as_u64().unwrap();
    let mut events = Stream::connect(&daemon);
    let mut last = String::new();
    let input = "command=ls ".repeat(COMMANDS);
    for session in 0..sessions {
        last = client.session(Some(&format!("deploy-session-{session:06}")));
        for turn in 0..TURNS {
            client.turn(&last, &input, Some(&format!("deploy-turn-{session:06}-{turn:06}")));
            events.count_deltas();
        }
    }
    daemon.wait_idle();
    println!("RSS with {sessions} sessions           {:8.2} MB", daemon.kib("VmRSS") as f64 / 1024.0);
    let before = written(pid);
    for turn in 0..SMALL_TURNS {
        client.turn(&last, "hello", Some(&format!("small-{turn}")));
        events.count_deltas();
        std::thread::sleep(PAUSE);
    }
    // The next round of state files belongs to them.
    std::thread::sleep(Duration::from_secs(2));
    println!(
        "written per small turn           {:8.2} KB",
        (written(pid) - before) as f64 / SMALL_TURNS as f64 / 1e3
    );
    let bytes = std::fs::metadata(registry).unwrap().len();
    println!("session-registry.json            {:8.2} MB", bytes as f64 / 1e6);
}

/// The bytes that a process has written so far.
fn written(pid: u64) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap();
    line.parse().unwrap()
}
