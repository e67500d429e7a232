//! What codexd costs beside the app-server alone.
//!
//! `cargo bench --bench peers` has the real Codex with the offline model of the tests do the same turns in three ways:
//! clients of `codex app-server --listen ws://…` with nothing between, clients of a codexd with `spawn`, and clients of a
//! codexd with `shared`.
//! It prints two tables: the times until a turn is accepted, until its first delta and until its end; and CPU time, memory
//! and what limits each row.
//! All three run at once, and their turns take turns in all orders, so that the speed of the machine and its other work
//! cancel out: each ratio is the median of the ratios within one round.
//!
//! `CODEXD_BENCH_PEERS=short` has few rounds of small loads, and `CODEXD_BENCH_PEERS=10x50` one load with 10 clients and 50
//! sessions. `CODEXD_BENCH_ROUNDS` is another number of rounds; by default, larger loads have fewer than the first.
//! `CODEXD_BENCH_PROGRAM` is another codexd.
//! Codex is installed with npm on first use. Needs Linux.

#![expect(clippy::disallowed_methods, reason = "a benchmark is a separate process")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark that cannot continue has no result"
)]

#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/it/real/app_server.rs"]
mod app_server;
mod connection;
mod disk;
mod driver;
mod load;
mod peer;
mod process;
mod report;
mod statistics;
#[allow(dead_code, unused_imports, reason = "the tests use more of it")]
#[path = "../../tests/it/support/mod.rs"]
mod support;

use std::process::ExitCode;

use load::{Load, Outcome};
use tokio::signal::unix::{SignalKind, signal};

/// The rounds of the first load, unless `CODEXD_BENCH_ROUNDS` says otherwise.
const ROUNDS: usize = 40;
const SHORT_ROUNDS: usize = 3;

fn main() -> ExitCode {
    // `cargo test --benches` only checks that the benchmark builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
            .map(|kind| signal(kind).unwrap());
        let [interrupt, terminate, hangup] = &mut signals;
        // The measurement is dropped at a signal, and with it everything that it has started.
        tokio::select! {
            biased;
            _ = interrupt.recv() => ExitCode::from(130),
            _ = terminate.recv() => ExitCode::from(143),
            _ = hangup.recv() => ExitCode::from(129),
            outcomes = measure() => {
                println!("{}", report::tables(&outcomes));
                ExitCode::SUCCESS
            }
        }
    })
}

async fn measure() -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for load in loads() {
        outcomes.push(load.run().await);
    }
    outcomes
}

/// The loads that the environment selects.
fn loads() -> Vec<Load> {
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let selection = variable("CODEXD_BENCH_PEERS");
    let is_short = selection.as_deref() == Some("short");
    let rounds = variable("CODEXD_BENCH_ROUNDS").map(|text| text.parse().expect("CODEXD_BENCH_ROUNDS"));
    let rounds = rounds.unwrap_or(if is_short { SHORT_ROUNDS } else { ROUNDS });
    match selection.as_deref() {
        None => vec![
            Load::new(1, 1, rounds),
            Load::new(10, 1, rounds * 2 / 3),
            Load::new(100, 1, rounds * 2 / 3),
            Load::new(1, 50, rounds / 5),
            Load::new(1, 200, rounds / 10),
        ],
        Some("short") => vec![Load::new(1, 1, rounds), Load::new(10, 1, rounds), Load::new(1, 5, rounds)],
        Some(one) => {
            let numbers = one.split_once('x').and_then(|(clients, sessions)| {
                Some(Load::new(clients.parse().ok()?, sessions.parse().ok()?, rounds))
            });
            vec![numbers.expect("CODEXD_BENCH_PEERS is short or CLIENTSxSESSIONS")]
        }
    }
}
