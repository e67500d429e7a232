//! Start time, turn latency, and idle cost of the daemon.
//!
//! `cargo bench --bench figures` prints, for the release build with the fake app-server: the time from spawn to the
//! first 200 of `/healthz`, the resident memory and the CPU time when idle, the time of `GET /healthz`, the time of
//! `POST /v1/codexd/turn` (50th and 99th percentile), and the time from sending a turn with ten deltas to its completion on the event stream.
//! Every figure is a median of several runs.

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

use std::time::{Duration, Instant};

use client::{Client, Stream};
use daemon::Daemon;

const STARTS: usize = 15;
const TURNS: usize = 300;

fn main() {
    // `cargo test --benches` only checks that the benchmark builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let mut starts: Vec<_> = (0..STARTS).map(|_| start_once()).collect();
    println!("spawn to first 200 of /healthz   {:8.2} ms (median of {STARTS})", ms(median(&mut starts)));

    let daemon = start();
    daemon.wait_ready();
    daemon.wait_idle();
    println!("idle RSS                         {:8.2} MB", daemon.kib("VmRSS") as f64 / 1024.0);
    let before = daemon.cpu();
    std::thread::sleep(Duration::from_secs(10));
    println!("idle CPU                         {:8.2} ms in 10 s", ms(daemon.cpu().saturating_sub(before)));

    let mut client = Client::connect(&daemon);
    let mut health_checks: Vec<_> = (0..TURNS)
        .map(|_| {
            let began = Instant::now();
            client.get("/healthz");
            began.elapsed()
        })
        .collect();
    println!("GET /healthz p50                 {:8.2} ms", ms(median(&mut health_checks)));
    let session = client.session(None);
    let mut events = Stream::connect(&daemon);
    let (mut posts, mut turns) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let began = Instant::now();
        client.turn(&session, "hello deltas=10", None);
        posts.push(began.elapsed());
        assert_eq!(events.count_deltas(), 10);
        turns.push(began.elapsed());
    }
    println!("POST /turn p50                   {:8.2} ms ({TURNS} turns)", ms(median(&mut posts)));
    println!("POST /turn p99                   {:8.2} ms", ms(percentile(&mut posts, 99)));
    println!("turn with ten deltas, end to end {:8.2} ms (median)", ms(median(&mut turns)));
    println!("RSS after {TURNS} turns              {:8.2} MB", daemon.kib("VmRSS") as f64 / 1024.0);
    let size = std::fs::metadata(env!("CARGO_BIN_EXE_codexd")).unwrap().len();
    println!("size of the stripped binary      {:8.2} MB", size as f64 / 1e6);
}

fn start() -> Daemon {
    Daemon::start_in(tempfile::tempdir().unwrap())
}

fn start_once() -> Duration {
    let began = Instant::now();
    let daemon = start();
    daemon.wait_healthy();
    began.elapsed()
}

fn median(times: &mut [Duration]) -> Duration {
    percentile(times, 50)
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
