//! Interrupts: a request to stop is pending until the turn ID is known and Codex can interrupt the turn.
//!
//! Codex refuses to interrupt a turn that it accepted and did not start yet ("no active turn to interrupt", measured on
//! 0.169.0 and 0.171.0), and while `turn/start` has no answer there is no turn id to interrupt.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::codex::Client;
use crate::codex::protocol::{errors, methods};
use crate::daemon::core::require_active;
use crate::daemon::error::DaemonError;
use crate::daemon::turns::Turns;
use crate::daemon::turns::contents::TurnView;
use crate::daemon::turns::descendants::{DescendantScope, clean_terminals};
use crate::daemon::turns::sandboxes::{
    SANDBOX_GRACE_AFTER_INTERRUPT, SANDBOX_GRACE_BEFORE_INTERRUPT, end_sandboxes,
};
use crate::daemon::turns::submission::{Progress, Submission};
use crate::ids::{SessionId, ThreadId, TurnId};
use crate::state::{HoldCause, Phase, QueuedTurn, Session, State};

/// How long a caller waits for the end of a turn that it interrupts; Codex takes about 10 ms (measured).
const INTERRUPT_WAIT_LIMIT: Duration = Duration::from_secs(5);
/// The shortest and the longest pause between two attempts, while no event of the turn arrives.
const MIN_RETRY_PAUSE: Duration = Duration::from_millis(20);
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The result of an interrupt.
#[derive(Debug, Clone)]
pub struct Interrupted {
    /// The turn as it is now; `None` while its ID is not known, or when it was withdrawn before it was sent.
    pub turn: Option<TurnView>,
    /// Whether the interrupt is still pending; it is carried out as soon as possible.
    pub pending: bool,
    /// Whether the turn's background commands were ended.
    pub commands_ended: bool,
    /// Why not, if so.
    pub reason: Option<String>,
}

/// The final result of an interrupt.
#[derive(Debug)]
pub(in crate::daemon) enum Stopped {
    /// The turn is over, or it was interrupted and did not end in time.
    Turn { turn_id: TurnId, cleaned: Result<(), String> },
    /// There is no turn to stop.
    NoTurn,
}

impl Turns {
    /// Interrupts the turn that runs in a session's thread or is submitted to it, and ends the commands that it
    /// started.
    ///
    /// An interrupt alone leaves a running shell command running (measured on 0.169.0), so the background terminals of the
    /// thread are cleaned too.
    /// Returns after 5 s at most; the interrupt is retried until the turn is over.
    /// With `turn_id`, only that turn is interrupted.
    /// A closed session is rejected with [`DaemonError::SessionNotActive`] when the turn was not started by it.
    pub async fn interrupt(
        &self,
        session_id: &SessionId,
        turn_id: Option<&TurnId>,
    ) -> Result<Interrupted, DaemonError> {
        let session = self.core.session(session_id)?;
        let thread_id = session.thread_id.clone().unwrap_or_default();
        let running = self.core.state().turns.running(&thread_id).cloned();
        let submission = self.starter.submissions.in_thread(&thread_id);
        // A closed session may stop its own turn only, not that of another session of the thread.
        let owner = match (&running, &submission) {
            (Some(turn), _) => Some(turn.started_by.as_ref()),
            (None, Some(submission)) => Some(Some(&submission.session_id)),
            (None, None) => None,
        };
        if owner.is_some_and(|owner| owner != Some(session_id)) {
            require_active(Arc::clone(&session))?;
        }
        let target = match (running, submission) {
            (Some(turn), _) => {
                if let Some(turn_id) = turn_id.filter(|turn_id| **turn_id != turn.turn_id) {
                    tracing::debug!(%turn_id, "another turn runs than the one to interrupt");
                    let (session_id, turn_id) = (session_id.clone(), turn.turn_id.clone());
                    return Err(DaemonError::OtherTurn { session_id, turn_id });
                }
                Target::Turn(turn.turn_id.clone())
            }
            (None, Some(submission)) if turn_id.is_none() => Target::Submission(submission),
            // The turn is over, and turns of its sub-agents still run.
            (None, _) if self.running_descendant(&session).is_some() => {
                let last = session.last_turn_id.clone().filter(|last| turn_id.is_none_or(|id| id == last));
                let last = last.ok_or_else(|| DaemonError::NoTurn(session_id.clone()))?;
                return self.interrupt_descendants(session, last).await;
            }
            (None, _) => return Err(DaemonError::NoTurn(session_id.clone())),
        };
        match self.stop_in_time(&thread_id, target.clone()).await? {
            Some(Stopped::Turn { turn_id, cleaned }) => {
                let turn = self.get(session_id, &turn_id).await?;
                Ok(Interrupted {
                    pending: !turn.is_over(),
                    turn: Some(turn),
                    commands_ended: cleaned.is_ok(),
                    reason: cleaned.err(),
                })
            }
            Some(Stopped::NoTurn) => {
                Ok(Interrupted { turn: None, pending: false, commands_ended: true, reason: None })
            }
            None => {
                let turn = match target.turn_id() {
                    Some(turn_id) => Some(self.get(session_id, &turn_id).await?),
                    None => None,
                };
                let reason =
                    Some("The turn has not ended yet; it is interrupted as soon as possible.".to_owned());
                Ok(Interrupted { turn, pending: true, commands_ended: false, reason })
            }
        }
    }

    /// Interrupts the turns of a session's sub-agents whose own turn is over.
    async fn interrupt_descendants(
        &self,
        session: Arc<Session>,
        last: TurnId,
    ) -> Result<Interrupted, DaemonError> {
        let turns = self.clone();
        self.core
            .run(async move {
                let thread_id = session.thread_id.clone().unwrap_or_default();
                let client = turns.core.wait_for_client().await?;
                end_sandboxes(&turns.core.config, &thread_id, SANDBOX_GRACE_BEFORE_INTERRUPT).await;
                let turn = turns.get(&session.session_id, &last).await?;
                end_sandboxes(&turns.core.config, &thread_id, SANDBOX_GRACE_AFTER_INTERRUPT).await;
                let scope = DescendantScope::Session(session.session_id.clone());
                turns.stop_descendants(&client, &thread_id, scope).await;
                let reason = clean_terminals(&client, &thread_id).await.err();
                let commands_ended = reason.is_none();
                Ok(Interrupted { turn: Some(turn), pending: false, commands_ended, reason })
            })
            .await
    }

    /// Stops a turn or a submission; `None` when that takes longer than the wait limit; it continues in the background.
    pub(in crate::daemon) async fn stop_in_time(
        &self,
        thread_id: &ThreadId,
        target: Target,
    ) -> Result<Option<Stopped>, DaemonError> {
        let (turns, thread_id) = (self.clone(), thread_id.clone());
        let stopping = self.core.run(async move { turns.stop_target(&thread_id, target).await });
        match tokio::time::timeout(INTERRUPT_WAIT_LIMIT, stopping).await {
            Ok(stopped) => stopped.map(Some),
            Err(_) => Ok(None),
        }
    }

    async fn stop_target(&self, thread_id: &ThreadId, target: Target) -> Result<Stopped, DaemonError> {
        let turn_id = match target {
            Target::Turn(turn_id) => turn_id,
            Target::Submission(submission) => {
                if submission.withdraw() {
                    return Ok(Stopped::NoTurn);
                }
                let mut progress = submission.progress();
                let is_known = |progress: &Progress| *progress != Progress::Sent;
                let known = tokio::select! {
                    known = progress.wait_for(is_known) => known.map(|known| known.clone()).ok(),
                    () = self.core.stopping.cancelled() => return Err(DaemonError::ShuttingDown),
                };
                match known {
                    Some(Progress::Accepted(turn_id)) => turn_id,
                    _ => return Ok(Stopped::NoTurn),
                }
            }
        };
        // The record of a turn follows its acceptance.
        self.core.recorder.caught_up().await;
        let client = self.core.wait_for_client().await?;
        end_sandboxes(&self.core.config, thread_id, SANDBOX_GRACE_BEFORE_INTERRUPT).await;
        self.interrupt_until_accepted(&client, thread_id, &turn_id).await?;
        self.wait_until_over(thread_id, &turn_id, INTERRUPT_WAIT_LIMIT).await;
        end_sandboxes(&self.core.config, thread_id, SANDBOX_GRACE_AFTER_INTERRUPT).await;
        self.stop_descendants(&client, thread_id, DescendantScope::Turn(turn_id.clone())).await;
        Ok(Stopped::Turn { turn_id, cleaned: clean_terminals(&client, thread_id).await })
    }

    /// Sends `turn/interrupt` until Codex accepts it or the turn is over.
    async fn interrupt_until_accepted(
        &self,
        client: &Client,
        thread_id: &ThreadId,
        turn_id: &TurnId,
    ) -> Result<(), DaemonError> {
        let params = json!({ "threadId": thread_id, "turnId": turn_id });
        let mut pause = MIN_RETRY_PAUSE;
        loop {
            let before = phase_of(&self.core.state(), thread_id, turn_id);
            let Err(error) = client.call(methods::TURN_INTERRUPT, &params, client.call_timeout()).await
            else {
                return Ok(());
            };
            // The turn may have ended by itself in the meantime.
            self.core.recorder.caught_up().await;
            if self.is_over(thread_id, turn_id) {
                return Ok(());
            }
            match DaemonError::from(error) {
                DaemonError::Rejected { message, .. } if errors::is_nothing_to_interrupt(&message) => {}
                DaemonError::Overloaded => {}
                error => return Err(error),
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(MAX_RETRY_PAUSE),
                changed = self.core.when(|state| (phase_of(state, thread_id, turn_id) != before).then_some(())) => {
                    changed.ok_or(DaemonError::ShuttingDown)?;
                }
            }
        }
    }

    /// Whether a turn is known to be over.
    fn is_over(&self, thread_id: &ThreadId, turn_id: &TurnId) -> bool {
        self.core.state().turns.get(thread_id, turn_id).is_some_and(|turn| turn.is_over())
    }

    /// Waits until a turn is over, at most `limit`.
    pub(in crate::daemon) async fn wait_until_over(
        &self,
        thread_id: &ThreadId,
        turn_id: &TurnId,
        limit: Duration,
    ) {
        let is_over = |state: &State| state.turns.get(thread_id, turn_id)?.is_over().then_some(());
        let _ = tokio::time::timeout(limit, self.core.when(is_over)).await;
    }

    /// Removes a waiting turn from its session's queue; when this returns `false`, its removal is on disk.
    ///
    /// A turn that is being submitted is interrupted; `true` means that it is not over yet and the interrupt is pending.
    pub async fn withdraw(&self, session_id: &SessionId, queue_id: &str) -> Result<bool, DaemonError> {
        let session = self.core.session(session_id)?;
        let thread_id = session.thread_id.clone().unwrap_or_default();
        let is_it = |submission: &Arc<Submission>| submission.queue_id.as_deref() == Some(queue_id);
        if let Some(submission) = self.starter.submissions.in_thread(&thread_id).filter(is_it) {
            let stopped = self.stop_in_time(&thread_id, Target::Submission(submission)).await?;
            return Ok(match stopped {
                None => true,
                Some(Stopped::NoTurn) => {
                    self.remove_from_queue(session_id, queue_id).await?;
                    false
                }
                Some(Stopped::Turn { turn_id, .. }) => !self.is_over(&thread_id, &turn_id),
            });
        }
        self.require_waiting(session_id, queue_id)?;
        self.remove_from_queue(session_id, queue_id).await?;
        Ok(false)
    }

    /// Rejects a waiting turn; one that was submitted before and did start is interrupted.
    async fn remove_from_queue(&self, session_id: &SessionId, queue_id: &str) -> Result<(), DaemonError> {
        let (turns, session_id, queue_id) = (self.clone(), session_id.clone(), queue_id.to_owned());
        self.core
            .run(async move {
                let (_thread_lock, session) = turns.threads.lock_of_session(&session_id).await?;
                let Some(waiting) = turns.waiting(&session_id, &queue_id) else { return Ok(()) };
                // The app-server may have it, and that cannot be found out.
                let is_outcome_unknown = session.held.as_ref().is_some_and(|held| {
                    held.cause == HoldCause::OutcomeUnknown && held.queue_id.as_deref() == Some(&queue_id)
                });
                if waiting.submitted
                    && !is_outcome_unknown
                    && let Some(turn_id) = turns.queue.find_queued(&session, &waiting).await?
                {
                    let thread_id = session.thread_id.clone().unwrap_or_default();
                    turns.stop_target(&thread_id, Target::Turn(turn_id)).await?;
                    return Ok(());
                }
                let is_unknown = waiting.submitted && is_outcome_unknown;
                turns.starter.record_withdrawal(&session_id, Some(&queue_id), None, is_unknown).await
            })
            .await
    }

    fn waiting(&self, session_id: &SessionId, queue_id: &str) -> Option<QueuedTurn> {
        self.core.state().private.queue(session_id).find(|turn| turn.queue_id == queue_id).cloned()
    }

    fn require_waiting(&self, session_id: &SessionId, queue_id: &str) -> Result<(), DaemonError> {
        match self.waiting(session_id, queue_id) {
            Some(_) => Ok(()),
            None => {
                let (session_id, queue_id) = (session_id.clone(), queue_id.to_owned());
                Err(DaemonError::NotQueued { session_id, queue_id })
            }
        }
    }

    /// The turn to end with a session: the session's turn, or any turn for the last active session of the thread.
    pub(in crate::daemon) fn of_session(&self, session: &Session) -> Option<Target> {
        let thread_id = session.thread_id.as_ref()?;
        let state = self.core.state();
        let is_last =
            state.sessions.active_in_thread(thread_id).all(|other| other.session_id == session.session_id);
        if let Some(turn) = state.turns.running(thread_id) {
            let is_own = turn.started_by.as_ref() == Some(&session.session_id);
            return (is_own || is_last).then(|| Target::Turn(turn.turn_id.clone()));
        }
        let submission = self.starter.submissions.in_thread(thread_id)?;
        (submission.session_id == session.session_id).then_some(Target::Submission(submission))
    }
}

fn phase_of(state: &State, thread_id: &ThreadId, turn_id: &TurnId) -> Option<Phase> {
    state.turns.get(thread_id, turn_id).map(|turn| turn.phase)
}

/// The target of an interrupt.
#[derive(Clone)]
pub(in crate::daemon) enum Target {
    Turn(TurnId),
    Submission(Arc<Submission>),
}

impl Target {
    /// The turn ID, once it is known.
    pub(in crate::daemon) fn turn_id(&self) -> Option<TurnId> {
        match self {
            Self::Turn(turn_id) => Some(turn_id.clone()),
            Self::Submission(submission) => match &*submission.progress().borrow() {
                Progress::Accepted(turn_id) => Some(turn_id.clone()),
                _ => None,
            },
        }
    }
}
