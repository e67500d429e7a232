//! The turns of a thread: one order and one record of each, for all sessions of the thread.
//!
//! ```text
//! submitted ──► accepted ──► started ──► (failing) ──► ended
//!     │             └────────────┴────────────┴──────► cut off ──► ended, or started again
//!     └──► rejected
//! ```
//!
//! - **Submitted**: the turn was given to the app-server and its answer is outstanding.
//!   This is known to the submission alone (`daemon/submission.rs`), and to the queue or the answers of
//!   [`super::PrivateState`] when the turn can be searched; there is no turn id yet, so there is no record.
//! - **Accepted**: the answer, or something else that names the turn, was recorded as `turn.accepted`.
//!   The session of that event is the one that started the turn, unless the event reports that it steered a turn.
//! - **Started**: the app-server reported that the turn runs.
//!   A turn that was started by another client of the app-server begins here and has no session that started it.
//! - **Failing**: the app-server reported an error that it does not retry.
//!   The sessions are `failed` already; the turn still occupies the thread until its end follows.
//! - **Ended**: by `turn/completed`, or by `turn.settled` after the thread was read.
//! - **Cut off**: the connection ended first, recorded as `app-server.turn.completed.missing`.
//!   It counts as ended and failed; the thread may correct it once after the reconnection.
//!
//! Invariants:
//!
//! - The first end of a turn counts; no acceptance, start, error or second end that comes later changes its status.
//!   So a turn ends at most once, in any order of the messages and with any duplicates.
//! - The turn fields of all active sessions of a thread are the same function of its turns ([`State::update_sessions`]).
//!   A closed session keeps its last turn, whose end it still takes in.
//! - One turn runs at a time: of several that are not over the newest counts as the running one, and a turn that
//!   was reported to run is newer than one of which only the acceptance is known.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::events::{ChildEvent, EventDetail, NotificationEvent, PassedThrough, TurnEvent};
use super::queued_turn::QueuedTurn;
use super::records::State;
use super::session::{Session, SessionStatus};
use super::turn::{Phase, Turn, TurnPosition};
use crate::codex::protocol::values::{THREAD_ACTIVE, TURN_FAILED, TURN_IN_PROGRESS};
use crate::ids::{SessionId, ThreadId, TurnId};
use crate::timestamp::Timestamp;

impl State {
    /// The session that started a turn; `None` for one that no session started, or that is not known (any more).
    pub fn owner_of(&self, thread_id: &ThreadId, turn_id: &TurnId) -> Option<&SessionId> {
        self.turns.get(thread_id, turn_id)?.started_by.as_ref()
    }

    /// The session that an event about a turn names: the one that started it, or else an active one of the thread.
    pub fn session_for(&self, turn: &Turn) -> Option<&std::sync::Arc<Session>> {
        let owner = turn.started_by.as_ref().and_then(|session_id| self.sessions.get(session_id));
        owner.or_else(|| self.sessions.of_thread(&turn.thread_id))
    }

    /// The turns that wait in a thread with their sessions, the next one first: one order for all sessions of it.
    pub fn queue_of(&self, thread_id: &ThreadId) -> impl Iterator<Item = (&SessionId, &QueuedTurn)> {
        let mut queue: Vec<_> = self
            .sessions
            .active_in_thread(thread_id)
            .flat_map(|session| {
                let session_id = &session.session_id;
                self.private.queue(session_id).map(move |turn| (session_id, turn))
            })
            .collect();
        // Those that an earlier version queued have no order but their times.
        queue.sort_by(|(_, a), (_, b)| (a.order, &a.queued_at).cmp(&(b.order, &b.queued_at)));
        queue.into_iter()
    }

    /// The next turn of a thread that may start at `now`, with its session: the first in the queue whose time has come.
    pub fn next_due(&self, thread_id: &ThreadId, now: &Timestamp) -> Option<(&SessionId, &QueuedTurn)> {
        self.queue_of(thread_id).find(|(_, turn)| turn.is_due(now))
    }

    /// The threads in which turns wait.
    pub fn queued_threads(&self) -> BTreeSet<&ThreadId> {
        let sessions = self.private.queued_sessions().filter_map(|session_id| self.sessions.get(session_id));
        let active = sessions.filter(|session| session.status == SessionStatus::Active);
        active.filter_map(|session| session.thread_id.as_ref()).collect()
    }

    /// Applies an event to the turns; returns whether it was about a thread of a session.
    pub(super) fn apply_to_threads(&mut self, at: &Timestamp, event: &EventDetail) -> bool {
        let Some((thread_id, turn_id)) = self.turn_of_event(event) else {
            if let EventDetail::Notification(NotificationEvent::ThreadStatusChanged { thread_id, status }) =
                event
            {
                self.turns.set_thread_active(thread_id, status["type"] == THREAD_ACTIVE);
                return self.sessions.update_active(thread_id, |session| session.updated_at = at.clone());
            }
            if matches!(event, EventDetail::Child(ChildEvent::Connected { .. })) {
                self.turns.note_connection();
            }
            return false;
        };
        if self.sessions.in_thread(&thread_id).next().is_none() {
            return false;
        }
        // Whether the sessions are touched by it even where their fields stay as they are.
        let is_change = match event {
            EventDetail::Turn(event) => self.apply_to_turn((self.through, at), &thread_id, &turn_id, event),
            EventDetail::Notification(NotificationEvent::Other(PassedThrough::TokensUsed {
                usage, ..
            })) => {
                // After thread/resume the app-server repeats how much an old turn used.
                let Some(known) = self.turns.get(&thread_id, &turn_id).cloned() else { return false };
                let (at, last_seq) = ((self.through, at), known.last_seq);
                let is_over = known.is_over();
                self.turns.update(at, &thread_id, &turn_id, TurnPosition::Newest, |turn| {
                    turn.kept.set_token_usage(usage);
                    // The same again, perhaps much later: it extends no search of the log.
                    if is_over {
                        turn.last_seq = last_seq;
                    }
                });
                false
            }
            EventDetail::Notification(event) => {
                self.apply_to_running_turn((self.through, at), &thread_id, &turn_id, event)
            }
            _ => false,
        };
        self.end_usage_limit(&thread_id, &turn_id);
        self.update_sessions(at, &thread_id, is_change);
        true
    }

    /// Applies an event of a session's turn; returns whether the sessions are touched by it in any case.
    fn apply_to_turn(
        &mut self,
        at: (u64, &Timestamp),
        thread_id: &ThreadId,
        turn_id: &TurnId,
        event: &TurnEvent,
    ) -> bool {
        let time = at.1;
        let turns = &mut self.turns;
        match event {
            TurnEvent::Accepted { session_id, steered, status, is_newest, on_usage_limit, .. } => {
                let found = status.as_deref().zip(*is_newest);
                let place = match found {
                    Some((_, false)) => TurnPosition::Older,
                    _ => TurnPosition::Newest,
                };
                // The ID of the record, whose text is shared.
                let owner = self.sessions.get(session_id).map(|session| session.session_id.clone());
                turns.update(at, thread_id, turn_id, place, |turn| {
                    if !steered && turn.started_by.is_none() {
                        turn.started_by = owner;
                        turn.on_usage_limit = on_usage_limit.unwrap_or_default();
                    }
                    if !steered && found.is_none() {
                        turn.begin(at.0, false, None);
                    }
                    if let Some((status, _)) = found.filter(|(status, _)| *status != TURN_IN_PROGRESS) {
                        turn.end(time, Phase::Ended, status, None);
                    }
                });
                false
            }
            TurnEvent::ItemRead { item, .. } => {
                turns.update(at, thread_id, turn_id, TurnPosition::Newest, |turn| turn.add_item(item));
                false
            }
            TurnEvent::Missing(_) => {
                turns.update(at, thread_id, turn_id, TurnPosition::Newest, |turn| {
                    turn.end(time, Phase::CutOff, TURN_FAILED, None);
                });
                true
            }
            TurnEvent::Settled { status, error, completed_at, .. } => {
                let runs = status == TURN_IN_PROGRESS;
                let position = if runs { TurnPosition::Running } else { TurnPosition::Older };
                turns.update(at, thread_id, turn_id, position, |turn| match status.as_str() {
                    TURN_IN_PROGRESS => turn.run(),
                    status => {
                        // Codex names the second in which it ended, which may have begun before the turn.
                        let ended_at = completed_at.as_ref().unwrap_or(time).max(&turn.started_at).clone();
                        turn.end(&ended_at, Phase::Ended, status, error.as_ref());
                    }
                });
                true
            }
            _ => false,
        }
    }

    /// Applies a notification about a turn; returns whether the sessions are touched by it in any case.
    fn apply_to_running_turn(
        &mut self,
        at: (u64, &Timestamp),
        thread_id: &ThreadId,
        turn_id: &TurnId,
        event: &NotificationEvent,
    ) -> bool {
        let time = at.1;
        let turns = &mut self.turns;
        match event {
            NotificationEvent::TurnStarted {
                root_turn_id,
                read_from_thread,
                started_at,
                previous_turn_id,
                ..
            } => {
                // A review runs as a turn within its turn; Codex reports the start of the inner one, and no end
                // (measured on 0.171.0).
                let root = root_turn_id.as_ref().filter(|root| *root != turn_id);
                if root.is_some_and(|root| turns.get(thread_id, root).is_some()) {
                    return false;
                }
                let position = match read_from_thread {
                    true => TurnPosition::After(previous_turn_id.as_ref()),
                    false => TurnPosition::Running,
                };
                turns.update(at, thread_id, turn_id, position, |turn| {
                    turn.begin(at.0, *read_from_thread, started_at.as_ref());
                    if turn.phase == Phase::Accepted {
                        turn.phase = Phase::Started;
                    }
                });
                true
            }
            NotificationEvent::TurnCompleted { status, error, .. } => {
                let is_end = status != TURN_IN_PROGRESS;
                turns.update(at, thread_id, turn_id, TurnPosition::Newest, |turn| {
                    if is_end {
                        turn.end(time, Phase::Ended, status, error.as_ref());
                    }
                });
                true
            }
            NotificationEvent::TurnError { will_retry, error, .. } => {
                let place = if *will_retry { TurnPosition::Running } else { TurnPosition::Newest };
                turns.update(at, thread_id, turn_id, place, |turn| {
                    if turn.is_over() {
                        return;
                    }
                    turn.kept.set_error(error.as_ref());
                    turn.phase = match (will_retry, turn.phase) {
                        (false, _) => Phase::Failing,
                        (true, Phase::Accepted) => Phase::Started,
                        (true, phase) => phase,
                    };
                });
                true
            }
            NotificationEvent::Other(PassedThrough::ItemCompleted { item, .. }) => {
                turns.update(at, thread_id, turn_id, TurnPosition::Newest, |turn| turn.add_item(item));
                false
            }
            _ => false,
        }
    }

    /// The thread and the turn that an event is about, if it is about a turn of a known session.
    pub(super) fn turn_of_event(&self, event: &EventDetail) -> Option<(ThreadId, TurnId)> {
        let (session_id, thread_id, turn_id) = match event {
            EventDetail::Turn(TurnEvent::ItemRead { thread_id, turn_id, .. })
            | EventDetail::Notification(
                NotificationEvent::TurnStarted { thread_id, turn_id, .. }
                | NotificationEvent::TurnCompleted { thread_id, turn_id, .. }
                | NotificationEvent::TurnError { thread_id, turn_id, .. }
                | NotificationEvent::Other(
                    PassedThrough::ItemCompleted { thread_id, turn_id, .. }
                    | PassedThrough::TokensUsed { thread_id, turn_id, .. },
                ),
            ) => return Some((thread_id.clone(), turn_id.clone())),
            EventDetail::Turn(
                TurnEvent::Accepted { session_id, thread_id, turn_id, .. }
                | TurnEvent::Settled { session_id, thread_id, turn_id, .. },
            ) => (session_id, thread_id, turn_id),
            EventDetail::Turn(TurnEvent::Missing(missing)) => {
                (&missing.session_id, &missing.thread_id, &missing.turn_id)
            }
            _ => return None,
        };
        let session = self.sessions.get(session_id)?;
        Some((thread_id.as_ref().or(session.thread_id.as_ref())?.clone(), turn_id.clone()))
    }

    /// Takes in that a session came to a thread in which a turn runs, or may have run before.
    pub(super) fn show_thread_in_session(&mut self, at: &Timestamp, session_id: &SessionId) {
        let Some(session) = self.sessions.get(session_id) else { return };
        let Some(thread_id) = session.thread_id.clone() else { return };
        if let Some(turn_id) = session.current_turn_id.clone()
            && self.turns.get(&thread_id, &turn_id).is_none()
        {
            self.turns.update((self.through, at), &thread_id, &turn_id, TurnPosition::Running, |turn| {
                turn.phase = Phase::Started
            });
        }
        let last = self.sessions.get(session_id).and_then(|session| session.last_turn_id.as_ref());
        let knows_last = last.is_some_and(|last| self.turns.get(&thread_id, last).is_some());
        if knows_last || self.turns.running(&thread_id).is_some() {
            self.update_sessions(at, &thread_id, false);
        }
    }

    /// Writes the turns of a thread into the records of its sessions; where nothing differs they stay as they are,
    /// unless the event `is_change` to them.
    fn update_sessions(&mut self, at: &Timestamp, thread_id: &ThreadId, is_change: bool) {
        let shown = |turn: &Turn| match turn.phase {
            Phase::Failing => Cow::Borrowed(TURN_FAILED),
            _ => turn.status.clone(),
        };
        let Some(last) = self.turns.of(thread_id).next().cloned() else { return };
        let current = self.turns.running(thread_id).filter(|turn| turn.phase != Phase::Failing);
        let current = current.map(|turn| turn.turn_id.clone());
        let status = shown(&last);
        let turns = &self.turns;
        self.sessions.update_thread(thread_id, |session| {
            if session.status == SessionStatus::Closed {
                let own = session.last_turn_id.as_ref().and_then(|turn_id| turns.get(thread_id, turn_id));
                if let Some(turn) = own.filter(|turn| turn.is_over()) {
                    session.last_turn_status = Some(turn.status.clone());
                }
                return;
            }
            let before = (&session.current_turn_id, &session.last_turn_id, session.last_turn_status.as_ref());
            if is_change || before != (&current, &Some(last.turn_id.clone()), Some(&status)) {
                session.current_turn_id.clone_from(&current);
                session.last_turn_id = Some(last.turn_id.clone());
                session.last_turn_status = Some(status.clone());
                session.updated_at = at.clone();
            }
        });
    }
}
