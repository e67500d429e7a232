//! One run: starts the daemons and their clients, takes samples, ends the clients after the given time, and has `compare`
//! decide.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::followers::{End, Followed, Transport, follow, never_read};
use crate::hooks::Hook;
use crate::instance::{Instance, PLANS, Plan, Programs, codex_home};
use crate::load::{Client, check_health};
use crate::random::SeededRandom;
use crate::record::Record;
use crate::sample::{Sampler, counts, cpu_seconds_of_run};
use crate::series::{Mark, Sample};
use crate::support::codex::CodexHome;
use crate::support::daemon::Daemon;
use crate::support::model::MockModel;
use crate::verdict::{self, Verdict};

/// How many clients submit turns to each daemon.
const CLIENTS: u64 = 3;
/// The pause of each client between two operations.
const PAUSE: Duration = Duration::from_secs(12);
/// The pause between two kills or restarts of one daemon or its app-server.
const DISTURBANCE: Duration = Duration::from_secs(75);
/// How many samples a long run has; a short one has one every [`MIN_INTERVAL`].
const SAMPLES: u32 = 1000;
const MIN_INTERVAL: Duration = Duration::from_secs(10);
/// How long turns, hooks and connections may take to end after the load.
pub(crate) const REST_TIMEOUT: Duration = Duration::from_secs(120);

/// What a run does.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) duration: Duration,
    pub(crate) seed: u64,
    /// Where the results are.
    pub(crate) directory: PathBuf,
    /// Where the programs, the daemons and the hooks have their files.
    pub(crate) files: PathBuf,
    pub(crate) codexd: PathBuf,
    pub(crate) fake_codex: PathBuf,
}

/// The series of a run, which are kept when it is interrupted.
#[derive(Default)]
pub(crate) struct Series {
    pub(crate) samples: Mutex<Vec<Sample>>,
    pub(crate) marks: Mutex<Vec<Mark>>,
}

/// One daemon of the run with everything that is compared at the end.
pub(crate) struct Stage {
    pub(crate) instance: Arc<Instance>,
    pub(crate) base: Sample,
    pub(crate) hooks: Vec<Hook>,
    pub(crate) end: End,
    pub(crate) followers: Vec<JoinHandle<Followed>>,
    pub(crate) daemon: Arc<tokio::sync::Mutex<Daemon>>,
}

/// A line of the file of samples.
#[derive(Serialize)]
#[serde(untagged)]
enum Line<'a> {
    Sample(&'a Sample),
    Mark(&'a Mark),
}

/// Runs the load for `settings.duration`; returns the verdicts. Panics if a daemon does not start, or a client finds what no
/// client expects.
pub(crate) async fn run(settings: &Settings, series: &Series) -> Vec<Verdict> {
    let began = Instant::now();
    let programs = settings.copy_programs();
    let model = MockModel::start();
    let random = SeededRandom::new(settings.seed);
    let starts = PLANS.into_iter().zip(1..).map(|(plan, number)| {
        let home = codex_home(plan, &model);
        Stage::start(plan, settings, &programs, home, random.derive(number), began)
    });
    let stages = join_all(starts).await;

    let (stop, stopped) = watch::channel(false);
    let mut work = JoinSet::new();
    for (stage, number) in stages.iter().zip(1..) {
        let random = random.derive(100 * number);
        for (client, stream) in (0..CLIENTS).zip(10..) {
            let client = Client::new(Arc::clone(&stage.instance), random.derive(stream), client);
            work.spawn(client.work(PAUSE, stopped.clone()));
        }
        work.spawn(check_health(Arc::clone(&stage.instance), stopped.clone()));
        work.spawn(never_read(Arc::clone(&stage.instance), random.derive(1), stopped.clone()));
        let daemon = Arc::clone(&stage.daemon);
        let instance = Arc::clone(&stage.instance);
        work.spawn(instance.disturb(daemon, random.derive(2), DISTURBANCE, stopped.clone()));
    }
    let instances: Vec<_> = stages.iter().map(|stage| Arc::clone(&stage.instance)).collect();
    tokio::select! {
        () = settings.sample_until_end(&instances, series) => {}
        ended = work.join_next() => panic!("a client or a restart failed before the end: {ended:?}"),
    }
    stop.send_replace(true);
    while let Some(ended) = work.join_next().await {
        ended.expect("no client fails");
    }

    let compared = join_all(stages.into_iter().map(|stage| stage.compare(series))).await;
    let mut verdicts = compared.concat();
    verdicts.push(verdict::reported(
        "all",
        "CPU time",
        format!(
            "{:.1} % of one core, with the clients and Codex",
            cpu_seconds_of_run() / began.elapsed().as_secs_f64() * 100.0
        ),
    ));
    verdicts
}

impl Settings {
    fn copy_programs(&self) -> Programs {
        let copy = |from: &PathBuf, name: &str| {
            let to = self.files.join(name);
            std::fs::copy(from, &to).unwrap_or_else(|error| {
                panic!(
                    "failed to copy {}: {error}; build it, or name another program with CODEXD_BENCH_PROGRAM",
                    from.display()
                )
            });
            to
        };
        Programs {
            codexd: copy(&self.codexd, "codexd"),
            fake_codex: copy(&self.fake_codex, "fake_codex"),
            store: self.files.join("fake-codex-threads"),
        }
    }

    /// Takes samples until the duration is over; each line of the file is written at once.
    async fn sample_until_end(&self, instances: &[Arc<Instance>], series: &Series) {
        let mut file = File::create(self.directory.join("samples.jsonl")).expect("the directory is writable");
        let mut write = |line: Line<'_>| {
            let text = serde_json::to_string(&line).expect("a sample is JSON");
            writeln!(file, "{text}").expect("the samples can be written");
        };
        let mut sampler = Sampler::default();
        let interval = (self.duration / SAMPLES).max(MIN_INTERVAL);
        let mut ticks = tokio::time::interval(interval);
        let began = Instant::now();
        while began.elapsed() < self.duration {
            ticks.tick().await;
            for instance in instances {
                let marks = std::mem::take(&mut instance.record.entries().marks);
                marks.iter().for_each(|mark| write(Line::Mark(mark)));
                series.marks.lock().unwrap_or_else(PoisonError::into_inner).extend(marks);
                if let Some(sample) = sampler.sample(instance) {
                    write(Line::Sample(&sample));
                    series.samples.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
                }
            }
        }
    }
}

impl Stage {
    /// Starts a daemon, its hooks, and clients that have done a turn each; measures it when it is idle again.
    async fn start(
        plan: Plan,
        settings: &Settings,
        programs: &Programs,
        home: Option<Arc<CodexHome>>,
        random: SeededRandom,
        began: Instant,
    ) -> Self {
        let record = Arc::new(Record::new(plan.name, began));
        // It is removed with the directory of all files, or kept with it.
        let root = tempfile::Builder::new()
            .prefix(&format!("{}-", plan.name))
            .disable_cleanup(true)
            .tempdir_in(&settings.files);
        let root = root.expect("the directory is writable");
        let programs = Programs { store: programs.store.join(plan.name), ..programs.clone() };
        let (instance, daemon) = Instance::start(plan, record, root, programs, home).await;
        let instance = Arc::new(instance);
        let hooks = vec![Hook::program(&instance, &settings.files).await, Hook::url(&instance).await];
        // One turn, so that everything that a first turn needs is there.
        Client::new(Arc::clone(&instance), random.derive(0), CLIENTS).prepare().await;
        let base = when_idle(&instance, None).await;
        let end = Arc::new(AtomicU64::new(u64::MAX));
        let transports = [Transport::Pages, Transport::WebSocket, Transport::Sse];
        let followers = transports.into_iter().zip(50..).map(|(transport, stream)| {
            tokio::spawn(follow(Arc::clone(&instance), transport, random.derive(stream), Arc::clone(&end)))
        });
        let followers = followers.collect();
        Self { instance, base, hooks, end, followers, daemon: Arc::new(tokio::sync::Mutex::new(daemon)) }
    }
}

/// Measures a daemon without load. Waits until it has as few descriptors and threads as `base`, or without one until the
/// threads and connections that are kept for a while have ended.
pub(crate) async fn when_idle(instance: &Instance, base: Option<&Sample>) -> Sample {
    let began = Instant::now();
    let least = Duration::from_secs(12);
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let pid = instance.running.borrow().as_ref().map_or(0, |running| running.pid);
        let now = counts(pid).unwrap_or_default();
        let is_back = base.is_none_or(|base| {
            now.descriptors <= base.descriptors
                && now.threads <= base.threads
                && now.children <= base.children
        });
        if began.elapsed() > least && is_back || began.elapsed() > REST_TIMEOUT {
            return now;
        }
    }
}
