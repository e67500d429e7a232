//! Kills: the daemon is ended with SIGKILL again and again, in the middle of its work and of its start.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::connection::{Kind, read_all};
use super::random::{Dice, seed};
use super::readers::{Reader, Scene};
use super::record::{Filter, History, Promise, Texts};
use super::validators::{contradictions, unbroken};
use super::workers::{Promises, Worker};
use crate::api::{SESSIONS, create};
use crate::support::daemon::{Daemon, DaemonBuilder};
use crate::support::http::{Target, get};
use crate::support::skip::repetitions;
use crate::support::wait::wait_until;

/// The number of kills in one round, and of all kills in a run with the long tests; `CODEXD_SOAK_KILLS` overrides it.
const KILLS: u64 = 100;
/// The number of all kills otherwise.
const SHORT_KILLS: u64 = 10;
/// How many clients read.
const READERS: u64 = 20;
/// How many callers take turns.
const WORKERS: u64 = 4;

/// What is done.
#[derive(Debug, Clone)]
pub(super) struct Soak {
    pub(super) kills: u64,
    pub(super) seed: u64,
    /// Another program than the one that was built with the tests.
    pub(super) program: Option<PathBuf>,
    pub(super) environment: Vec<(String, String)>,
}

/// `CODEXD_SOAK_KILLS=1000` makes it the long one, in rounds with folders of their own; see `docs/testing.md`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_sigkill_loses_no_published_event() {
    let wanted = repetitions("CODEXD_SOAK_KILLS", "kills", SHORT_KILLS, KILLS);
    let seed = seed();
    for round in 0..wanted.div_ceil(KILLS) {
        let kills = KILLS.min(wanted - round * KILLS);
        let soak = Soak { kills, seed: seed.wrapping_add(round), program: None, environment: Vec::new() };
        let history = soak.run().await;
        let turns = history.promises.iter().filter(|promise| matches!(promise, Promise::Turn { .. })).count();
        assert!(turns as u64 >= kills / 2, "only {turns} turns in {kills} lives: the soak does not soak");
        assert!(history.log.len() as u64 > 10 * kills, "only {} events", history.log.len());
        assert_eq!(soak_contradictions(&history), [""; 0], "in the round of the seed {}", soak.seed);
    }
}

/// All that is wrong with the history of a soak, in which nobody may be told of a gap.
pub(super) fn soak_contradictions(history: &History) -> Vec<String> {
    let mut found = contradictions(history);
    found.extend(unbroken(&history.runs).err());
    found
}

impl Soak {
    /// Runs it to its end; everything that was written down.
    pub(super) async fn run(&self) -> History {
        let began = Instant::now();
        let mut dice = Dice::new(self.seed);
        let (scenes, scene) = watch::channel(Scene::Away);
        let promises = Promises::default();
        let texts = Arc::new(Texts::default());
        let mut daemon = self.builder().start().await;
        let session = create(&daemon, serde_json::json!({})).await;
        let id = |name: &str| session[name].as_str().unwrap().to_owned();
        let session = (id("sessionId"), id("threadId"));

        let readers: Vec<_> = (0..READERS)
            .map(|number| {
                let (kind, filter) = role(number, &session);
                let name = format!("{kind:?} {number}");
                let dice = dice.of(number);
                Reader { name, kind, filter, dice, texts: Arc::clone(&texts), scene: scene.clone() }.start()
            })
            .collect();
        let workers: Vec<_> = (0..WORKERS)
            .map(|number| {
                let dice = dice.of(1000 + number);
                Worker { dice, promises: promises.clone(), scene: scene.clone() }.start()
            })
            .collect();

        for _ in 0..self.kills {
            scenes.send_replace(Scene::Up(daemon.base_url().to_owned()));
            let wanted = promises.turns() + dice.below(3);
            tokio::time::sleep(dice.milliseconds(20, 250)).await;
            // On a machine that is busy otherwise, lives would be too short for any work.
            wait_until("a turn to be promised", || (promises.turns() >= wanted).then_some(())).await;
            daemon.kill().await;
            scenes.send_replace(Scene::Away);
            // Sometimes the next life is over before it began.
            while dice.happens(15) {
                let mut hasty = self.builder().state_from(&daemon).spawn();
                tokio::time::sleep(Duration::from_micros(dice.below(12_000))).await;
                hasty.kill().await;
            }
            daemon = self.builder().state_from(&daemon).start().await;
        }

        let (epoch, log) = read_all(daemon.base_url()).await;
        let log: Vec<_> = log.iter().map(|text| texts.seen(text)).collect();
        let latest = log.last().unwrap().seq;
        let base = daemon.base_url().to_owned();
        scenes.send_replace(Scene::Last { base, epoch: epoch.clone(), latest });
        let mut runs = Vec::new();
        for reader in readers {
            runs.extend(reader.await.unwrap());
        }
        for worker in workers {
            worker.await.unwrap();
        }
        // Nothing is worked on any more, but the last events may have come after the first look.
        let (epoch, log) = read_all(daemon.base_url()).await;
        let log = log.iter().map(|text| texts.seen(text)).collect();
        let sessions = get(&daemon, SESSIONS).await.data(200)["sessions"].as_array().unwrap().clone();
        let history = History { runs, promises: promises.all(), epoch, log, sessions };
        self.say(&history, began.elapsed());
        history
    }

    fn builder(&self) -> DaemonBuilder {
        // Small segments, so that kills hit their changes too.
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
    fn say(&self, history: &History, took: Duration) {
        let got: usize = history.runs.iter().map(|run| run.events().count()).sum();
        eprintln!(
            "{} kills in {took:.1?}: {} events in the log, {got} got by clients in {} runs, {} promises",
            self.kills,
            history.log.len(),
            history.runs.len(),
            history.promises.len()
        );
    }
}

/// How a client reads, and what.
fn role(number: u64, session: &(String, String)) -> (Kind, Filter) {
    let kind = match number {
        0..12 => Kind::WebSocket,
        12..16 => Kind::ServerSent,
        _ => Kind::Pages,
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
    (kind, filter)
}
