//! Held queues: the cause, the retries, and the release.
//!
//! A turn leaves its queue only when it starts or a client removes it. The session's record ([`Held`]) and the event
//! `session.held` state what prevents the start; `session.released` states that the queue continues.
//! The turn watcher calls [`Retries`]; HTTP handlers call `Queue::resume`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Zoned;
use serde_json::Value;

use crate::codex::protocol::errors::is_account_limit;
use crate::codex::protocol::notifications::{self, LastError};
use crate::codex::protocol::values;
use crate::daemon::error::DaemonError;
use crate::daemon::events;
use crate::daemon::queue::usage_limit;
use crate::ids::{ThreadId, TurnId};
use crate::state::{Held, HoldCause, NewEvent, Session, State};
use crate::time::rfc3339_now;
use crate::timestamp::Timestamp;

/// The first delay before a held queue is tried again; it doubles each time.
const MIN_RETRY_DELAY: Duration = Duration::from_secs(1);
/// The longest of these delays.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(60);

/// Why the first turn of a queue did not start.
pub(in crate::daemon) enum StartFailure {
    /// The start could not be tried, or its outcome is unknown: it is retried soon, and the queue is not held.
    Transient(DaemonError),
    /// The queue is held.
    Hold(HoldCause, DaemonError),
}

impl StartFailure {
    /// Classifies an error from opening the thread.
    pub(in crate::daemon) fn while_opening_thread(error: DaemonError) -> Self {
        match &error {
            DaemonError::ThreadLocked { .. } => StartFailure::Hold(HoldCause::ThreadLocked, error),
            DaemonError::ThreadUnavailable { .. } => StartFailure::Hold(HoldCause::ThreadUnavailable, error),
            _ => Self::hold_if_refused(HoldCause::ThreadUnavailable, error),
        }
    }

    /// Classifies an error from searching for a turn or submitting it.
    pub(in crate::daemon) fn while_starting_turn(error: DaemonError) -> Self {
        match &error {
            DaemonError::OutcomeUnknown { .. } => StartFailure::Hold(HoldCause::OutcomeUnknown, error),
            DaemonError::CodexTooOld { .. } => StartFailure::Hold(HoldCause::TurnRefused, error),
            DaemonError::ThreadUnavailable { .. } => StartFailure::Hold(HoldCause::ThreadUnavailable, error),
            _ => Self::hold_if_refused(HoldCause::TurnRefused, error),
        }
    }

    fn hold_if_refused(cause: HoldCause, error: DaemonError) -> Self {
        match error {
            DaemonError::Overloaded => StartFailure::Transient(error),
            error if error.is_refusal() => StartFailure::Hold(cause, error),
            error => StartFailure::Transient(error),
        }
    }
}

/// When held queues are retried, by thread.
#[derive(Default)]
pub(in crate::daemon) struct Retries {
    threads: HashMap<ThreadId, Retry>,
}

struct Retry {
    /// The generation of the app-server that was tried last.
    generation: u64,
    tries: u32,
    /// When it is retried with the same generation; `None` when only another generation can succeed.
    next: Option<Instant>,
}

impl Retries {
    /// Whether the queue of an idle thread is to be tried now; `true` counts as a try.
    pub(in crate::daemon) fn is_due(&mut self, state: &State, thread_id: &ThreadId, generation: u64) -> bool {
        let Some(held) = held_in(state, thread_id) else {
            self.threads.remove(thread_id);
            return true;
        };
        if held.cause == HoldCause::UsageLimit && held.automatic {
            // It is released when its turn may start.
            return false;
        }
        if held.cause.is_failed_turn() {
            return is_over(state, thread_id, held);
        }
        let automatic = held.cause.is_temporary();
        let retry = self.threads.entry(thread_id.clone()).or_insert_with(|| Retry {
            // A queue that was held just now was tried with this generation.
            generation: if is_recent(&held.since) { generation } else { 0 },
            tries: 0,
            next: automatic.then(|| Instant::now() + MIN_RETRY_DELAY),
        });
        let is_due = retry.generation != generation || retry.next.is_some_and(|next| next <= Instant::now());
        if is_due {
            retry.tries = if retry.generation == generation { retry.tries + 1 } else { 0 };
            retry.generation = generation;
            let rest = MIN_RETRY_DELAY.saturating_mul(1 << retry.tries.min(10)).min(MAX_RETRY_DELAY);
            retry.next = automatic.then(|| Instant::now() + rest);
        }
        is_due
    }

    /// When the next one is due by time.
    pub(in crate::daemon) fn next(&self) -> Option<Instant> {
        // A retry that is due already waits for its thread to be idle or for an app-server.
        let now = Instant::now();
        self.threads.values().filter_map(|retry| retry.next).filter(|next| *next > now).min()
    }

    /// Removes all threads but these.
    pub(in crate::daemon) fn keep(&mut self, threads: &BTreeSet<&ThreadId>) {
        self.threads.retain(|thread_id, _| threads.contains(thread_id));
    }
}

/// The hold of a thread's queue, if it is held.
fn held_in<'a>(state: &'a State, thread_id: &ThreadId) -> Option<&'a Held> {
    state.sessions.active_in_thread(thread_id).find_map(|session| session.held.as_deref())
}

/// Whether a later turn of the thread completed, so that the cause of the failure is gone.
fn is_over(state: &State, thread_id: &ThreadId, held: &Held) -> bool {
    let later = state.turns.of(thread_id).take_while(|turn| Some(&turn.turn_id) != held.turn_id.as_ref());
    later.filter(|turn| turn.started_at >= held.since).any(|turn| turn.status == values::TURN_COMPLETED)
}

/// Whether a queue has been held for less than a second.
fn is_recent(since: &Timestamp) -> bool {
    since.time().is_some_and(|since| jiff::Timestamp::now().duration_since(since).as_secs() < 1)
}

/// The events of a hold, none when the same hold is recorded already.
pub(in crate::daemon) fn hold_once(state: &State, thread_id: &ThreadId, held: &Held) -> Vec<NewEvent> {
    let is_known = held_in(state, thread_id).is_some_and(|known| {
        (known.cause, &known.reason, &known.queue_id) == (held.cause, &held.reason, &held.queue_id)
    });
    if is_known { Vec::new() } else { hold_queue(state, thread_id, held) }
}

/// The events that hold the queue of a thread: one for each session whose turns wait in it.
fn hold_queue(state: &State, thread_id: &ThreadId, held: &Held) -> Vec<NewEvent> {
    let sessions = state.sessions.active_in_thread(thread_id);
    let waiting = |session: &Session| state.private.queue(&session.session_id).count();
    let held = |session: &Arc<Session>| match waiting(session) {
        0 => None,
        waiting => Some(events::session_held(session, waiting, held)),
    };
    sessions.filter_map(held).collect()
}

/// The holds and releases that are recorded before a notification of the app-server that causes them.
///
/// They come first because a queue continues as soon as its thread is idle, and the failed turn makes it idle.
pub(in crate::daemon) fn hold_changes_before(
    method: &str,
    params: &str,
) -> Option<impl FnOnce(&State) -> Vec<NewEvent> + Send + use<>> {
    let failed = match method {
        notifications::ERROR | notifications::TURN_COMPLETED => {
            let LastError { thread_id, turn_id, error } = LastError::read(params)?;
            HoldCause::of_error(&error)?;
            Some((thread_id, turn_id, error))
        }
        notifications::ACCOUNT_UPDATED if notifications::has_account(params) => None,
        _ => return None,
    };
    Some(move |state: &State| match failed {
        Some((thread_id, turn_id, error)) => holds_after_failure(state, &thread_id, turn_id.as_ref(), &error),
        None => {
            let refused = |session: &&Arc<Session>| {
                session.held.as_ref().is_some_and(|held| held.cause == HoldCause::Unauthorized)
            };
            let sessions = state.sessions.iter().filter(refused);
            let why = "The app-server has a new login.";
            sessions.map(|session| events::session_released(session, why)).collect()
        }
    })
}

/// The holds before the end of a turn that failed with this error, in the app-server's form; none if the error has no
/// meaning for the turns after it.
pub(in crate::daemon) fn holds_after_failure(
    state: &State,
    thread_id: &ThreadId,
    turn_id: Option<&TurnId>,
    error: &Value,
) -> Vec<NewEvent> {
    let Some(cause) = HoldCause::of_error(error) else { return Vec::new() };
    let message = error["message"].as_str().unwrap_or("the app-server gave no reason");
    if is_account_limit(error) {
        return usage_limit::reached(state, thread_id, turn_id, message, &Zoned::now());
    }
    if held_in(state, thread_id).is_some() {
        return Vec::new();
    }
    let held = Held {
        cause,
        reason: format!("The turn before them failed: {message}"),
        since: rfc3339_now(),
        until: None,
        automatic: false,
        queue_id: None,
        turn_id: turn_id.cloned(),
    };
    hold_queue(state, thread_id, &held)
}
