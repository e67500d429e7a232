//! Interrupts a turn that cannot reach its model for too long; Codex itself retries without limit.

use std::time::Duration;

use tokio::time::Instant;

/// Whether the model is reachable, as far as the events of the turn show.
#[derive(Debug, Default)]
pub(super) struct NetworkMonitor {
    /// How long the model may be unreachable; `None` for no limit.
    pub(super) limit: Option<Duration>,
    /// The time since which it is unreachable.
    unreachable_since: Option<Instant>,
    /// The reason, as a sentence, once the turn was interrupted for it.
    pub(super) given_up: Option<String>,
}

impl NetworkMonitor {
    /// Updates the state with an event of the turn: `is_missing` if it reports that the model is unreachable.
    pub(super) fn update(&mut self, is_missing: bool) {
        self.unreachable_since = is_missing.then(|| self.unreachable_since.unwrap_or_else(Instant::now));
    }

    /// Waits until the limit is exceeded. Never returns if the model is reachable or there is no limit.
    pub(super) async fn wait_for_timeout(&self) {
        match (self.unreachable_since, self.limit) {
            (Some(since), Some(limit)) if self.given_up.is_none() => {
                tokio::time::sleep_until(since + limit).await;
            }
            _ => std::future::pending().await,
        }
    }

    /// Records that the turn is interrupted for this reason.
    pub(super) fn give_up(&mut self) {
        let seconds = self.limit.unwrap_or_default().as_secs();
        self.given_up = Some(format!(
            "Codex reached no network for {seconds} s, so the turn was interrupted; check the network of this \
             network, and ask again."
        ));
    }
}
