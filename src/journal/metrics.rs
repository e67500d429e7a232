//! Counters of the log, for the metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::metrics::histogram::Histogram;

/// The histogram buckets of sync times in seconds, from a fast disk to a failing one.
const SYNC_BUCKETS_SECONDS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Counts since the log was opened; each batch and each sync adds to them once.
#[derive(Debug)]
pub struct LogMetrics {
    events: AtomicU64,
    bytes: AtomicU64,
    syncs: Histogram,
}

impl LogMetrics {
    pub(super) fn new() -> Self {
        Self {
            events: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            syncs: Histogram::new(SYNC_BUCKETS_SECONDS),
        }
    }

    /// How many events were written to the files.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// How many bytes were written, newlines included.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The times of successful syncs, in seconds.
    pub fn syncs(&self) -> &Histogram {
        &self.syncs
    }

    pub(super) fn wrote(&self, events: usize, bytes: usize) {
        self.events.fetch_add(events as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn synced(&self, took: Duration) {
        self.syncs.observe(took.as_secs_f64());
    }
}
