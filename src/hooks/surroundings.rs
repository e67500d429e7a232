//! What the hooks get from the daemon.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use super::delivery::Deliveries;
use crate::ids::{SessionId, ThreadId};
use crate::journal::Log;
use crate::state::HookEvent;
use crate::storage::Disk;

/// Records an event; the future returns whether it is on disk.
pub(super) type RecordHookEvent =
    Arc<dyn Fn(HookEvent) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;
/// Finds the thread of a session.
pub(super) type ThreadOf = Arc<dyn Fn(&SessionId) -> Option<ThreadId> + Send + Sync>;

/// What the hooks get from the daemon.
pub struct Surroundings {
    /// The log that they follow.
    pub log: Arc<Log>,
    /// Records what happens to them.
    pub record: RecordHookEvent,
    /// Finds the thread of a session.
    pub thread_of: ThreadOf,
    /// What deliveries need.
    pub deliveries: Deliveries,
    /// The disk of their files.
    pub disk: Disk,
    /// `hooks.json`.
    pub hooks_path: PathBuf,
    /// `hook-cursors.json`.
    pub cursors_path: PathBuf,
    /// After how many bytes of events that do not concern a hook its cursor is written, so that it stays well within the log.
    pub save_after_bytes: u64,
}

impl Surroundings {
    /// Records an event; returns whether it is on disk.
    pub(super) async fn record(&self, event: HookEvent) -> bool {
        (self.record)(event).await
    }
}
