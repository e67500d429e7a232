//! Whether a turn gets through to its model: Codex waits for a network for ever, and whoever asks may not.

use std::time::Duration;

use tokio::time::Instant;

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct NetworkMonitor {
    /// How long it may be missing; `None` for ever.
    pub(super) limit: Option<Duration>,
    /// Since when it is missing.
    unreachable_since: Option<Instant>,
    /// That the turn was given up for it, as a sentence.
    pub(super) given_up: Option<String>,
}

impl NetworkMonitor {
    /// Something was heard of the turn: that the model cannot be reached, or anything else.
    pub(super) fn update(&mut self, is_missing: bool) {
        self.unreachable_since = is_missing.then(|| self.unreachable_since.unwrap_or_else(Instant::now));
    }

    /// Waits until the turn is to be given up; for ever where it is not.
    pub(super) async fn wait_for_timeout(&self) {
        match (self.unreachable_since, self.limit) {
            (Some(since), Some(limit)) if self.given_up.is_none() => {
                tokio::time::sleep_until(since + limit).await;
            }
            _ => std::future::pending().await,
        }
    }

    /// The turn is given up.
    pub(super) fn give_up(&mut self) {
        let seconds = self.limit.unwrap_or_default().as_secs();
        self.given_up = Some(format!(
            "Codex reached no network for {seconds} s, so the turn was interrupted; see whether this machine has a \
             network, and ask again."
        ));
    }
}
