//! Whether an app-server that says nothing is still there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::call_error::CallError;
use super::client::Client;
use crate::codex::protocol::methods;

/// How many questions in a row may stay without an answer: at the last of them it counts as gone.
const MISSES: u32 = 2;

/// When something was heard last.
#[derive(Debug)]
pub(crate) struct Pulse {
    began: Instant,
    /// Milliseconds since it began.
    last: AtomicU64,
    /// Whether the reader waits for us: then silence says nothing about the other side.
    resting: AtomicBool,
}

impl Pulse {
    pub(crate) fn new() -> Arc<Self> {
        let (last, resting) = (AtomicU64::new(0), AtomicBool::new(false));
        Arc::new(Self { began: Instant::now(), last, resting })
    }

    /// Something was heard.
    pub(crate) fn beat(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// The reader stops to listen, or listens again.
    pub(crate) fn rest(&self, resting: bool) {
        self.resting.store(resting, Ordering::Relaxed);
        self.beat();
    }

    /// The end of the time for which the last sign of life counts.
    fn silence_from(&self, interval: Duration) -> Instant {
        if self.resting.load(Ordering::Relaxed) {
            self.beat();
        }
        self.began + Duration::from_millis(self.last.load(Ordering::Relaxed)) + interval
    }
}

/// Asks whenever nothing was heard for `interval`; returns when nothing answers, and why it counts as gone.
pub(crate) async fn gone(client: &Client, pulse: &Pulse, interval: Duration) -> String {
    let patience = interval / 3;
    let mut misses = 0;
    loop {
        if misses == 0 {
            wait_for_silence(pulse, interval).await;
        }
        // Cheap, and an error is an answer too.
        let asked = client.call_ahead(methods::THREAD_LOADED_LIST, &json!({ "limit": 1 }), patience).await;
        // Anything that is heard is a sign of life, such as the late answer to the question before.
        let heard = pulse.silence_from(interval) > Instant::now();
        match asked {
            Err(CallError::Timeout { .. }) if !heard => misses += 1,
            // The end of the connection is somebody else's to tell.
            Err(CallError::Closed { .. }) => std::future::pending().await,
            _ => misses = 0,
        }
        if misses == MISSES {
            let silence = interval + patience * MISSES;
            return format!("nothing was heard for {} s, an answer neither", silence.as_secs_f32());
        }
        if misses > 0 {
            tracing::warn!(
                generation = client.generation(),
                "the app-server does not answer, asking once more"
            );
        }
    }
}

async fn wait_for_silence(pulse: &Pulse, interval: Duration) {
    loop {
        let silence = pulse.silence_from(interval);
        if silence <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(silence).await;
    }
}
