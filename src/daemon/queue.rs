//! Turns that wait: in, out, and on to the app-server.

use super::held::Obstacle;
use super::recorder::now;
use super::turns::{Offer, SubmitTurn, TurnAccepted};
use super::{Daemon, DaemonError, drafts};
use crate::state::{HoldCause, IdempotencyKey, QueuedTurn, Session};

/// How many turns may wait in a session.
const QUEUE: usize = 100;

impl Daemon {
    /// Puts a turn behind those that wait.
    pub(super) async fn enqueue(
        &self,
        session: &Session,
        input: SubmitTurn,
        key: Option<IdempotencyKey>,
    ) -> Result<TurnAccepted, DaemonError> {
        if let Some(error) = self.shared.recorder.view().storage() {
            return Err(DaemonError::Storage(error));
        }
        let (waiting, position) = {
            let state = self.state();
            let thread_id = session.thread_id.as_deref().unwrap_or_default();
            (state.memory.queue(&session.session_id).count(), state.queue_of(thread_id).count() + 1)
        };
        if waiting >= QUEUE {
            return Err(DaemonError::QueueFull { session_id: session.session_id.clone(), limit: QUEUE });
        }
        let turn = QueuedTurn {
            queue_id: format!("queued-{}", uuid::Uuid::new_v4()),
            queued_at: now(),
            input: input.input,
            settings: input.settings,
            submitted: false,
            // Given when it is recorded.
            order: 0,
        };
        let queue_id = turn.queue_id.clone();
        let queued = drafts::turn_queued(session, &turn, position, key.as_ref());
        let session_id = session.session_id.clone();
        self.promise(move |state| {
            // What holds the thread's queue holds this turn too.
            let held = state.sessions.get(&session_id).and_then(|session| drafts::joins_held(state, session));
            std::iter::once(queued).chain(held).collect()
        })
        .await?;
        self.accepted(&session.session_id, input.key.as_ref(), None, Some(queue_id))
    }

    /// Gives the next waiting turn of an idle thread to the app-server; what keeps it from beginning holds the queue.
    pub(super) async fn begin_next(&self, thread_id: &str) -> Result<(), DaemonError> {
        self.renew_login().await;
        let _gate = self.shared.codex.gate.read().await;
        let _alone = self.lock_thread(thread_id).await;
        let next = {
            let state = self.state();
            if state.turns.running(thread_id).is_some() {
                return Ok(());
            }
            state.queue_of(thread_id).next().map(|(session_id, turn)| (session_id.to_owned(), turn.clone()))
        };
        let Some((session_id, next)) = next else { return Ok(()) };
        match self.begin_queued(thread_id, &session_id, &next).await {
            Ok(()) => Ok(()),
            Err(Obstacle::Passing(error)) => Err(error),
            Err(Obstacle::Hold(cause, error)) => self.hold(thread_id, &next.queue_id, cause, &error).await,
        }
    }

    /// Begins a turn that waits; one that runs by now lets it wait.
    async fn begin_queued(
        &self,
        thread_id: &str,
        session_id: &str,
        next: &QueuedTurn,
    ) -> Result<(), Obstacle> {
        let client = self.client().await.map_err(Obstacle::Passing)?;
        let session = self.session(session_id).map_err(Obstacle::Passing)?;
        let session = self.attach(&client, session).await.map_err(Obstacle::at_thread)?;
        // A thread that was created anew has another lock, and one that was resumed may run a turn.
        let is_idle = self.state().turns.running(thread_id).is_none();
        if session.thread_id.as_deref() != Some(thread_id) || !is_idle {
            return Ok(());
        }
        let offer = Offer {
            session: &session,
            thread_id,
            input: &next.input,
            settings: &next.settings,
            queue_id: Some(&next.queue_id),
            key: None,
            client_message_id: Some(next.queue_id.clone()),
            offered_since: next.submitted.then(|| next.queued_at.clone()),
        };
        self.begin(&client, offer).await.map(drop).map_err(Obstacle::at_turn)
    }

    /// Takes a turn that waits out of its session's queue; that it never begins is on disk when this returns.
    ///
    /// One that was given to the app-server can be taken out only when its outcome cannot be found out.
    pub async fn withdraw_turn(&self, session_id: &str, queue_id: &str) -> Result<(), DaemonError> {
        // One that is just given to the app-server may keep the thread for as long as that takes to answer.
        self.check_that_it_waits(session_id, queue_id)?;
        let (daemon, session_id, queue_id) = (self.clone(), session_id.to_owned(), queue_id.to_owned());
        self.run(async move {
            let (_alone, _) = daemon.alone_with_thread(&session_id).await?;
            let is_doubtful = daemon.check_that_it_waits(&session_id, &queue_id)?;
            let reason = match is_doubtful {
                false => "It was withdrawn before it began.",
                true => "It was withdrawn; whether it began is unknown.",
            };
            let withdrawn = drafts::turn_rejected(&session_id, Some(&queue_id), None, reason);
            daemon
                .promise(move |state| {
                    let released = drafts::released_without(state, &session_id, &[&queue_id]);
                    std::iter::once(withdrawn).chain(released).collect()
                })
                .await
        })
        .await
    }

    /// Whether the app-server may have the turn, and nobody can find out.
    fn check_that_it_waits(&self, session_id: &str, queue_id: &str) -> Result<bool, DaemonError> {
        let session = self.session(session_id)?;
        let is_doubtful = session.held.as_ref().is_some_and(|held| {
            held.cause == HoldCause::OutcomeUnknown && held.queue_id.as_deref() == Some(queue_id)
        });
        let state = self.state();
        let waiting = state.memory.queue(session_id).find(|turn| turn.queue_id == queue_id);
        let (session_id, queue_id) = (session_id.to_owned(), queue_id.to_owned());
        match waiting {
            None => Err(DaemonError::NotQueued { session_id, queue_id }),
            Some(turn) if turn.submitted && !is_doubtful => Err(DaemonError::QueuedTurnBegins(queue_id)),
            Some(turn) => Ok(turn.submitted),
        }
    }
}
