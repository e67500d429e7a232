//! What a hook does now: written by its task, read by everybody.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::delivery::Deliveries;
use super::hook::Hook;
use super::store::Progress;
use crate::time::rfc3339_now;
use crate::timestamp::Timestamp;

/// What a hook does now.
#[derive(Debug, Default)]
pub(super) struct Status {
    state: Mutex<HookState>,
    /// Locked while something is delivered.
    slot: tokio::sync::Mutex<()>,
    /// Makes the next attempt at once.
    pub(super) retry_now: Notify,
}

/// What is known of a hook.
#[derive(Debug, Clone, Default)]
pub(super) struct HookState {
    pub(super) progress: Progress,
    /// Whether something is being delivered.
    pub(super) is_delivering: bool,
    /// When the last delivery succeeded in this run.
    pub(super) delivered_at: Option<Timestamp>,
    pub(super) counts: Counts,
}

/// What happened in this run of the daemon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Deliveries that succeeded.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Deliveries that were given up.
    pub skipped: u64,
}

impl Status {
    pub(super) fn new(progress: Progress) -> Self {
        Self { state: Mutex::new(HookState { progress, ..HookState::default() }), ..Self::default() }
    }

    pub(super) fn state(&self) -> HookState {
        self.lock().clone()
    }

    pub(super) fn set_progress(&self, progress: Progress) {
        self.lock().progress = progress;
    }

    pub(super) fn count_delivery(&self) {
        let mut state = self.lock();
        state.counts.delivered += 1;
        state.delivered_at = Some(rfc3339_now());
    }

    pub(super) fn count_failure(&self) {
        self.lock().counts.failed += 1;
    }

    pub(super) fn count_skip(&self) {
        self.lock().counts.skipped += 1;
    }

    /// Delivers when nothing else is being delivered to this hook.
    pub(super) async fn deliver(
        &self,
        hook: &Hook,
        deliveries: &Deliveries,
        id: &str,
        payload: Bytes,
        cancelled: &CancellationToken,
    ) -> Result<(), String> {
        let _slot = self.slot.lock().await;
        self.lock().is_delivering = true;
        let delivered = deliveries.deliver(hook, id, payload, cancelled).await;
        self.lock().is_delivering = false;
        delivered
    }

    fn lock(&self) -> MutexGuard<'_, HookState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
