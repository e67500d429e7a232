//! Requests that may be repeated: the same word and the same request give the first answer again.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;

use super::recorder::in_time;
use super::{Daemon, DaemonError};
use crate::state::{IdempotencyKey, Session, StoredResponse};

/// How long an answer is remembered.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

/// The caller's word for a request, and what the request was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey {
    /// The caller's word.
    pub key: String,
    /// A digest of the request.
    pub digest: String,
    /// The digest that an earlier version would have remembered for it.
    pub earlier_digest: String,
}

impl RequestKey {
    /// The key as it is remembered.
    pub(super) fn into_stored(self) -> IdempotencyKey {
        IdempotencyKey { key: self.key, digest: self.digest, expires_at: in_time(REMEMBERED) }
    }
}

impl IdempotencyKey {
    /// When the request came, RFC 3339.
    pub(super) fn since(&self) -> String {
        let expires_at: Option<jiff::Timestamp> = self.expires_at.parse().ok();
        let since = expires_at.and_then(|at| at.checked_sub(REMEMBERED).ok());
        since.map(|since| format!("{since:.3}")).unwrap_or_default()
    }
}

impl Daemon {
    /// What came of an earlier request with this word; another request with it is an error.
    pub(super) fn remembered_answer(&self, key: &RequestKey) -> Result<Option<StoredResponse>, DaemonError> {
        let answer = self.state().private.answers.get(&key.key).cloned();
        match answer.filter(|answer| answer.key.expires_at > super::recorder::now()) {
            Some(answer) if ![&key.digest, &key.earlier_digest].contains(&&answer.key.digest) => {
                Err(DaemonError::KeyReused(key.key.clone()))
            }
            answer => Ok(answer),
        }
    }

    /// The session as the first answer to a request has it, which is the one that a repetition gets too.
    pub(super) fn first_answer(
        &self,
        key: Option<&RequestKey>,
        session_id: &str,
    ) -> Result<Arc<Session>, DaemonError> {
        match key.map(|key| self.remembered_answer(key)).transpose()?.flatten() {
            Some(StoredResponse { session: Some(session), .. }) => Ok(session),
            _ => self.session(session_id),
        }
    }

    /// Waits for whoever has this key: of two equal requests at once the second one waits for the answer of the first.
    pub(super) async fn lock_key(&self, key: Option<&RequestKey>) -> Option<OwnedMutexGuard<()>> {
        let lock = self.named_lock(&format!("key {}", key?.key));
        Some(lock.lock_owned().await)
    }

    /// Waits for the creation of a session's thread that is under way.
    pub(super) async fn lock_thread_creation(&self, session_id: &str) -> OwnedMutexGuard<()> {
        self.named_lock(&format!("creation {session_id}")).lock_owned().await
    }

    /// Waits for the lock of a session's thread: of two turns that arrive at once, whatever sessions of the thread they
    /// are for, the second one sees the first.
    ///
    /// Returns the session as it is then; its thread may change while this waits, and does not while the lock is held
    /// by anybody but the one who holds it.
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
        // Locks that nobody holds are as good as new ones, so they need not be kept.
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(locks.entry(name.to_owned()).or_default())
    }
}
