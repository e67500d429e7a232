//! Probes an app-server that is silent, and detects that it no longer responds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::call_error::CallError;
use super::client::Client;
use crate::codex::protocol::methods;

/// How many probes in a row may stay unanswered: after the last one the app-server counts as gone.
const MAX_MISSED_PROBES: u32 = 2;

/// When the last message arrived. The reader writes it; the liveness check reads it.
#[derive(Debug)]
pub(crate) struct LastReceived {
    began: Instant,
    /// In milliseconds since `began`.
    last: AtomicU64,
    /// Whether the reader waits for the daemon: then silence is no evidence about the app-server.
    reader_paused: AtomicBool,
}

impl LastReceived {
    pub(crate) fn new() -> Arc<Self> {
        let (last, reader_paused) = (AtomicU64::new(0), AtomicBool::new(false));
        Arc::new(Self { began: Instant::now(), last, reader_paused })
    }

    /// Records that a message arrived.
    pub(crate) fn touch(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// Records that the reader stops or resumes reading.
    pub(crate) fn set_reader_paused(&self, reader_paused: bool) {
        self.reader_paused.store(reader_paused, Ordering::Relaxed);
        self.touch();
    }

    /// When that was, on a clock of its own.
    pub(crate) fn millis(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// When the connection counts as silent, unless a message arrives before.
    fn deadline(&self, interval: Duration) -> Instant {
        if self.reader_paused.load(Ordering::Relaxed) {
            self.touch();
        }
        self.began + Duration::from_millis(self.millis()) + interval
    }
}

/// Probes after each `interval` of silence; returns once the probes stay unanswered, with the reason.
pub(crate) async fn wait_until_unresponsive(
    client: &Client,
    last_received: &LastReceived,
    interval: Duration,
) -> String {
    let timeout = interval / 3;
    let mut misses = 0;
    loop {
        if misses == 0 {
            wait_for_silence(last_received, interval).await;
        }
        // Cheap, and an error is a response too.
        let probe = client.call_unqueued(methods::THREAD_LOADED_LIST, &json!({ "limit": 1 }), timeout).await;
        // Any message counts, such as the late response to the probe before.
        let is_alive = last_received.deadline(interval) > Instant::now();
        match probe {
            Err(CallError::Timeout { .. }) if !is_alive => misses += 1,
            // The end of the connection is reported elsewhere.
            Err(CallError::Closed { .. }) => std::future::pending().await,
            _ => misses = 0,
        }
        if misses == MAX_MISSED_PROBES {
            let silence = interval + timeout * MAX_MISSED_PROBES;
            return format!("nothing was received for {} s, no response either", silence.as_secs_f32());
        }
        if misses > 0 {
            tracing::warn!(
                generation = client.generation(),
                "the app-server does not answer, asking once more"
            );
        }
    }
}

async fn wait_for_silence(last_received: &LastReceived, interval: Duration) {
    loop {
        let deadline = last_received.deadline(interval);
        if deadline <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(deadline).await;
    }
}
