//! The threads of Codex: their locks, and whether the app-server of this generation knows them.
//!
//! A new app-server process knows no threads; a turn on one fails with "thread not found" until it was resumed (measured on
//! 0.169.0).
//! The app-server uses the same error code for nearly everything, so the error text decides.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::OwnedMutexGuard;

use crate::codex::protocol::responses::{OpenThread, OpenedThread, TurnPage};
use crate::codex::protocol::{errors, methods};
use crate::codex::{Client, Wait};
use crate::daemon::app_server::calls::{call, call_and_record, call_within};
use crate::daemon::app_server::read_response::newest_turns;
use crate::daemon::core::Core;
use crate::daemon::error::DaemonError;
use crate::daemon::events;
use crate::daemon::locks::Locks;
use crate::daemon::queue::held::holds_after_failure;
use crate::daemon::trust::{ThreadLoad, TrustChoice, thread_params};
use crate::daemon::turns::corrections::{TurnsBefore, read_turns};
use crate::ids::{SessionId, ThreadId};
use crate::state::title::{title_of_message, title_of_name};
use crate::state::{Phase, PrivateSession, Session, SessionEvent, State, Trust, Turn};
use crate::time::rfc3339_now;

/// The delays before each retry of opening a thread that another process is writing.
const LOCKED_RETRY_DELAYS: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_millis(600), Duration::from_millis(1200)];

/// How many of a thread's newest turns are searched for those that were cut off.
const NEWEST_TURNS_LIMIT: u32 = 20;

/// The threads; clones share them.
#[derive(Clone)]
pub(in crate::daemon) struct Threads {
    core: Arc<Core>,
    locks: Locks,
    /// Locks of sessions whose threads are recreated.
    creations: Locks,
    /// The generation of the app-server, and the threads that it knows.
    attached: Arc<Mutex<(u64, HashSet<ThreadId>)>>,
}

impl Threads {
    pub(in crate::daemon) fn new(core: &Arc<Core>) -> Self {
        let (locks, creations, attached) = Default::default();
        Self { core: Arc::clone(core), locks, creations, attached }
    }

    /// Waits for the lock of a session's thread: of two turns that arrive at once, whatever sessions of the thread they
    /// are for, the second one sees the first.
    ///
    /// Returns the session as it is then; its thread may change while this waits. While the lock is held, only its holder
    /// changes it.
    pub(in crate::daemon) async fn lock_of_session(
        &self,
        session_id: &SessionId,
    ) -> Result<(OwnedMutexGuard<()>, Arc<Session>), DaemonError> {
        loop {
            let thread_id = self.core.session(session_id)?.thread_id.clone();
            let name = thread_id.as_ref().map_or(session_id.as_str(), ThreadId::as_str);
            let guard = self.locks.lock(name).await;
            let session = self.core.session(session_id)?;
            if session.thread_id == thread_id {
                return Ok((guard, session));
            }
        }
    }

    /// Waits for the lock of a thread.
    pub(in crate::daemon) async fn lock(&self, thread_id: &ThreadId) -> OwnedMutexGuard<()> {
        self.locks.lock(thread_id.as_str()).await
    }

    fn attached(&self) -> MutexGuard<'_, (u64, HashSet<ThreadId>)> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the app-server of this generation has loaded a thread.
    pub(in crate::daemon) fn note_attached(&self, client: &Client, thread_id: &ThreadId) {
        let mut attached = self.attached();
        if attached.0 != client.generation() {
            *attached = (client.generation(), HashSet::new());
        }
        attached.1.insert(thread_id.clone());
    }

    /// Notes that the app-server of this generation has unloaded a thread.
    pub(in crate::daemon) fn note_detached(&self, client: &Client, thread_id: &ThreadId) {
        let mut attached = self.attached();
        if attached.0 == client.generation() {
            attached.1.remove(thread_id);
        }
    }

    /// Whether the app-server of this generation has loaded a thread for codexd.
    pub(in crate::daemon) fn is_attached(&self, client: &Client, thread_id: &ThreadId) -> bool {
        let attached = self.attached();
        attached.0 == client.generation() && attached.1.contains(thread_id)
    }

    /// Lets the app-server unload a thread that no active session has; the caller holds the thread's lock.
    ///
    /// The subscription is one for all sessions of a thread, so the last one ends it.
    pub(in crate::daemon) async fn detach(&self, client: &Client, thread_id: &ThreadId) {
        if self.core.state().sessions.active_in_thread(thread_id).next().is_some() {
            return;
        }
        self.attached().1.remove(thread_id);
        let params = json!({ "threadId": thread_id });
        // An app-server that refuses keeps the thread, which does no harm.
        let _ = client.call(methods::THREAD_UNSUBSCRIBE, &params, client.call_timeout()).await;
    }

    /// Resumes a session's thread unless this generation knows it already; the caller holds the thread's lock, so it is
    /// done once.
    ///
    /// A thread that never had a turn is not on disk, so the session gets a new thread.
    /// A thread that had turns and cannot be opened is an error, and the session stays as it is: the thread may come back,
    /// as it does when the disk of `CODEX_HOME` is mounted again.
    pub(in crate::daemon) async fn attach(
        &self,
        client: &Client,
        session: Arc<Session>,
    ) -> Result<Arc<Session>, DaemonError> {
        let session_id = &session.session_id;
        let thread_id = session.thread_id.clone().ok_or_else(|| DaemonError::NoThread(session_id.clone()))?;
        if self.is_attached(client, &thread_id) {
            return Ok(session);
        }
        let memory = self.core.state().private.sessions.get(session_id).cloned().unwrap_or_default();
        let load = ThreadLoad::Old { thread_id: &thread_id, cwd: session.cwd.as_deref() };
        let (mut params, decision) =
            thread_params(&self.core, client, &memory.settings, memory.trust.map(TrustChoice::Answer), load)
                .await?;
        params.remove("ephemeral");
        // A copy ends there once, not at each resume.
        params.remove("lastTurnId");
        params.insert("threadId".to_owned(), thread_id.as_str().into());
        let has_other_clients = self.core.config.server.strategy.has_other_clients();
        // With the history, the app-server repeats how many tokens the last turn used (measured on 0.171.0).
        let with_history = has_other_clients && self.core.state().turns.running(&thread_id).is_some();
        let before = TurnsBefore::of(&self.core.state(), &thread_id);
        let open = async |exclude_turns: bool| {
            let mut params = params.clone();
            params.insert("excludeTurns".to_owned(), exclude_turns.into());
            let wait = Wait::Limited(client.call_timeout());
            self.open(client, methods::THREAD_RESUME, &params, &thread_id, wait).await
        };
        let mut opened = open(!with_history).await;
        // A history can be longer than a response may be.
        if with_history && matches!(opened, Err(DaemonError::AppServer { code: None, .. })) {
            opened = open(true).await;
        }
        match opened {
            Ok(opened) => {
                // It may have been renamed or unarchived while there was no connection.
                let title = opened.thread.name.as_deref().and_then(title_of_name);
                if session.archived || title.is_some() && session.title != title {
                    let thread_id = thread_id.clone();
                    let update = move |state: &State| {
                        events::session_updated(state, &thread_id, title.as_deref(), Some(false))
                    };
                    self.core.record_durably(update).await?;
                }
                if decision.trust != session.trust {
                    let trust = events::session_trust(session_id, Some(&thread_id), &decision);
                    self.core.record_durably(move |_| vec![trust]).await?;
                }
                self.note_attached(client, &thread_id);
                if has_other_clients {
                    if let Err(error) = read_turns(&self.core, client, &thread_id, Some(before)).await {
                        tracing::warn!(%error, %thread_id, "failed to read the turns of a thread");
                    }
                } else {
                    self.correct_turns(client, &thread_id).await;
                }
                self.core.session(session_id)
            }
            Err(DaemonError::Rejected { message, .. })
                if errors::is_no_history(&message) && session.last_turn_id.is_none() =>
            {
                self.recreate(client, session, memory).await
            }
            Err(DaemonError::Rejected { message, .. })
                if errors::is_no_history(&message) || errors::is_archived(&message) =>
            {
                let session_id = session_id.clone();
                Err(DaemonError::ThreadUnavailable { session_id, thread_id, reason: message })
            }
            Err(error) => Err(error),
        }
    }

    /// Resumes or forks a thread; one that another process writes is tried again for a while.
    pub(in crate::daemon) async fn open(
        &self,
        client: &Client,
        method: &'static str,
        params: &Map<String, Value>,
        thread_id: &ThreadId,
        wait: Wait,
    ) -> Result<OpenedThread, DaemonError> {
        let mut delays = LOCKED_RETRY_DELAYS.iter();
        loop {
            match call_within(client, method, params, wait).await {
                Err(DaemonError::Rejected { message, .. }) if errors::is_thread_locked(&message) => {
                    match delays.next() {
                        Some(delay) => tokio::time::sleep(*delay).await,
                        None => {
                            let thread_id = thread_id.clone();
                            return Err(DaemonError::ThreadLocked { thread_id, reason: message });
                        }
                    }
                }
                opened => return opened,
            }
        }
    }

    /// What an end of the connection made "failed" may have ended otherwise, or not at all.
    async fn correct_turns(&self, client: &Client, thread_id: &ThreadId) {
        let cut_off = |state: &State| -> Vec<Arc<Turn>> {
            let cut_off = state.turns.of(thread_id).filter(|turn| turn.phase == Phase::CutOff);
            cut_off.cloned().collect()
        };
        if cut_off(&self.core.state()).is_empty() {
            return;
        }
        // Nothing depends on it, so a failure leaves the records as they are.
        let (method, params) = newest_turns(client, thread_id, NEWEST_TURNS_LIMIT);
        let Ok(listed) = call::<TurnPage>(client, method, &params).await else { return };
        let thread_id = thread_id.clone();
        let correct = move |state: &State| {
            let settled = listed.data.iter().filter_map(|found| {
                let turn = state.turns.get(&thread_id, &found.id)?;
                let is_news = turn.phase == Phase::CutOff && turn.status != found.status;
                let session = state.session_for(turn).filter(|_| is_news)?;
                let settled = events::turn_settled(session, turn, &found.status, found.error.as_ref());
                let error = found.error.as_ref().unwrap_or(&Value::Null);
                let holds = holds_after_failure(state, &thread_id, Some(&found.id), error);
                Some(holds.into_iter().chain([settled]))
            });
            settled.flatten().collect()
        };
        let _ = self.core.record_durably(correct).await;
    }

    /// Recreates a session's thread; a late response is recorded when it arrives, and tasks that need the thread wait for
    /// it.
    async fn recreate(
        &self,
        client: &Client,
        session: Arc<Session>,
        memory: PrivateSession,
    ) -> Result<Arc<Session>, DaemonError> {
        let (threads, client) = (self.clone(), client.clone());
        self.core
            .run_until_call_timeout(methods::THREAD_START, async move {
                let session_id = session.session_id.clone();
                let _creation = threads.creations.lock(session_id.as_str()).await;
                let now = threads.core.session(&session_id)?;
                if now.thread_id != session.thread_id {
                    return Ok(now);
                }
                let choice = memory.trust.map(TrustChoice::Answer);
                let (params, decision) =
                    thread_params(&threads.core, &client, &memory.settings, choice, ThreadLoad::New).await?;
                let recreated = move |thread: OpenedThread, state: &State| {
                    let thread_id = thread.thread.id.clone();
                    let previous_thread_id = session.thread_id.clone();
                    // The record may have changed since, such as by turns that came to wait.
                    let session = state.sessions.get(&session.session_id).unwrap_or(&session);
                    let session = on_thread(thread, Session::clone(session), decision.trust);
                    let session = Session { child_pid: state.daemon.child.pid, ..session };
                    let trust =
                        events::session_trust_if_notable(&session.session_id, Some(&thread_id), &decision);
                    let recreated = SessionEvent::Recreated {
                        purpose: session.purpose,
                        session_id: session.session_id.clone(),
                        thread_id: session.thread_id.clone(),
                        previous_thread_id,
                        session: Box::new((&session).into()),
                    };
                    (thread_id, std::iter::once(recreated.into()).chain(trust).collect())
                };
                let (recorder, method) = (&threads.core.recorder, methods::THREAD_START);
                let thread_id =
                    call_and_record(recorder, &client, method, &params, Wait::Unlimited, recreated).await?;
                threads.note_attached(&client, &thread_id);
                let session = threads.core.session(&session_id)?;
                if let Some(title) = &session.title {
                    // A client named it before its first turn; without the name the thread works too.
                    let params = json!({ "threadId": thread_id, "name": &**title });
                    let _ = client.call(methods::THREAD_NAME_SET, &params, client.call_timeout()).await;
                }
                Ok(session)
            })
            .await
    }
}

/// The title of a thread: its name, else the first words of its first message.
fn title_of_thread(thread: &OpenThread) -> Option<Arc<str>> {
    thread.name.as_deref().and_then(title_of_name).or_else(|| title_of_message(&thread.preview))
}

/// The session on a thread that was opened, in a directory about which this was decided.
pub(in crate::daemon) fn on_thread(thread: OpenedThread, session: Session, trust: Trust) -> Session {
    let title = title_of_thread(&thread.thread).or_else(|| session.title.clone());
    Session {
        trust,
        title,
        thread_id: Some(thread.thread.id),
        updated_at: rfc3339_now(),
        cwd: thread.cwd.map(Into::into),
        model: thread.model.map(Into::into),
        model_provider: thread.model_provider.map(Into::into),
        service_tier: thread.service_tier.map(Into::into),
        reasoning_effort: thread.reasoning_effort.map(Into::into),
        ..session
    }
}
