//! Requests that may be repeated: the same word and the same request give the first answer again.

use std::sync::Arc;
use std::time::Duration;

use crate::daemon::core::Daemon;
use crate::daemon::error::DaemonError;
use crate::state::{IdempotencyKey, Session, StoredResponse};
use crate::time::{rfc3339_after, rfc3339_now};

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
        IdempotencyKey { key: self.key, digest: self.digest, expires_at: rfc3339_after(REMEMBERED) }
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
        match answer.filter(|answer| answer.key.expires_at > rfc3339_now()) {
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
}
