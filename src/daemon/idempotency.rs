//! Idempotency keys: a repeated request with the same key gets the first response again, for 24 hours.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;

use crate::daemon::core::Core;
use crate::daemon::error::DaemonError;
use crate::daemon::locks::Locks;
use crate::ids::SessionId;
use crate::state::{IdempotencyKey, Session, StoredResponse};
use crate::time::{rfc3339_after, rfc3339_now};
use crate::timestamp::Timestamp;

/// How long an answer is remembered.
const RESPONSE_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// The `Idempotency-Key` of a request, and a digest of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey {
    /// The key, as the client sent it.
    pub key: String,
    /// A digest of the request.
    pub digest: String,
    /// The digest that an earlier version would have remembered for it.
    pub earlier_digest: String,
}

impl RequestKey {
    /// The key as it is remembered.
    pub(super) fn into_stored(self) -> IdempotencyKey {
        IdempotencyKey { key: self.key, digest: self.digest, expires_at: rfc3339_after(RESPONSE_TTL) }
    }
}

impl StoredResponse {
    /// When the request came.
    pub(super) fn since(&self) -> Timestamp {
        let since = self.expires_at.time().and_then(|at| at.checked_sub(RESPONSE_TTL).ok());
        since.map(Timestamp::from).unwrap_or_default()
    }
}

/// The answers that a repeated request gets again.
#[derive(Clone)]
pub(super) struct Answers {
    core: Arc<Core>,
    locks: Locks,
}

impl Answers {
    pub(super) fn new(core: &Arc<Core>) -> Self {
        Self { core: Arc::clone(core), locks: Locks::default() }
    }

    /// Locks a key: of two equal requests at once the second waits for the response to the first.
    pub(super) async fn lock(&self, key: Option<&RequestKey>) -> Option<OwnedMutexGuard<()>> {
        Some(self.locks.lock(&key?.key).await)
    }

    /// The response to an earlier request with this key; a different request with it is an error.
    pub(super) fn remembered_answer(&self, key: &RequestKey) -> Result<Option<StoredResponse>, DaemonError> {
        let answer = self.core.state().private.answers.get(&key.key);
        match answer.filter(|answer| answer.expires_at > rfc3339_now()) {
            Some(answer) if !answer.is_of(&key.digest) && !answer.is_of(&key.earlier_digest) => {
                Err(DaemonError::KeyReused(key.key.clone()))
            }
            answer => Ok(answer),
        }
    }

    /// The session as the first answer to a request has it, which is the one that a repetition gets too.
    pub(super) fn first_answer(
        &self,
        key: Option<&RequestKey>,
        session_id: &SessionId,
    ) -> Result<Arc<Session>, DaemonError> {
        match key.map(|key| self.remembered_answer(key)).transpose()?.flatten() {
            Some(answer) if answer.session.is_some() => self.session_of_answer(&answer),
            _ => self.core.session(session_id),
        }
    }

    /// The session as an answer had it.
    pub(super) fn session_of_answer(&self, answer: &StoredResponse) -> Result<Arc<Session>, DaemonError> {
        let session = self.core.state().session_of_answer(answer).map(Arc::new);
        session.ok_or_else(|| DaemonError::UnknownSession(answer.session_id.clone()))
    }
}
