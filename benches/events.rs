//! Throughput of events through the daemon, and its cost.
//!
//! `cargo bench --bench events` makes the fake app-server emit deltas at full speed and counts the events that clients
//! receive over WebSocket.
//! The floor is a raw relay in the same run: the same pipe, the same bytes appended to a file, one frame per line, no
//! parsing.
//! It prints events per second (median of several runs), the ratio to the floor, CPU time per event and peak resident
//! memory, for 1, 10 and 100 clients, for 10 and 10,000 sessions, and with an empty and a full log; the start time with
//! a full log and 10,000 sessions; and the 99th percentile of `/healthz` during a burst.
//! With `CODEXD_BENCH_CLIENTS` it runs one burst with that many clients.

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
#[path = "support/floor.rs"]
mod floor;
#[path = "support/state.rs"]
mod state;

use std::path::Path;
use std::time::{Duration, Instant};

use client::{Client, Stream};
use daemon::Daemon;
use state::{full_log, sessions, stop};

const DELTAS: usize = 100_000;
const RUNS: usize = 5;

fn main() {
    // `cargo test --benches` only checks that the benchmark builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    // One burst, to run two programs in turns.
    if let Some(clients) = std::env::var("CODEXD_BENCH_CLIENTS").ok().and_then(|text| text.parse().ok()) {
        return report(
            &format!("{clients} clients"),
            Duration::ZERO,
            DELTAS,
            &bursts(1, clients, DELTAS, |_| {}),
        );
    }
    let mut floors: Vec<_> = (0..RUNS).map(|_| floor::relay(DELTAS)).collect();
    let floor = median(&mut floors);
    println!("floor, raw relay                    {:9.0} events/s", per_second(floor));

    for clients in [1, 10, 100] {
        let runs = if clients == 100 { 2 } else { RUNS };
        let deltas = if clients == 100 { DELTAS / 5 } else { DELTAS };
        report(&format!("{clients} clients"), floor, deltas, &bursts(runs, clients, deltas, |_| {}));
    }
    report("10 sessions", floor, DELTAS, &bursts(RUNS, 1, DELTAS, |directory| sessions(directory, 10)));
    report(
        "10,000 sessions",
        floor,
        DELTAS,
        &bursts(RUNS, 1, DELTAS, |directory| sessions(directory, 10_000)),
    );
    report("full log of 512 MiB", floor, DELTAS, &bursts(RUNS, 1, DELTAS, full_log));

    let mut starts: Vec<_> = (0..RUNS)
        .map(|_| {
            let directory = tempfile::tempdir().unwrap();
            sessions(directory.path(), 10_000);
            full_log(directory.path());
            // The first start reads files of an earlier version.
            let daemon = Daemon::start_in(directory);
            daemon.wait_ready();
            daemon.wait_idle();
            let directory = stop(daemon);
            let began = Instant::now();
            let daemon = Daemon::start_in(directory);
            daemon.wait_healthy();
            began.elapsed()
        })
        .collect();
    println!(
        "start, full log, 10,000 sessions    {:9.1} ms to /healthz",
        median(&mut starts).as_secs_f64() * 1e3
    );
    let mut times = healthz_during_a_burst();
    times.sort_unstable();
    let p99 = times[times.len() * 99 / 100];
    println!("/healthz during a burst             {:9.2} ms p99 of {}", p99.as_secs_f64() * 1e3, times.len());
}

/// One turn of many deltas.
struct Burst {
    took: Duration,
    cpu: Duration,
    peak_kib: u64,
}

fn bursts(runs: usize, clients: usize, deltas: usize, prepare: impl Fn(&Path)) -> Vec<Burst> {
    (0..runs)
        .map(|_| {
            let directory = tempfile::tempdir().unwrap();
            prepare(directory.path());
            // The first start reads files of an earlier version.
            let daemon = Daemon::start_in(directory);
            daemon.wait_ready();
            daemon.wait_idle();
            let daemon = Daemon::start_in(stop(daemon));
            daemon.wait_ready();
            // Exclude the initial scan of a full log from the cost of an event.
            daemon.wait_idle();
            burst(&daemon, clients, deltas)
        })
        .collect()
}

fn burst(daemon: &Daemon, clients: usize, deltas: usize) -> Burst {
    let mut client = Client::connect(daemon);
    let session = client.session(None);
    let streams: Vec<_> = (0..clients).map(|_| Stream::connect(daemon)).collect();
    let cpu = daemon.cpu();
    let began = Instant::now();
    let readers: Vec<_> = streams
        .into_iter()
        .map(|mut stream| {
            std::thread::spawn(move || {
                let count = stream.count_deltas();
                (count, Instant::now())
            })
        })
        .collect();
    client.turn(&session, &format!("deltas={deltas}"), None);
    let ends: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    assert!(ends.iter().all(|(count, _)| *count == deltas), "a client missed events");
    let took = ends.iter().map(|(_, end)| *end - began).max().unwrap();
    Burst { took, cpu: daemon.cpu().saturating_sub(cpu), peak_kib: daemon.kib("VmHWM") }
}

fn report(what: &str, floor: Duration, deltas: usize, bursts: &[Burst]) {
    let mut took: Vec<_> = bursts.iter().map(|burst| burst.took * (DELTAS / deltas) as u32).collect();
    let mut cpu: Vec<_> = bursts.iter().map(|burst| burst.cpu / deltas as u32).collect();
    let took = median(&mut took);
    println!(
        "{what:32}    {:9.0} events/s  {:.2} of the floor  {:5.2} µs CPU/event  peak RSS {:5.1} MB",
        per_second(took),
        floor.as_secs_f64() / took.as_secs_f64(),
        median(&mut cpu).as_secs_f64() * 1e6,
        bursts.iter().map(|burst| burst.peak_kib).max().unwrap() as f64 / 1024.0,
    );
}

fn healthz_during_a_burst() -> Vec<Duration> {
    let daemon = Daemon::start_in(tempfile::tempdir().unwrap());
    daemon.wait_ready();
    let mut client = Client::connect(&daemon);
    let session = client.session(None);
    let mut stream = Stream::connect(&daemon);
    let reader = std::thread::spawn(move || stream.count_deltas());
    client.turn(&session, &format!("deltas={}", DELTAS * 4), None);
    let mut times = Vec::new();
    while !reader.is_finished() {
        let began = Instant::now();
        client.get("/healthz");
        times.push(began.elapsed());
        std::thread::sleep(Duration::from_millis(1));
    }
    times
}

fn per_second(took: Duration) -> f64 {
    DELTAS as f64 / took.as_secs_f64()
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
