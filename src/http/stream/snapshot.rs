//! The snapshot of the daemon as text, for WebSockets.
//!
//! With thousands of sessions it has megabytes, and after a restart all clients connect at once, so those that get it at the
//! same time share it. [`SnapshotCache`] is part of the shared state; it keeps no snapshot that no client is getting.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use axum::body::Bytes;

use super::outgoing::text;
use crate::daemon::{Daemon, SnapshotVersion};

/// A snapshot as text.
#[derive(Debug)]
pub(super) struct SnapshotText {
    version: SnapshotVersion,
    /// The snapshot.
    pub(super) all: Bytes,
    /// The newest events of the snapshot.
    pub(super) recent_events: Bytes,
}

impl SnapshotText {
    /// The number of the newest event that it includes.
    pub(super) fn through(&self) -> u64 {
        self.version.through()
    }
}

/// The newest snapshot that a client is getting.
#[derive(Debug, Default)]
pub(crate) struct SnapshotCache(Mutex<Weak<SnapshotText>>);

impl SnapshotCache {
    /// The present snapshot.
    pub(super) fn text(&self, daemon: &Daemon) -> serde_json::Result<Arc<SnapshotText>> {
        let version = daemon.snapshot_version();
        let shared = self.0.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        if let Some(shared) = shared.filter(|shared| shared.version == version) {
            return Ok(shared);
        }
        let snapshot = daemon.snapshot();
        let new = Arc::new(SnapshotText {
            all: text(&snapshot)?,
            recent_events: text(&snapshot.recent_events.events)?,
            version: snapshot.version,
        });
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&new);
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::*;
    use crate::http::tests::TestApp;

    #[tokio::test]
    async fn clients_share_the_snapshot_until_it_changes() {
        let app = TestApp::new().await;
        let cache = SnapshotCache::default();
        let text = || cache.text(&app.daemon).unwrap();
        let first = text();
        assert!(Arc::ptr_eq(&first, &text()));
        let snapshot: Value = serde_json::from_slice(&first.all).unwrap();
        assert_eq!(snapshot, serde_json::to_value(app.daemon.snapshot()).unwrap());
        let recent: Value = serde_json::from_slice(&first.recent_events).unwrap();
        assert_eq!(recent, snapshot["recentEvents"]["events"]);
        assert_eq!(recent[recent.as_array().unwrap().len() - 1]["seq"], first.through());

        let mut news = app.daemon.follow(first.through());
        app.daemon.stop().await;
        tokio::time::timeout(Duration::from_secs(60), news.next()).await.unwrap().unwrap();
        let second = text();
        assert!(!Arc::ptr_eq(&first, &second) && second.through() > first.through());

        let kept = Arc::downgrade(&second);
        drop(second);
        assert!(kept.upgrade().is_none(), "no client gets it any more");
    }
}
