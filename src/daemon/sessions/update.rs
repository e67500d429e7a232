//! Changing a session: its title, its labels, and whether its thread is archived.
//!
//! Title and archive belong to the thread, so Codex changes them, and its other clients and the other sessions of the thread
//! show the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::codex::protocol::{errors, methods};
use crate::codex::{Client, Wait};
use crate::daemon::app_server::calls::call_and_record;
use crate::daemon::error::DaemonError;
use crate::daemon::events::session_updated;
use crate::daemon::sessions::Sessions;
use crate::ids::{SessionId, ThreadId};
use crate::state::{Session, SessionEvent, SessionStatus, State};

/// The most bytes of the keys and values of a session's labels.
pub const MAX_LABEL_BYTES: usize = 16 * 1024;

/// What to change of a session; what is absent stays.
#[derive(Debug, Default)]
pub struct SessionChanges {
    /// The title, on one line.
    pub title: Option<String>,
    /// Whether its thread is archived.
    pub archived: Option<bool>,
    /// Labels to set, or to remove where there is no value.
    pub metadata: BTreeMap<String, Option<String>>,
}

impl Sessions {
    /// Changes a session; the changes are on disk when this returns.
    ///
    /// Each is made separately: where one fails, those before it stay, in the order unarchive, title, archive, labels.
    pub async fn update(
        &self,
        session_id: &SessionId,
        changes: SessionChanges,
    ) -> Result<Arc<Session>, DaemonError> {
        let session = self.core.session(session_id)?;
        let labels = merged(&session, &changes.metadata)?;
        let (sessions, session_id) = (self.clone(), session_id.clone());
        self.core
            .run(async move {
                let (_thread_lock, session) = sessions.threads.lock_of_session(&session_id).await?;
                let SessionChanges { title, archived, metadata } = changes;
                if archived == Some(false) {
                    sessions.unarchive(&session).await?;
                }
                if let Some(title) = title {
                    sessions.rename(sessions.core.session(&session_id)?, title).await?;
                }
                if archived == Some(true) {
                    sessions.archive(sessions.core.session(&session_id)?).await?;
                }
                if labels.is_some() {
                    let updated = session_id.clone();
                    let update = move |state: &State| {
                        let Some(session) = state.sessions.get(&updated) else { return Vec::new() };
                        let labels = merged(session, &metadata).ok().flatten();
                        let event = labels.map(|labels| SessionEvent::Updated {
                            session_id: updated,
                            thread_id: session.thread_id.clone(),
                            title: None,
                            archived: None,
                            metadata: Some(labels),
                            model: None,
                            reasoning_effort: None,
                            service_tier: None,
                        });
                        event.into_iter().map(Into::into).collect()
                    };
                    sessions.core.record_durably(update).await?;
                }
                sessions.core.session(&session_id)
            })
            .await
    }

    /// Names the thread of a session; the caller holds its lock.
    async fn rename(&self, session: Arc<Session>, title: String) -> Result<(), DaemonError> {
        if session.archived {
            return Err(DaemonError::Archived(session.session_id.clone()));
        }
        let (client, thread_id) = self.open_for_change(session).await?;
        let params = json!({ "threadId": thread_id, "name": title });
        let renamed = move |state: &State| session_updated(state, &thread_id, Some(&title), None);
        self.call_for_change(&client, methods::THREAD_NAME_SET, params, renamed).await
    }

    /// Archives the thread of a session; the caller holds its lock.
    async fn archive(&self, session: Arc<Session>) -> Result<(), DaemonError> {
        if session.archived {
            return Ok(());
        }
        self.require_idle(&session)?;
        let archived =
            |thread_id: ThreadId| move |state: &State| session_updated(state, &thread_id, None, Some(true));
        let (client, thread_id) = match self.open_for_change(Arc::clone(&session)).await {
            // Another client archived it while there was no connection.
            Err(DaemonError::ThreadUnavailable { thread_id, reason, .. }) if errors::is_archived(&reason) => {
                return self.core.record_durably(archived(thread_id)).await;
            }
            opened => opened?,
        };
        let params = json!({ "threadId": thread_id });
        self.call_for_change(&client, methods::THREAD_ARCHIVE, params, archived(thread_id.clone())).await?;
        // Codex has unloaded it.
        self.threads.note_detached(&client, &thread_id);
        Ok(())
    }

    /// Makes the thread of a session one that can be opened again; the caller holds its lock.
    async fn unarchive(&self, session: &Session) -> Result<(), DaemonError> {
        let thread_id =
            session.thread_id.clone().ok_or_else(|| DaemonError::NoThread(session.session_id.clone()))?;
        let client = self.core.wait_for_client().await?;
        let params = json!({ "threadId": thread_id });
        let unarchived = {
            let thread_id = thread_id.clone();
            move |state: &State| session_updated(state, &thread_id, None, Some(false))
        };
        match self.call_for_change(&client, methods::THREAD_UNARCHIVE, params, unarchived.clone()).await {
            // A thread that somebody writes is loaded, so it is not archived (measured on 0.171.0).
            Err(DaemonError::Rejected { message, .. })
                if errors::is_not_archived(&message) || errors::is_thread_locked(&message) =>
            {
                self.core.record_durably(unarchived).await
            }
            called => called,
        }
    }

    /// Fails while something runs in the thread of a session, or waits for it: Codex would interrupt it.
    fn require_idle(&self, session: &Session) -> Result<(), DaemonError> {
        let Some(thread_id) = &session.thread_id else { return Ok(()) };
        let descendant = self.turns.running_descendant(session);
        let state = self.core.state();
        let turn_id = state.turns.running(thread_id).map(|turn| turn.turn_id.clone()).or(descendant);
        let queued = state.queue_of(thread_id).count();
        if turn_id.is_none() && queued == 0 {
            return Ok(());
        }
        Err(DaemonError::CannotArchive { session_id: session.session_id.clone(), turn_id, queued })
    }

    /// The connection and the thread of a session, which an active session has loaded then: one that never had a turn is in
    /// memory only.
    async fn open_for_change(&self, session: Arc<Session>) -> Result<(Client, ThreadId), DaemonError> {
        let client = self.core.wait_for_client().await?;
        let session = match session.status {
            SessionStatus::Active => self.threads.attach(&client, session).await?,
            SessionStatus::Closed => session,
        };
        let thread_id =
            session.thread_id.clone().ok_or_else(|| DaemonError::NoThread(session.session_id.clone()))?;
        Ok((client, thread_id))
    }

    async fn call_for_change(
        &self,
        client: &Client,
        method: &'static str,
        params: Value,
        changed: impl FnOnce(&State) -> Vec<crate::state::NewEvent> + Send + 'static,
    ) -> Result<(), DaemonError> {
        let wait = Wait::Limited(client.call_timeout());
        let meaning = move |_: Value, state: &State| ((), changed(state));
        call_and_record(&self.core.recorder, client, method, &params, wait, meaning).await
    }
}

/// All labels of a session after the changes (RFC 7396); `None` where nothing changes.
fn merged(
    session: &Session,
    changes: &BTreeMap<String, Option<String>>,
) -> Result<Option<BTreeMap<String, String>>, DaemonError> {
    let mut labels = (*session.metadata).clone();
    for (key, value) in changes {
        match value {
            Some(value) => labels.insert(key.clone(), value.clone()),
            None => labels.remove(key),
        };
    }
    let bytes: usize = labels.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > MAX_LABEL_BYTES {
        return Err(DaemonError::Invalid(format!(
            "metadata has {bytes} bytes of keys and values then; at most {MAX_LABEL_BYTES} are kept."
        )));
    }
    Ok((labels != *session.metadata).then_some(labels))
}
