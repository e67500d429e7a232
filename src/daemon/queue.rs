//! The queue of turns of a thread: adding a turn, starting the next one, withdrawing one.
//!
//! Callers hold the lock of the thread. A turn leaves the queue when it starts or a client withdraws it.

pub(in crate::daemon) mod held;

use std::sync::Arc;

use crate::daemon::core::Daemon;
use crate::daemon::error::DaemonError;
use crate::daemon::events;
use crate::daemon::queue::held::StartFailure;
use crate::daemon::turns::{SubmitTurn, TurnAccepted, TurnStart};
use crate::state::{IdempotencyKey, QueuedTurn, Session, TurnEvent};
use crate::time::rfc3339_now;

/// How many turns may wait in a session.
const MAX_QUEUED_TURNS: usize = 100;

impl Daemon {
    /// Adds a turn at the end of the queue.
    pub(super) async fn enqueue(
        &self,
        session: &Session,
        input: SubmitTurn,
        key: Option<IdempotencyKey>,
    ) -> Result<TurnAccepted, DaemonError> {
        if let Some(error) = self.shared.recorder.view().storage_error() {
            return Err(DaemonError::Storage(error));
        }
        let (waiting, position) = {
            let state = self.state();
            let thread_id = session.thread_id.as_deref().unwrap_or_default();
            (state.private.queue(&session.session_id).count(), state.queue_of(thread_id).count() + 1)
        };
        if waiting >= MAX_QUEUED_TURNS {
            return Err(DaemonError::QueueFull {
                session_id: session.session_id.clone(),
                limit: MAX_QUEUED_TURNS,
            });
        }
        let turn = QueuedTurn {
            queue_id: format!("queued-{}", uuid::Uuid::new_v4()),
            queued_at: rfc3339_now(),
            input: input.input,
            settings: input.settings,
            submitted: false,
            // Given when it is recorded.
            order: 0,
        };
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
        self.record_durably(move |state| {
            // What holds the thread's queue holds this turn too.
            let held =
                state.sessions.get(&session_id).and_then(|session| events::hold_of_new_queue(state, session));
            std::iter::once(queued.into()).chain(held).collect()
        })
        .await?;
        self.accepted(&session.session_id, input.key.as_ref(), None, Some(queue_id))
    }

    /// Submits the next queued turn of an idle thread; a failure holds the queue.
    pub(super) async fn start_next(&self, thread_id: &str) -> Result<(), DaemonError> {
        self.renew_login().await;
        let _gate = self.shared.codex.gate.read().await;
        let _thread_lock = self.lock_thread(thread_id).await;
        let next = {
            let state = self.state();
            if state.turns.running(thread_id).is_some() {
                return Ok(());
            }
            state.queue_of(thread_id).next().map(|(session_id, turn)| (session_id.to_owned(), turn.clone()))
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
        thread_id: &str,
        session_id: &str,
        next: &QueuedTurn,
    ) -> Result<(), StartFailure> {
        let client = self.wait_for_client().await.map_err(StartFailure::Transient)?;
        let session = self.session(session_id).map_err(StartFailure::Transient)?;
        let session = self.attach(&client, session).await.map_err(StartFailure::while_opening_thread)?;
        // A recreated thread has another lock, and a resumed one may run a turn.
        let is_idle = self.state().turns.running(thread_id).is_none();
        if session.thread_id.as_deref() != Some(thread_id) || !is_idle {
            return Ok(());
        }
        let start = self.turn_start_of(&session, thread_id, next);
        match self.start_or_find(&client, start).await {
            // It has left the queue.
            Ok(_) | Err(DaemonError::TurnWithdrawn(_)) => Ok(()),
            Err(error) => Err(StartFailure::while_starting_turn(error)),
        }
    }

    /// The start of a queued turn, with its submission.
    fn turn_start_of<'a>(
        &self,
        session: &'a Session,
        thread_id: &str,
        waiting: &'a QueuedTurn,
    ) -> TurnStart<'a> {
        let queue_id = &waiting.queue_id;
        let submissions = &self.shared.submissions;
        TurnStart {
            session,
            input: &waiting.input,
            settings: &waiting.settings,
            under_way: submissions.begin(&session.session_id, thread_id, queue_id, Some(queue_id), None),
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
    ) -> Result<Option<String>, DaemonError> {
        let client = self.wait_for_client().await?;
        let session = self.attach(&client, Arc::clone(session)).await?;
        let thread_id = session.thread_id.clone().unwrap_or_default();
        let start = self.turn_start_of(&session, &thread_id, waiting);
        self.find_submitted(&client, &start).await
    }

    /// Records that a turn was withdrawn; whether it started may be unknown.
    pub(super) async fn record_withdrawal(
        &self,
        session_id: &str,
        queue_id: Option<&str>,
        key: Option<&IdempotencyKey>,
        is_outcome_unknown: bool,
    ) -> Result<(), DaemonError> {
        let reason = match is_outcome_unknown {
            false => "It was withdrawn before it started.",
            true => "It was withdrawn; whether it started is unknown.",
        };
        let withdrawn = events::turn_rejected(session_id, queue_id, key, reason);
        let (session_id, queue_id) = (session_id.to_owned(), queue_id.map(str::to_owned));
        self.record_durably(move |state| {
            let queue_id = queue_id.as_deref();
            let released =
                queue_id.map(|queue_id| events::releases_after_removal(state, &session_id, &[queue_id]));
            std::iter::once(withdrawn).chain(released.into_iter().flatten()).collect()
        })
        .await
    }
}
