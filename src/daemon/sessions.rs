//! Creating, resuming, forking, listing and reading sessions.
//!
//! A session is recorded, and on disk, before its caller gets a response.

mod close;
mod models;
pub(super) mod thread_list;
pub(super) mod update;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::OwnedMutexGuard;

use crate::codex::protocol::responses::{ListedTurn, OpenedThread, TurnPage};
use crate::codex::protocol::{methods, values, versions};
use crate::codex::{Client, Wait};
use crate::daemon::app_server::calls::call_and_record;
use crate::daemon::app_server::read_response::newest_turns;
use crate::daemon::app_server::record_on_reply::Outcome;
use crate::daemon::core::Core;
use crate::daemon::error::DaemonError;
use crate::daemon::events;
use crate::daemon::idempotency::{Answers, RequestKey};
use crate::daemon::threads::{Threads, on_thread};
use crate::daemon::trust::decision::TrustDecision;
use crate::daemon::trust::{ThreadLoad, TrustChoice, thread_params};
use crate::daemon::turns::Turns;
use crate::daemon::turns::corrections::{may_have_just_begun, read_turns};
use crate::ids::{SessionId, ThreadId};
use crate::state::{Purpose, RequestPolicy, Session, SessionStatus, State};
use crate::time::rfc3339_now;
use crate::timestamp::Timestamp;

/// What a session is created from; absent values are left to the app-server.
#[derive(Debug, Clone, Default)]
pub struct CreateSession {
    /// What it is for.
    pub purpose: Purpose,
    /// The caller's own labels.
    pub metadata: BTreeMap<String, String>,
    /// The thread to resume; none starts a new one.
    pub thread_id: Option<ThreadId>,
    /// The session whose thread it begins as a copy of.
    pub fork_from: Option<SessionId>,
    /// The thread settings, by the app-server's names; values that only it can validate are passed through.
    pub settings: Map<String, Value>,
    /// What it does with requests of the app-server.
    pub requests: RequestPolicy,
    /// Whether the app-server may use the `.codex` of a directory about which the user has not decided; `None` when the request did not state it.
    pub trust: Option<TrustChoice>,
    /// Set when the caller may repeat the request.
    pub key: Option<RequestKey>,
}

/// The sessions; clones share all state.
#[derive(Clone)]
pub struct Sessions {
    pub(in crate::daemon) core: Arc<Core>,
    pub(in crate::daemon) threads: Threads,
    pub(in crate::daemon) answers: Answers,
    pub(in crate::daemon) turns: Turns,
}

impl Sessions {
    /// Creates a session on a new thread, or on an old one that is resumed; it is on disk when this returns.
    pub async fn create(&self, input: CreateSession) -> Result<Arc<Session>, DaemonError> {
        let sessions = self.clone();
        let method = match (&input.thread_id, &input.fork_from) {
            (None, None) => methods::THREAD_START,
            (Some(_), _) => methods::THREAD_RESUME,
            (None, Some(_)) => methods::THREAD_FORK,
        };
        self.core
            .run_until_call_timeout(method, async move {
                let _key_lock = sessions.answers.lock(input.key.as_ref()).await;
                if let Some(key) = &input.key
                    && let Some(answer) = sessions.answers.remembered_answer(key)?
                    && answer.session.is_some()
                {
                    return sessions.answers.session_of_answer(&answer);
                }
                let client = sessions.core.wait_for_client().await?;
                let key = input.key.clone();
                let session_id = match (input.thread_id.clone(), input.fork_from.clone()) {
                    (None, None) => sessions.start_thread(&client, input).await?,
                    (Some(thread_id), _) => {
                        // So that the end of its last session does not unsubscribe from it meanwhile.
                        let thread_lock = sessions.threads.lock(&thread_id).await;
                        let adopted =
                            sessions.adopt_thread(&client, methods::THREAD_RESUME, input, &thread_id);
                        with_thread_lock(thread_lock, client.call_timeout(), adopted).await?
                    }
                    (None, Some(source)) => {
                        if input.settings.contains_key("lastTurnId")
                            && let Some(version) = client.older_than(versions::FORKS_AT_TURN)
                        {
                            return Err(DaemonError::CannotForkAtTurn { version: version.to_owned() });
                        }
                        let (thread_lock, source) = sessions.threads.lock_of_session(&source).await?;
                        let source = sessions.threads.attach(&client, source).await?;
                        let thread_id = source
                            .thread_id
                            .clone()
                            .ok_or_else(|| DaemonError::NoThread(source.session_id.clone()))?;
                        let adopted = sessions.adopt_thread(&client, methods::THREAD_FORK, input, &thread_id);
                        with_thread_lock(thread_lock, client.call_timeout(), adopted).await?
                    }
                };
                let session = sessions.answers.first_answer(key.as_ref(), &session_id)?;
                Ok(session)
            })
            .await
    }

    /// One session.
    pub fn get(&self, session_id: &SessionId) -> Result<Arc<Session>, DaemonError> {
        self.core.session(session_id)
    }

    /// All sessions, oldest first.
    pub fn list(&self) -> Vec<Arc<Session>> {
        self.core.state().sessions.iter().cloned().collect()
    }

    /// The sessions in which turns are queued; each with the number of its turns and the time at which the first one may
    /// start, `None` if that is now.
    pub fn queued(&self) -> Vec<(SessionId, usize, Option<Timestamp>)> {
        let state = self.core.state();
        let queued = state.private.queued_sessions().map(|session_id| {
            let times: Vec<_> = state.private.queue(session_id).map(|turn| turn.not_before.clone()).collect();
            let all: Option<Vec<Timestamp>> = times.iter().cloned().collect();
            let first = all.and_then(|times| times.into_iter().min_by_key(|time| time.time()));
            (session_id.clone(), times.len(), first)
        });
        queued.collect()
    }

    async fn start_thread(&self, client: &Client, input: CreateSession) -> Result<SessionId, DaemonError> {
        let (params, decision) =
            thread_params(&self.core, client, &input.settings, input.trust, ThreadLoad::New).await?;
        let endpoint = self.core.config.server.endpoint.to_string().into();
        let opened = move |thread, state: &State| open(input, thread, endpoint, None, decision, state);
        let session_id = call_and_record(
            &self.core.recorder,
            client,
            methods::THREAD_START,
            &params,
            Wait::Unlimited,
            opened,
        )
        .await?;
        if let Some(thread_id) = &self.core.session(&session_id)?.thread_id {
            self.threads.note_attached(client, thread_id);
        }
        Ok(session_id)
    }

    /// Resumes or forks without the history, then asks for the last turn only: a whole history can be huge, and asking
    /// for it with the thread is deprecated (measured on 0.169.0).
    async fn adopt_thread(
        &self,
        client: &Client,
        method: &'static str,
        input: CreateSession,
        thread_id: &ThreadId,
    ) -> Result<SessionId, DaemonError> {
        let load = ThreadLoad::Old { thread_id, cwd: None };
        let (mut params, decision) =
            thread_params(&self.core, client, &input.settings, input.trust, load).await?;
        params.insert("threadId".to_owned(), thread_id.as_str().into());
        params.insert("excludeTurns".to_owned(), true.into());
        let thread = self.threads.open(client, method, &params, thread_id, Wait::Unlimited).await?;
        self.threads.note_attached(client, &thread.thread.id);
        let (list, newest) = newest_turns(client, &thread.thread.id, 1);
        let endpoint = self.core.config.server.endpoint.to_string().into();
        let has_other_clients = self.core.config.server.strategy.has_other_clients();
        // Nothing runs in a copy.
        let may_run = has_other_clients && method == methods::THREAD_RESUME;
        let opened = move |turns: TurnPage, state: &State| {
            let mut newest = turns.data.into_iter().next();
            if let Some(begun) = newest.as_mut().filter(|turn| may_run && may_have_just_begun(turn)) {
                begun.status = values::TURN_IN_PROGRESS.to_owned();
            }
            open(input, thread, endpoint, newest, decision, state)
        };
        let wait = Wait::Limited(client.call_timeout());
        let recorder = &self.core.recorder;
        let session_id = call_and_record(recorder, client, list, &newest, wait, opened).await?;
        // What a turn of another client did before is not heard of, and neither is its end if that was meanwhile.
        if has_other_clients
            && let Some(thread_id) = &self.core.session(&session_id)?.thread_id
            && let Err(error) = read_turns(&self.core, client, thread_id, None).await
        {
            tracing::warn!(%error, %thread_id, "failed to read the turns of a thread");
        }
        Ok(session_id)
    }
}

/// Runs `work` with the lock of a thread, and releases the lock after `limit` at the latest: other tasks that need the
/// thread must not wait for a slow app-server.
async fn with_thread_lock<T>(
    thread_lock: OwnedMutexGuard<()>,
    limit: Duration,
    work: impl Future<Output = T>,
) -> T {
    tokio::pin!(work);
    match tokio::time::timeout(limit, &mut work).await {
        Ok(done) => done,
        Err(_) => {
            drop(thread_lock);
            work.await
        }
    }
}

/// The new session's ID, and the events that open it.
fn open(
    input: CreateSession,
    thread: OpenedThread,
    endpoint: Arc<str>,
    last_turn: Option<ListedTurn>,
    decision: TrustDecision,
    state: &State,
) -> Outcome<SessionId> {
    let now = rfc3339_now();
    let session_id = new_session_id();
    let running = last_turn.as_ref().filter(|turn| turn.status == values::TURN_IN_PROGRESS);
    let new = Session {
        session_id: session_id.clone(),
        purpose: input.purpose,
        thread_id: None,
        status: SessionStatus::Active,
        endpoint,
        child_pid: state.daemon.child.pid,
        created_at: now.clone(),
        updated_at: now,
        cwd: None,
        model: None,
        model_provider: None,
        service_tier: None,
        reasoning_effort: None,
        current_turn_id: running.map(|turn| turn.id.clone()),
        last_turn_id: last_turn.as_ref().map(|turn| turn.id.clone()),
        last_turn_status: last_turn.map(|turn| turn.status.into()),
        metadata: input.metadata.into(),
        held: None,
        closed_reason: None,
        trust: decision.trust,
        title: None,
        archived: false,
    };
    let session = on_thread(thread, new, decision.trust);
    let key = input.key.map(|key| key.into_stored());
    let resumed = input.thread_id.is_some();
    let trust = events::session_trust_if_notable(&session_id, session.thread_id.as_ref(), &decision);
    let opened =
        events::session_opened(&session, resumed, input.settings, input.requests, decision.answer, key);
    (session_id, std::iter::once(opened).chain(trust).collect())
}

/// A name that is unique for ever and sorts by time.
fn new_session_id() -> SessionId {
    let millis = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default();
    let random = (uuid::Uuid::new_v4().as_u128() & 0xffff_ffff) as u64;
    SessionId::new(format!("session-{}-{}", base36(millis), base36(random)))
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(char::from_digit((number % 36) as u32, 36).unwrap_or('0'));
        number /= 36;
        if number == 0 {
            return digits.iter().rev().collect();
        }
    }
}
