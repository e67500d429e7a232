//! What many sessions cost: memory, the size of the registry, the bytes written for a small turn, and how long it takes
//! until a program that reads the registry sees the end of a turn.
//!
//! `cargo bench --bench records` makes 450 sessions with 20 turns of 20 commands each, every request with an
//! `Idempotency-Key`, and prints the resident memory and the size of `session-registry.json`, then what 30 small turns
//! write, state files and log together, and the time from the end of each of 20 turns, as the event stream has it, to the
//! file. `CODEXD_BENCH_SESSIONS` and `CODEXD_BENCH_TURNS` are other numbers of sessions and of turns each: a registry of
//! 10,000 sessions is measured with `CODEXD_BENCH_SESSIONS=10000 CODEXD_BENCH_TURNS=1 cargo bench --bench records`.
//! Needs Linux.

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

use std::path::Path;
use std::time::{Duration, Instant};

use client::{Client, Stream};
use daemon::Daemon;

const TURNS: usize = 20;
const COMMANDS: usize = 20;
const SMALL_TURNS: u64 = 30;
const VISIBLE_TURNS: usize = 20;
/// The pause between two small turns.
const PAUSE: Duration = Duration::from_millis(500);

fn main() {
    // `cargo test --benches` only checks that the benchmark builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let sessions: usize = number("CODEXD_BENCH_SESSIONS").unwrap_or(450);
    let turns: usize = number("CODEXD_BENCH_TURNS").unwrap_or(TURNS);
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
        for turn in 0..turns {
            client.turn(&last, &input, Some(&format!("deploy-turn-{session:06}-{turn:06}")));
            events.count_deltas();
        }
    }
    daemon.wait_idle();
    // The rounds of state files that belong to them.
    std::thread::sleep(Duration::from_secs(5));
    println!("RSS with {sessions} sessions           {:8.2} MB", daemon.kib("VmRSS") as f64 / 1024.0);
    // What a client is sent counts as written too.
    drop(events);
    let before = written(pid);
    for turn in 0..SMALL_TURNS {
        client.turn(&last, "hello", Some(&format!("small-{turn}")));
        // Longer than it takes.
        std::thread::sleep(PAUSE);
    }
    // The next round of state files belongs to them.
    std::thread::sleep(Duration::from_secs(2));
    println!(
        "written per small turn           {:8.2} KB",
        (written(pid) - before) as f64 / SMALL_TURNS as f64 / 1e3
    );
    let mut events = Stream::connect(&daemon);
    let mut times: Vec<_> =
        (0..VISIBLE_TURNS).map(|_| time_until_visible(&mut client, &mut events, &last, &registry)).collect();
    times.sort();
    println!(
        "end of a turn in the registry    {:8.2} ms, at most {:.2} ms",
        times[VISIBLE_TURNS / 2].as_secs_f64() * 1e3,
        times[VISIBLE_TURNS - 1].as_secs_f64() * 1e3
    );
    let bytes = std::fs::metadata(registry).unwrap().len();
    println!("session-registry.json            {:8.2} MB", bytes as f64 / 1e6);
}

/// The time from the end of a turn on the event stream until the registry has its status.
fn time_until_visible(client: &mut Client, events: &mut Stream, session: &str, registry: &Path) -> Duration {
    let turn = client.turn(session, "hello", None);
    events.count_deltas();
    let ended = Instant::now();
    let record = format!("\"lastTurnId\": \"{turn}\",\n      \"lastTurnStatus\": \"completed\"");
    while memchr::memmem::find(&std::fs::read(registry).unwrap(), record.as_bytes()).is_none() {
        std::thread::sleep(Duration::from_millis(10));
    }
    ended.elapsed()
}

/// The bytes that a process has written so far.
fn written(pid: u64) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap();
    line.parse().unwrap()
}
