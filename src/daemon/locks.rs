//! Locks by name: of a thread, of an idempotency key, of the creation of a session's thread.
//!
//! A lock exists while a caller holds it or waits for it.

use std::sync::{Arc, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::daemon::core::Daemon;
use crate::daemon::error::DaemonError;
use crate::daemon::idempotency::RequestKey;
use crate::state::Session;

impl Daemon {
    /// Locks an idempotency key: of two equal requests at once the second waits for the response to the first.
    pub(super) async fn lock_key(&self, key: Option<&RequestKey>) -> Option<OwnedMutexGuard<()>> {
        let lock = self.named_lock(&format!("key {}", key?.key));
        Some(lock.lock_owned().await)
    }

    /// Waits until a creation of the session's thread is complete, and locks it.
    pub(super) async fn lock_thread_creation(&self, session_id: &str) -> OwnedMutexGuard<()> {
        self.named_lock(&format!("creation {session_id}")).lock_owned().await
    }

    /// Waits for the lock of a session's thread: of two turns that arrive at once, whatever sessions of the thread they
    /// are for, the second one sees the first.
    ///
    /// Returns the session as it is then; its thread may change while this waits. While the lock is held, only its holder
    /// changes it.
    pub(super) async fn lock_session_thread(
        &self,
        session_id: &str,
    ) -> Result<(OwnedMutexGuard<()>, Arc<Session>), DaemonError> {
        loop {
            let thread_id = self.session(session_id)?.thread_id.clone();
            let guard = self.lock_thread(thread_id.as_deref().unwrap_or(session_id)).await;
            let session = self.session(session_id)?;
            if session.thread_id == thread_id {
                return Ok((guard, session));
            }
        }
    }

    /// Waits for the lock of a thread.
    pub(super) async fn lock_thread(&self, thread_id: &str) -> OwnedMutexGuard<()> {
        self.named_lock(&format!("thread {thread_id}")).lock_owned().await
    }

    fn named_lock(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.shared.locks.lock().unwrap_or_else(PoisonError::into_inner);
        // A lock without a holder is equivalent to a new one, so it is dropped.
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(locks.entry(name.to_owned()).or_default())
    }
}
