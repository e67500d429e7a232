//! Making sure that the app-server of this generation knows a session's thread.
//!
//! A new app-server process knows no threads; a turn on one says "thread not found" until it was resumed (measured on
//! 0.169.0).
//! The app-server answers nearly everything with the same code, so its words tell what is wrong.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::sessions::{ThreadSession, Turns};
use super::trust::Loading;
use super::{CALL, Daemon, DaemonError, drafts, read};
use crate::app_server::{CallError, Client};
use crate::state::{Phase, Session, SessionMemory, State, Turn};

/// How long is waited before a thread is asked for again that somebody else is writing, in turn.
const LOCKED: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_millis(600), Duration::from_millis(1200)];

/// How many of a thread's newest turns are looked at for those that were cut off.
const LOOK_BACK: u32 = 20;

/// What became of the attempt to resume a thread.
enum Resumed {
    /// The app-server knows it now.
    Yes,
    /// Somebody else is writing it, or it is just being closed.
    Locked(String),
    /// Its history is not there, or it is archived.
    Lost(String),
}

impl Daemon {
    /// Says that the app-server of this generation knows a thread.
    pub(super) fn note_attached(&self, client: &Client, thread_id: &str) {
        let mut attached = self.shared.attached.lock().unwrap_or_else(PoisonError::into_inner);
        if attached.0 != client.generation() {
            *attached = (client.generation(), HashSet::new());
        }
        attached.1.insert(thread_id.to_owned());
    }

    /// Says that the app-server of this generation does not know a thread any more.
    pub(super) fn note_detached(&self, client: &Client, thread_id: &str) {
        let mut attached = self.shared.attached.lock().unwrap_or_else(PoisonError::into_inner);
        if attached.0 == client.generation() {
            attached.1.remove(thread_id);
        }
    }

    fn is_attached(&self, client: &Client, thread_id: &str) -> bool {
        let attached = self.shared.attached.lock().unwrap_or_else(PoisonError::into_inner);
        attached.0 == client.generation() && attached.1.contains(thread_id)
    }

    /// Lets the app-server unload a thread that no active session has; the caller holds the thread's lock.
    ///
    /// The subscription is one for all sessions of a thread, so the last one ends it.
    pub(super) async fn detach(&self, client: &Client, thread_id: &str) {
        if self.state().sessions.active_in_thread(thread_id).next().is_some() {
            return;
        }
        {
            let mut attached = self.shared.attached.lock().unwrap_or_else(PoisonError::into_inner);
            attached.1.remove(thread_id);
        }
        let params = json!({ "threadId": thread_id });
        // An app-server that refuses keeps the thread, which does no harm.
        let _ = client.call("thread/unsubscribe", &params, CALL).await;
    }

    /// Resumes a session's thread unless this generation knows it already; the caller holds the thread's lock, so it is
    /// done once.
    ///
    /// A thread that never had a turn left nothing behind, so it is created anew under the same session.
    /// A thread that had turns and cannot be opened is an error, and the session stays as it is: the thread may come back,
    /// as it does when the disk of `CODEX_HOME` is mounted again.
    pub(super) async fn attach(
        &self,
        client: &Client,
        session: Arc<Session>,
    ) -> Result<Arc<Session>, DaemonError> {
        let session_id = &session.session_id;
        let thread_id = session.thread_id.clone().ok_or_else(|| DaemonError::NoThread(session_id.clone()))?;
        if self.is_attached(client, &thread_id) {
            return Ok(session);
        }
        let memory = self.state().memory.sessions.get(session_id).cloned().unwrap_or_default();
        let mut waits = LOCKED.iter();
        loop {
            match self.resume(client, &session, &memory, &thread_id).await? {
                Resumed::Yes => {
                    self.note_attached(client, &thread_id);
                    self.correct_turns(client, &thread_id).await;
                    return self.session(session_id);
                }
                Resumed::Lost(_) if session.last_turn_id.is_none() => {
                    return self.recreate(client, &session, memory).await;
                }
                Resumed::Lost(reason) => {
                    let session_id = session_id.clone();
                    return Err(DaemonError::ThreadUnavailable { session_id, thread_id, reason });
                }
                Resumed::Locked(reason) => match waits.next() {
                    Some(wait) => tokio::time::sleep(*wait).await,
                    None => return Err(DaemonError::ThreadLocked { thread_id, reason }),
                },
            }
        }
    }

    async fn resume(
        &self,
        client: &Client,
        session: &Session,
        memory: &SessionMemory,
        thread_id: &str,
    ) -> Result<Resumed, DaemonError> {
        let loading = Loading::Old { thread_id, cwd: session.cwd.as_deref() };
        let (mut params, decision) =
            self.thread_params(client, &memory.settings, memory.trust, loading).await?;
        params.remove("ephemeral");
        // A copy ends there once, not at each resume.
        params.remove("lastTurnId");
        params.insert("threadId".to_owned(), thread_id.into());
        params.insert("excludeTurns".to_owned(), true.into());
        match client.call("thread/resume", &params, CALL).await {
            Ok(_) => {
                if decision.trust != session.trust {
                    let trust = drafts::session_trust(&session.session_id, Some(thread_id), &decision);
                    self.promise(move |_| vec![trust]).await?;
                }
                Ok(Resumed::Yes)
            }
            Err(CallError::Refused { error, .. })
                if error.message.contains("no rollout found") || error.message.contains("is archived") =>
            {
                Ok(Resumed::Lost(error.message))
            }
            Err(CallError::Refused { error, .. })
                if error.message.contains("active writer") || error.message.contains("is closing") =>
            {
                Ok(Resumed::Locked(error.message))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What an end of the connection made "failed" may have ended otherwise, or not at all.
    async fn correct_turns(&self, client: &Client, thread_id: &str) {
        let cut_off = |state: &State| -> Vec<Arc<Turn>> {
            let cut_off = state.turns.of(thread_id).filter(|turn| turn.phase == Phase::CutOff);
            cut_off.cloned().collect()
        };
        if cut_off(&self.state()).is_empty() {
            return;
        }
        // Nothing depends on it, so a failure leaves the records as they are.
        let Ok(listed) =
            Daemon::ask::<Turns>(client, "thread/turns/list", &newest_turns(thread_id, LOOK_BACK)).await
        else {
            return;
        };
        let thread_id = thread_id.to_owned();
        let correct = move |state: &State| {
            let settled = listed.data.iter().filter_map(|found| {
                let turn = state.turns.get(&thread_id, &found.id)?;
                let is_news = turn.phase == Phase::CutOff && turn.status != found.status;
                let session = state.session_for(turn).filter(|_| is_news)?;
                Some(drafts::turn_settled(session, turn, &found.status, None))
            });
            settled.collect()
        };
        let _ = self.promise(correct).await;
    }

    async fn recreate(
        &self,
        client: &Client,
        session: &Session,
        memory: SessionMemory,
    ) -> Result<Arc<Session>, DaemonError> {
        let session = session.clone();
        let session_id = session.session_id.clone();
        let (params, decision) =
            self.thread_params(client, &memory.settings, memory.trust, Loading::New).await?;
        let thread_id = self
            .call_and_record(client, "thread/start", &params, move |answer| {
                let thread: ThreadSession = read(answer.get())?;
                let thread_id = thread.thread.id.clone();
                let build = move |state: &State| {
                    let previous = session.thread_id.clone();
                    let session = Session {
                        child_pid: state.daemon.child.pid,
                        ..thread.renew(session, decision.trust)
                    };
                    let recreated = drafts::session_recreated(&session, previous.as_deref());
                    let thread_id = session.thread_id.as_deref();
                    let trust = drafts::session_trust_if_notable(&session.session_id, thread_id, &decision);
                    std::iter::once(recreated).chain(trust).collect()
                };
                Ok((thread_id, Box::new(build) as super::recorder::Build))
            })
            .await?;
        self.note_attached(client, &thread_id);
        self.session(&session_id)
    }
}

/// The parameters that ask for the newest turns of a thread.
pub(super) fn newest_turns(thread_id: &str, limit: u32) -> Value {
    json!({ "threadId": thread_id, "limit": limit })
}
