//! The queue of turns of a thread: adding a turn, starting the next one, withdrawing one.
//!
//! Callers hold the lock of the thread. A turn leaves the queue when it starts or a client withdraws it.

pub(in crate::daemon) mod held;
pub(in crate::daemon) mod schedule;
#[cfg(test)]
mod simulation;
pub(in crate::daemon) mod usage_limit;

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::blocking::Pool;
use crate::codex::protocol::methods;
use crate::codex::protocol::responses::ThreadStatusRead;
use crate::codex::protocol::versions::{REPEATS_MESSAGE_ID, is_older};
use crate::daemon::app_server::calls::call;
use crate::daemon::attachments::Attachments;
use crate::daemon::codex_health::watch::CodexMonitor;
use crate::daemon::core::{Core, require_active};
use crate::daemon::error::DaemonError;
use crate::daemon::events;
use crate::daemon::queue::held::{StartFailure, hold_once};
use crate::daemon::queue::usage_limit::{next_to_start, requested_trial};
use crate::daemon::threads::Threads;
use crate::daemon::turns::start::{TurnStart, TurnStarter};
use crate::ids::{SessionId, ThreadId, TurnId};
use crate::state::{Held, HoldCause, IdempotencyKey, QueuedTurn, Session, State, TurnEvent};
use crate::storage::Disk;
use crate::time::rfc3339_now;

/// Reads of attachments.
static ATTACHMENTS: Pool = Pool::new("attachments", 1, 3);
/// How long the attachments of a turn may take.
const ATTACHMENT_LIMIT: Duration = Duration::from_secs(10);

/// How many turns may wait in a session.
const MAX_QUEUED_TURNS: usize = 100;

/// The queues of all threads; clones share all state.
#[derive(Clone)]
pub struct Queue {
    pub(in crate::daemon) core: Arc<Core>,
    pub(in crate::daemon) threads: Threads,
    pub(in crate::daemon) starter: TurnStarter,
    pub(in crate::daemon) codex: CodexMonitor,
}

impl Queue {
    /// Adds a turn at the end of the queue; returns its queue ID.
    pub(super) async fn add(
        &self,
        session: &Session,
        turn: QueuedTurn,
        key: Option<IdempotencyKey>,
    ) -> Result<String, DaemonError> {
        self.core.require_storage()?;
        let facts = self.core.codex.facts();
        if let Some(version) = facts.version().filter(|version| is_older(version, REPEATS_MESSAGE_ID)) {
            return Err(DaemonError::CodexTooOld { version: version.to_owned() });
        }
        let (waiting, position) = {
            let state = self.core.state();
            let thread_id = session.thread_id.clone().unwrap_or_default();
            (state.private.queue(&session.session_id).count(), state.queue_of(&thread_id).count() + 1)
        };
        if waiting >= MAX_QUEUED_TURNS {
            return Err(DaemonError::QueueFull {
                session_id: session.session_id.clone(),
                limit: MAX_QUEUED_TURNS,
            });
        }
        let is_due = turn.is_due(&rfc3339_now());
        let queue_id = turn.queue_id.clone();
        let queued = TurnEvent::Queued {
            session_id: session.session_id.clone(),
            thread_id: session.thread_id.clone(),
            queue_id: queue_id.clone(),
            position,
            turn: Box::new(turn),
            idempotency: key,
        };
        let session_id = session.session_id.clone();
        self.core
            .record_durably(move |state| {
                // What holds the thread's queue holds this turn too.
                let session = state.sessions.get(&session_id).filter(|_| is_due);
                let held = session.and_then(|session| events::hold_of_new_queue(state, session));
                std::iter::once(queued.into()).chain(held).collect()
            })
            .await?;
        Ok(queue_id)
    }

    /// Submits the next due turn of an idle thread; a failure holds the queue.
    pub(super) async fn start_next(&self, thread_id: &ThreadId) -> Result<(), DaemonError> {
        self.codex.renew_login().await;
        let _gate = self.core.codex.gate.read().await;
        let _thread_lock = self.threads.lock(thread_id).await;
        let next = {
            let state = self.core.state();
            if state.turns.running(thread_id).is_some() {
                return Ok(());
            }
            // By the clock of this moment, which may have been set back.
            let next = next_to_start(&state, thread_id, &rfc3339_now());
            next.map(|(session_id, turn)| (session_id.clone(), turn.clone()))
        };
        let Some((session_id, next)) = next else { return Ok(()) };
        match self.start_queued(thread_id, &session_id, &next).await {
            Ok(()) => Ok(()),
            Err(StartFailure::Transient(error)) => Err(error),
            Err(StartFailure::Hold(cause, error)) => {
                self.hold(thread_id, &next.queue_id, cause, &error).await
            }
        }
    }

    /// Starts a queued turn; it stays queued if another turn runs by now.
    async fn start_queued(
        &self,
        thread_id: &ThreadId,
        session_id: &SessionId,
        next: &QueuedTurn,
    ) -> Result<(), StartFailure> {
        let client = self.core.wait_for_client().await.map_err(StartFailure::Transient)?;
        let session = self.core.session(session_id).map_err(StartFailure::Transient)?;
        let session =
            self.threads.attach(&client, session).await.map_err(StartFailure::while_opening_thread)?;
        // A recreated thread has another lock, and a resumed one may run a turn.
        let is_idle = self.core.state().turns.running(thread_id).is_none();
        if session.thread_id.as_ref() != Some(thread_id) || !is_idle {
            return Ok(());
        }
        if self.core.config.server.strategy.has_other_clients() {
            // The turn of another client may have started a moment ago, and a start would only add to it.
            let params = json!({ "threadId": thread_id });
            let status: ThreadStatusRead = call(&client, methods::THREAD_READ, &params)
                .await
                .map_err(StartFailure::while_opening_thread)?;
            if status.is_active() {
                let reason = "Another client of the app-server has started a turn in the thread.".to_owned();
                return Err(StartFailure::Transient(DaemonError::Unavailable { reason, retry_after: None }));
            }
        }
        let next = self.with_attachments(next).await?;
        let start = self.turn_start_of(&session, thread_id, &next);
        match self.starter.start_or_find(&client, start).await {
            // It has left the queue.
            Ok(_) | Err(DaemonError::TurnWithdrawn(_)) => Ok(()),
            Err(error) => Err(StartFailure::while_starting_turn(error)),
        }
    }

    /// The turn with the data that its input names.
    async fn with_attachments<'a>(&self, turn: &'a QueuedTurn) -> Result<Cow<'a, QueuedTurn>, StartFailure> {
        if !Attachments::are_in(&turn.input) {
            return Ok(Cow::Borrowed(turn));
        }
        let attachments = Attachments::new(Disk::default(), &self.core.config.paths.attachments);
        let input = turn.input.clone();
        match ATTACHMENTS.run(ATTACHMENT_LIMIT, move || attachments.restore(input)).await {
            Ok(Ok(input)) => Ok(Cow::Owned(QueuedTurn { input, ..turn.clone() })),
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                let reason = "A file that its input names was removed from the attachments.".to_owned();
                Err(StartFailure::Hold(HoldCause::TurnRefused, DaemonError::Invalid(reason)))
            }
            Ok(Err(error)) => Err(unreadable(&error)),
            Err(error) => Err(unreadable(&error)),
        }
    }

    /// The start of a queued turn, with its submission.
    fn turn_start_of<'a>(
        &self,
        session: &'a Session,
        thread_id: &ThreadId,
        waiting: &'a QueuedTurn,
    ) -> TurnStart<'a> {
        let queue_id = &waiting.queue_id;
        let submissions = &self.starter.submissions;
        TurnStart {
            session,
            input: &waiting.input,
            settings: &waiting.settings,
            under_way: submissions.begin(
                &session.session_id,
                thread_id,
                queue_id,
                Some(queue_id),
                None,
                waiting.on_usage_limit,
            ),
            is_tracked: true,
            submitted_since: waiting.submitted.then(|| waiting.queued_at.clone()),
        }
    }

    /// Searches for the turn of a queued one that was submitted before; records its acceptance.
    ///
    /// The caller holds the thread's lock.
    pub(super) async fn find_queued(
        &self,
        session: &Arc<Session>,
        waiting: &QueuedTurn,
    ) -> Result<Option<TurnId>, DaemonError> {
        let client = self.core.wait_for_client().await?;
        let session = self.threads.attach(&client, Arc::clone(session)).await?;
        let thread_id = session.thread_id.clone().unwrap_or_default();
        let start = self.turn_start_of(&session, &thread_id, waiting);
        self.starter.find_submitted(&client, &start).await
    }

    /// Records that a thread's queue is held, unless the same hold is recorded already.
    async fn hold(
        &self,
        thread_id: &ThreadId,
        queue_id: &str,
        cause: HoldCause,
        error: &DaemonError,
    ) -> Result<(), DaemonError> {
        let held = Held {
            cause,
            reason: error.to_string(),
            since: rfc3339_now(),
            until: None,
            automatic: cause.is_temporary(),
            queue_id: matches!(cause, HoldCause::TurnRefused | HoldCause::OutcomeUnknown)
                .then(|| queue_id.to_owned()),
            turn_id: None,
        };
        let thread_id = thread_id.clone();
        self.core.record_durably(move |state| hold_once(state, &thread_id, &held)).await
    }

    /// Lets a queued turn wait for no time any more, at a client's request.
    pub async fn start_now(&self, session_id: &SessionId, queue_id: &str) -> Result<(), DaemonError> {
        require_active(self.core.session(session_id)?)?;
        let not_queued =
            || DaemonError::NotQueued { session_id: session_id.clone(), queue_id: queue_id.to_owned() };
        let is_it = |turn: &&QueuedTurn| turn.queue_id == queue_id;
        let has_time = {
            let state = self.core.state();
            let turn = state.private.queue(session_id).find(is_it).ok_or_else(not_queued)?;
            turn.not_before.is_some()
        };
        if !has_time {
            return Ok(());
        }
        let (core, session_id, queue_id) = (Arc::clone(&self.core), session_id.clone(), queue_id.to_owned());
        let rescheduled = move |state: &State| {
            // It may have started in the meantime.
            let is_it = |turn: &&QueuedTurn| turn.queue_id == queue_id && turn.not_before.is_some();
            let is_waiting = state.private.queue(&session_id).any(|turn| is_it(&turn));
            let thread_id = state.sessions.get(&session_id).and_then(|session| session.thread_id.clone());
            let rescheduled = TurnEvent::Rescheduled { session_id, thread_id, queue_id, not_before: None };
            is_waiting.then(|| rescheduled.into()).into_iter().collect()
        };
        self.core.run(async move { core.record_durably(rescheduled).await }).await
    }

    /// Releases the queue of a session's thread at a client's request.
    ///
    /// The thread is opened first: if that fails, the error is returned and the queue stays held.
    pub async fn resume(&self, session_id: &SessionId) -> Result<(), DaemonError> {
        require_active(self.core.session(session_id)?)?;
        let (queue, name) = (self.clone(), session_id.clone());
        self.core
            .run(async move {
                let (_thread_lock, session) = queue.threads.lock_of_session(&name).await?;
                let session = require_active(session)?;
                if session.held.is_none() {
                    return Ok(());
                }
                let client = queue.core.wait_for_client().await?;
                let session = queue.threads.attach(&client, session).await?;
                let thread_id = session.thread_id.clone().unwrap_or_default();
                queue
                    .core
                    .record_durably(move |state| {
                        let trial = requested_trial(state, &thread_id, &rfc3339_now());
                        events::released(state, &thread_id, "A client resumed it.")
                            .into_iter()
                            .chain(trial)
                            .collect()
                    })
                    .await
            })
            .await
    }
}

fn unreadable(error: &impl std::fmt::Display) -> StartFailure {
    let reason = format!("The attachments of a queued turn cannot be read: {error}.");
    StartFailure::Transient(DaemonError::Unavailable { reason, retry_after: None })
}
