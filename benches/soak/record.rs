//! What the clients of one daemon were promised, measured and found wrong.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::series::{Event, Mark, Percentiles};

/// The newest faults that are kept; the number of all is counted.
const MAX_FAULTS: usize = 100;

/// The record of one daemon. All clients write to it, and the verdicts read it.
pub(crate) struct Record {
    pub(crate) daemon: &'static str,
    began: Instant,
    entries: Mutex<Entries>,
}

/// The content of a [`Record`].
#[derive(Debug, Default)]
pub(crate) struct Entries {
    /// The IDs of turns and of queued turns that the daemon accepted with 202.
    pub(crate) accepted_turns: Vec<String>,
    pub(crate) accepted_queued_turns: Vec<String>,
    /// Responses and events that must not happen, as sentences.
    pub(crate) faults: Vec<String>,
    /// How often each operation was done.
    pub(crate) operations: BTreeMap<&'static str, u64>,
    pub(crate) marks: Vec<Mark>,
    latencies: BTreeMap<Latency, Vec<f64>>,
}

/// What a latency was measured of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Latency {
    Accept,
    FirstDelta,
    Healthz,
}

impl Record {
    pub(crate) fn new(daemon: &'static str, began: Instant) -> Self {
        Self { daemon, began, entries: Mutex::default() }
    }

    pub(crate) fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time since the start of the run.
    pub(crate) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Counts an operation.
    pub(crate) fn count(&self, operation: &'static str) {
        *self.entries().operations.entry(operation).or_default() += 1;
    }

    /// Records what must not happen, and prints it at once, so that a run of hours shows it early.
    #[expect(clippy::print_stderr, reason = "a benchmark prints its results")]
    pub(crate) fn fault(&self, text: String) {
        eprintln!("{:8.1} s  {}: {text}", self.seconds(), self.daemon);
        let mut entries = self.entries();
        *entries.operations.entry("faults").or_default() += 1;
        if entries.faults.len() < MAX_FAULTS {
            entries.faults.push(text);
        }
    }

    /// Records what was done to the daemon.
    pub(crate) fn mark(&self, event: Event) {
        let mark = Mark { seconds: self.seconds(), daemon: self.daemon, event };
        let what = match event {
            Event::AppServerKilled => "app-server killed",
            Event::DaemonKilled => "daemon killed",
            Event::DaemonRestarted => "daemon restarted",
        };
        self.count(what);
        self.entries().marks.push(mark);
    }

    /// Records a time.
    pub(crate) fn measured(&self, what: Latency, time: Duration) {
        self.entries().latencies.entry(what).or_default().push(time.as_secs_f64() * 1000.0);
    }

    /// The distribution of the times since the last call.
    pub(crate) fn take(&self, what: Latency) -> Option<Percentiles> {
        let mut times = self.entries().latencies.remove(&what)?;
        Percentiles::of(&mut times)
    }
}
