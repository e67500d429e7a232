//! Submitting turns: start, steer or queue.

pub(in crate::daemon) mod activity;
pub(in crate::daemon) mod contents;
pub(in crate::daemon) mod corrections;
pub(in crate::daemon) mod descendants;
pub(in crate::daemon) mod drain;
pub(in crate::daemon) mod interrupt;
mod read;
pub(in crate::daemon) mod reconnect;
pub(in crate::daemon) mod sandboxes;
pub(in crate::daemon) mod settlement;
pub(in crate::daemon) mod start;
pub(in crate::daemon) mod submission;
pub(in crate::daemon) mod watch;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::codex::protocol::errors;
use crate::daemon::codex_health::watch::CodexMonitor;
use crate::daemon::core::{Core, require_active};
use crate::daemon::error::DaemonError;
use crate::daemon::idempotency::{Answers, RequestKey};
use crate::daemon::queue::{Queue, usage_limit};
use crate::daemon::skipped_items::SkippedItemReader;
use crate::daemon::threads::Threads;
use crate::daemon::turns::start::{TurnStart, TurnStarter};
use crate::ids::{SessionId, TurnId};
use crate::state::{IdempotencyKey, OnUsageLimit, QueuedTurn, Session, StoredResponse, Turn};
use crate::time::rfc3339_now;
use crate::timestamp::Timestamp;

/// What happens to a new turn while another one runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WhenBusy {
    /// It is rejected.
    #[default]
    Refuse,
    /// Its input steers the running turn.
    Steer,
    /// It waits in the queue.
    Queue,
}

/// The input and settings of a new turn; the app-server has defaults for absent settings.
#[derive(Debug, Clone)]
pub struct SubmitTurn {
    /// The session.
    pub session_id: SessionId,
    /// The items of the user's input; never empty.
    pub input: Vec<Value>,
    /// The running turn to steer; `None` starts a new one.
    pub expected_turn_id: Option<TurnId>,
    /// What happens when a turn runs and `expected_turn_id` is `None`.
    pub when_busy: WhenBusy,
    /// The time before which the turn does not start; with one it is queued also if its thread is idle.
    pub not_before: Option<Timestamp>,
    /// What follows if it reaches the usage limit; a turn that steers has that of the running turn.
    pub on_usage_limit: OnUsageLimit,
    /// The parameters of `turn/start`, by the app-server's names; values that only it can validate are passed through.
    pub settings: Map<String, Value>,
    /// Set when the caller may repeat the request.
    pub key: Option<RequestKey>,
}

/// The result of an accepted submission.
#[derive(Debug, Clone)]
pub struct TurnAccepted {
    /// The session, as it was after the acceptance.
    pub session: Arc<Session>,
    /// The turn, when the app-server accepted it.
    pub turn_id: Option<TurnId>,
    /// Its queue ID, when it waits.
    pub queue_id: Option<String>,
    /// Whether the input was added to a running turn, to which no settings apply.
    pub steered: bool,
}

/// The turns of all threads, as clients submit, read and interrupt them; clones share all state.
#[derive(Clone)]
pub struct Turns {
    pub(in crate::daemon) core: Arc<Core>,
    pub(in crate::daemon) threads: Threads,
    pub(in crate::daemon) answers: Answers,
    pub(in crate::daemon) starter: TurnStarter,
    pub(in crate::daemon) queue: Queue,
    pub(in crate::daemon) codex: CodexMonitor,
    pub(in crate::daemon) skipped_items: SkippedItemReader,
}

impl Turns {
    /// Starts, steers or queues a turn; its acceptance is on disk when this returns.
    pub async fn submit(&self, input: SubmitTurn) -> Result<TurnAccepted, DaemonError> {
        // The app-server uses the login that it read at its start; the login may have changed since.
        self.codex.renew_login().await;
        if self.starts_new_turn(&input) {
            self.codex.wait_for_restart().await?;
        }
        let turns = self.clone();
        self.core.run(async move { turns.submit_now(input).await }).await
    }

    /// Whether a turn is to start now; not when its thread is busy, when it was accepted before, or when it is refused.
    fn starts_new_turn(&self, input: &SubmitTurn) -> bool {
        let Ok(session) = self.core.session(&input.session_id) else { return false };
        let is_answered = input.key.as_ref().is_some_and(|key| {
            self.answers
                .remembered_answer(key)
                .is_ok_and(|answer| answer.is_some_and(|answer| answer.session.is_some()))
        });
        let state = self.core.state();
        let is_busy =
            session.thread_id.as_ref().is_some_and(|thread_id| state.turns.running(thread_id).is_some());
        input.expected_turn_id.is_none() && input.not_before.is_none() && !is_answered && !is_busy
    }

    async fn submit_now(&self, input: SubmitTurn) -> Result<TurnAccepted, DaemonError> {
        if input.input.is_empty() {
            let reason = "turn input must be a non-empty string or a non-empty array of items.";
            return Err(DaemonError::Invalid(reason.to_owned()));
        }
        self.core.session(&input.session_id)?;
        let _key_lock = self.answers.lock(input.key.as_ref()).await;
        let remembered = match &input.key {
            Some(key) => self.answers.remembered_answer(key)?,
            None => None,
        };
        if let Some(answer) = remembered.as_ref().filter(|answer| answer.session.is_some()) {
            let StoredResponse { turn_id, queue_id, steered, .. } = answer.clone();
            let session = self.answers.session_of_answer(answer)?;
            return Ok(TurnAccepted { session, turn_id, queue_id, steered });
        }
        let key = input.key.clone().map(RequestKey::into_stored);
        let unknown = remembered.and_then(|answer| Some((answer.client_message_id.clone()?, answer.since())));
        let on_usage_limit = input.on_usage_limit;
        let may_wait = input.when_busy == WhenBusy::Queue && input.expected_turn_id.is_none();
        let is_unknown = unknown.is_some();
        let submitted_since = unknown.as_ref().map(|(_, since)| since.clone());
        let message_id = unknown.map_or_else(new_message_id, |(message_id, _)| message_id);
        let (_thread_lock, under_way, client, session, thread_id) = loop {
            let (thread_lock, session) = self.threads.lock_of_session(&input.session_id).await?;
            let session = require_active(session)?;
            let no_thread = || DaemonError::NoThread(input.session_id.clone());
            let thread_id = session.thread_id.clone().ok_or_else(no_thread)?;
            // A queued turn may be about to start; this one must not start before it.
            let is_busy = {
                let state = self.core.state();
                let next = state.next_due(&thread_id, &rfc3339_now());
                state.turns.running(&thread_id).is_some()
                    || next.is_some()
                    || may_wait && usage_limit::queues_new_turns(&state, &session)
            };
            if input.not_before.is_some() || is_busy && may_wait && !is_unknown {
                return self.enqueue(&session, input, key).await;
            }
            // From here on an interrupt finds the submission; starting the app-server or the thread may take long.
            let submissions = &self.starter.submissions;
            let under_way = submissions.begin(
                &session.session_id,
                &thread_id,
                &message_id,
                None,
                key.as_ref(),
                on_usage_limit,
            );
            let client = self.core.wait_for_client().await?;
            let session = self.threads.attach(&client, session).await?;
            if under_way.submission.is_withdrawn() {
                return Err(DaemonError::TurnWithdrawn(input.session_id));
            }
            // A recreated thread has another lock.
            if session.thread_id.as_ref() == Some(&thread_id) {
                break (thread_lock, under_way, client, session, thread_id);
            }
        };
        let mut start = TurnStart {
            session: &session,
            input: &input.input,
            settings: &input.settings,
            under_way,
            is_tracked: key.is_some(),
            submitted_since,
        };
        // Search before checking which turn runs now: it may be this very turn.
        if let Some(turn_id) = self.starter.find_submitted(&client, &start).await? {
            return self.accepted(&session.session_id, input.key.as_ref(), Some(turn_id), None);
        }
        start.submitted_since = None;
        let current = self.core.state().turns.running(&thread_id).map(|turn| turn.turn_id.clone());
        let running = match (&input.expected_turn_id, &current, input.when_busy) {
            (Some(expected), _, _) => Some(expected.clone()),
            (None, Some(current), WhenBusy::Steer) => Some(current.clone()),
            (None, Some(_), WhenBusy::Queue) => return self.enqueue(&session, input, key).await,
            // The app-server would add the input to the running turn (measured); the client asked for a new one.
            (None, Some(current), WhenBusy::Refuse) => {
                let (session_id, turn_id) = (input.session_id, current.clone());
                return Err(DaemonError::TurnInProgress { session_id, turn_id });
            }
            (None, None, _) => None,
        };
        let (turn_id, steered) = match running {
            Some(turn_id) => match self.starter.steer(&client, &start, &turn_id).await {
                // "whenBusy" names no particular turn, and the one that ran has ended in the meantime.
                Err(DaemonError::Rejected { ref message, .. })
                    if input.expected_turn_id.is_none() && errors::is_nothing_to_steer(message) =>
                {
                    (self.starter.start_or_find(&client, start).await?, false)
                }
                steered => (steered?, true),
            },
            None => (self.starter.start_or_find(&client, start).await?, false),
        };
        // The app-server adds the input to a turn that another client started in the meantime.
        let is_of_another = |turn: &Arc<Turn>| turn.started_by.as_ref() != Some(&session.session_id);
        let steered = steered || self.core.state().turns.get(&thread_id, &turn_id).is_some_and(is_of_another);
        let accepted = self.accepted(&session.session_id, input.key.as_ref(), Some(turn_id), None)?;
        Ok(TurnAccepted { steered, ..accepted })
    }

    async fn enqueue(
        &self,
        session: &Session,
        input: SubmitTurn,
        key: Option<IdempotencyKey>,
    ) -> Result<TurnAccepted, DaemonError> {
        let turn = QueuedTurn {
            queue_id: format!("queued-{}", uuid::Uuid::new_v4()),
            queued_at: rfc3339_now(),
            input: input.input,
            settings: input.settings,
            submitted: false,
            // Given when it is recorded.
            order: 0,
            not_before: input.not_before,
            on_usage_limit: input.on_usage_limit,
            continues: None,
        };
        let queue_id = self.queue.add(session, turn, key).await?;
        self.accepted(&session.session_id, input.key.as_ref(), None, Some(queue_id))
    }

    /// The response to an accepted turn: the same one that a repeated request gets.
    fn accepted(
        &self,
        session_id: &SessionId,
        key: Option<&RequestKey>,
        turn_id: Option<TurnId>,
        queue_id: Option<String>,
    ) -> Result<TurnAccepted, DaemonError> {
        let session = self.answers.first_answer(key, session_id)?;
        Ok(TurnAccepted { session, turn_id, queue_id, steered: false })
    }
}

/// A new message ID, by which the app-server's records name a submission.
fn new_message_id() -> String {
    format!("codexd-{}", uuid::Uuid::new_v4())
}
