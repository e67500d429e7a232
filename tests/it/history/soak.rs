//! Repeated SIGKILL of the daemon, during its work and during its start.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::clients::Clients;
use super::connection::{Transport, read_all};
use super::random::{SeededRandom, seed};
use super::record::{Acknowledgement, Filter, History};
use super::validators::{contradictions, unbroken};
use crate::api::{SESSIONS, create_session};
use crate::support::daemon::{Daemon, DaemonBuilder};
use crate::support::http::{Target, get};
use crate::support::skip::repetitions;
use crate::support::wait::wait_until;

/// The number of kills in one round, and of all kills in a run with the long tests; `CODEXD_SOAK_KILLS` overrides it.
const KILLS: u64 = 100;
/// The number of all kills otherwise.
const SHORT_KILLS: u64 = 10;
/// The number of clients that read events.
const READERS: u64 = 20;
/// The number of clients that create turns.
const WORKERS: u64 = 4;

/// The parameters of a test run.
#[derive(Debug, Clone)]
pub(super) struct Soak {
    pub(super) kills: u64,
    pub(super) seed: u64,
    /// A binary that replaces the one built with the tests.
    pub(super) program: Option<PathBuf>,
    pub(super) environment: Vec<(String, String)>,
}

/// `CODEXD_SOAK_KILLS=1000` runs the long version, in rounds with separate directories; see `docs/testing.md`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_sigkill_loses_no_published_event() {
    let expected = repetitions("CODEXD_SOAK_KILLS", "kills", SHORT_KILLS, KILLS);
    let seed = seed();
    for round in 0..expected.div_ceil(KILLS) {
        let kills = KILLS.min(expected - round * KILLS);
        let soak = Soak { kills, seed: seed.wrapping_add(round), program: None, environment: Vec::new() };
        let history = soak.run().await;
        let turns = history
            .acknowledgements
            .iter()
            .filter(|acknowledgement| matches!(acknowledgement, Acknowledgement::Turn { .. }))
            .count();
        assert!(
            turns as u64 >= kills / 2,
            "only {turns} turns in {kills} runs of the daemon: the load is too low"
        );
        assert!(history.log.len() as u64 > 10 * kills, "only {} events", history.log.len());
        assert_eq!(soak_contradictions(&history), [""; 0], "in the round of the seed {}", soak.seed);
    }
}

/// Returns all contradictions of a soak test, in which no client may receive a gap.
pub(super) fn soak_contradictions(history: &History) -> Vec<String> {
    let mut found = contradictions(history);
    found.extend(unbroken(&history.runs).err());
    found
}

impl Soak {
    /// Runs the test and returns the recorded history.
    pub(super) async fn run(&self) -> History {
        let began = Instant::now();
        let mut random = SeededRandom::new(self.seed);
        let mut daemon = self.builder().start().await;
        let session = create_session(&daemon, serde_json::json!({})).await;
        let id = |name: &str| session[name].as_str().unwrap().to_owned();
        let session = (id("sessionId"), id("threadId"));

        let roles = (0..READERS).map(|number| role(number, &session));
        let mut clients = Clients::start(&random, roles, WORKERS);
        let acknowledgements = clients.acknowledgements.clone();

        for _ in 0..self.kills {
            clients.daemon_started(&daemon);
            let expected = acknowledgements.turns() + 1 + random.below(2);
            tokio::time::sleep(random.milliseconds(20, 250)).await;
            // On a busy machine the daemon would otherwise be killed before any work is done.
            wait_until("an acknowledged turn", || (acknowledgements.turns() >= expected).then_some(())).await;
            daemon.kill().await;
            clients.daemon_ended();
            // Sometimes the daemon is killed again during its start.
            while random.chance(15) {
                let mut starting = self.builder().state_from(&daemon).spawn();
                tokio::time::sleep(Duration::from_micros(random.below(12_000))).await;
                starting.kill().await;
            }
            daemon = self.builder().state_from(&daemon).start().await;
        }

        let (epoch, log) = read_all(daemon.base_url()).await;
        let latest = clients.texts.intern(log.last().unwrap()).seq;
        let runs = clients.finish(&daemon, &epoch, latest).await;
        // The workers have ended, but the last events may have been recorded after the first read.
        let (epoch, log) = read_all(daemon.base_url()).await;
        let log = log.iter().map(|text| clients.texts.intern(text)).collect();
        let sessions = get(&daemon, SESSIONS).await.data(200)["sessions"].as_array().unwrap().clone();
        let history = History { runs, acknowledgements: acknowledgements.all(), epoch, log, sessions };
        self.print_summary(&history, began.elapsed());
        history
    }

    fn builder(&self) -> DaemonBuilder {
        // Small segments, so that kills also hit segment rotation.
        let mut builder = Daemon::builder()
            .arg("--event-segment-bytes")
            .arg("100000")
            .arg("--closed-session-limit")
            .arg("100000");
        if let Some(program) = &self.program {
            builder = builder.program(program);
        }
        for (name, value) in &self.environment {
            builder = builder.env(name, value);
        }
        builder
    }

    #[expect(clippy::print_stderr, reason = "the test runner shows this with the failure of the test")]
    fn print_summary(&self, history: &History, took: Duration) {
        let got: usize = history.runs.iter().map(|run| run.events().count()).sum();
        eprintln!(
            "{} kills in {took:.1?}: {} events in the log, {got} received by clients in {} runs, {} acknowledgements",
            self.kills,
            history.log.len(),
            history.runs.len(),
            history.acknowledgements.len()
        );
    }
}

/// The transport and filter of a client.
fn role(number: u64, session: &(String, String)) -> (Transport, Filter) {
    let transport = match number {
        0..12 => Transport::WebSocket,
        12..16 => Transport::Sse,
        _ => Transport::Pages,
    };
    let types = |types: &[&str]| Filter {
        types: types.iter().map(|&start| start.to_owned()).collect(),
        session: None,
    };
    let filter = match number % 4 {
        1 => types(&["app-server.turn.", "daemon."]),
        3 if number % 8 == 3 => Filter { types: Vec::new(), session: Some(session.clone()) },
        3 => types(&["turn.accepted"]),
        _ => Filter::default(),
    };
    (transport, filter)
}
