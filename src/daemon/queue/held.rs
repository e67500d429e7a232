//! Queues that cannot go on: why, until when, and how they go on.
//!
//! A turn that was accepted into a queue is taken out of it by its own beginning or by a client's request, and by nothing
//! else. What keeps it from beginning is said in the session's record ([`Held`]) and by `session.held`; the end of that by
//! `session.released`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{Timestamp, Zoned};

use crate::codex::protocol::notifications::{self, LastError};
use crate::codex::protocol::{usage_limits, values};
use crate::daemon::core::Daemon;
use crate::daemon::error::DaemonError;
use crate::daemon::events;
use crate::daemon::status::SessionView;
use crate::daemon::turns::require_active;
use crate::state::{Held, HoldCause, NewEvent, Session, State};
use crate::time::rfc3339_now;

/// The first delay before a held queue is tried again; it doubles each time.
const MIN_RETRY_DELAY: Duration = Duration::from_secs(1);
/// The longest of these delays.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(60);

/// What keeps the first turn of a queue from beginning.
pub(in crate::daemon) enum StartFailure {
    /// It could not be tried, or its outcome is unknown: it is tried again soon, and the queue is not held.
    Transient(DaemonError),
    /// The queue is held.
    Hold(HoldCause, DaemonError),
}

impl StartFailure {
    /// What an error means that came while the thread was opened.
    pub(in crate::daemon) fn while_opening_thread(error: DaemonError) -> Self {
        match &error {
            DaemonError::ThreadLocked { .. } => StartFailure::Hold(HoldCause::ThreadLocked, error),
            DaemonError::ThreadUnavailable { .. } => StartFailure::Hold(HoldCause::ThreadUnavailable, error),
            _ => Self::hold_if_refused(HoldCause::ThreadUnavailable, error),
        }
    }

    /// What an error means that came while a turn was looked for, or while it was given to the app-server.
    pub(in crate::daemon) fn while_starting_turn(error: DaemonError) -> Self {
        match &error {
            DaemonError::OutcomeUnknown { .. } => StartFailure::Hold(HoldCause::OutcomeUnknown, error),
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

/// When the queues that are held are tried again, by their threads.
#[derive(Default)]
pub(in crate::daemon) struct Retries {
    threads: HashMap<String, Retry>,
}

struct Retry {
    /// Which generation of the app-server was tried.
    generation: u64,
    tries: u32,
    /// When it is tried again with the same generation; `None` when only another one can be of help.
    next: Option<Instant>,
}

impl Retries {
    /// Whether the queue of an idle thread is to be tried now, which then counts as a try.
    pub(in crate::daemon) fn is_due(&mut self, state: &State, thread_id: &str, generation: u64) -> bool {
        let Some(held) = held_in(state, thread_id) else {
            self.threads.remove(thread_id);
            return true;
        };
        if held.cause.is_failed_turn() {
            return is_over(state, thread_id, held);
        }
        let automatic = held.cause.is_temporary();
        let retry = self.threads.entry(thread_id.to_owned()).or_insert_with(|| Retry {
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
        // One that is due already waits for something else: for its thread to be idle, or for an app-server.
        let now = Instant::now();
        self.threads.values().filter_map(|retry| retry.next).filter(|next| *next > now).min()
    }

    /// Forgets all threads but these.
    pub(in crate::daemon) fn keep(&mut self, threads: &BTreeSet<&str>) {
        self.threads.retain(|thread_id, _| threads.contains(thread_id.as_str()));
    }
}

/// What holds the queue of a thread.
fn held_in<'a>(state: &'a State, thread_id: &str) -> Option<&'a Held> {
    state.sessions.active_in_thread(thread_id).find_map(|session| session.held.as_ref())
}

/// Whether a later turn of the thread shows that what made one fail is gone.
fn is_over(state: &State, thread_id: &str, held: &Held) -> bool {
    let later = state.turns.of(thread_id).take_while(|turn| Some(&turn.turn_id) != held.turn_id.as_ref());
    later.filter(|turn| turn.started_at >= held.since).any(|turn| turn.status == values::TURN_COMPLETED)
}

/// Whether a queue has been held for less than a moment.
fn is_recent(since: &str) -> bool {
    let since: Option<Timestamp> = since.parse().ok();
    since.is_some_and(|since| Timestamp::now().duration_since(since).as_secs() < 1)
}

impl Daemon {
    /// Records why a thread's queue does not go on, unless that is known.
    pub(in crate::daemon) async fn hold(
        &self,
        thread_id: &str,
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
        let thread_id = thread_id.to_owned();
        self.record_durably(move |state| {
            let is_known = held_in(state, &thread_id).is_some_and(|known| {
                (known.cause, &known.reason, &known.queue_id) == (held.cause, &held.reason, &held.queue_id)
            });
            if is_known { Vec::new() } else { hold_queue(state, &thread_id, &held) }
        })
        .await
    }

    /// Lets the turns that wait in a session's thread begin again, because a client asks for it.
    ///
    /// The thread is opened first, so that a cause that is still there is the answer and the queue stays held.
    pub async fn resume_queue(&self, session_id: &str) -> Result<SessionView, DaemonError> {
        require_active(self.session(session_id)?)?;
        let (daemon, name) = (self.clone(), session_id.to_owned());
        self.run(async move {
            let (_thread_lock, session) = daemon.lock_session_thread(&name).await?;
            let session = require_active(session)?;
            if session.held.is_none() {
                return Ok(());
            }
            let client = daemon.wait_for_client().await?;
            let session = daemon.attach(&client, session).await?;
            let thread_id = session.thread_id.clone().unwrap_or_default();
            daemon
                .record_durably(move |state| events::released(state, &thread_id, "A client asked for it."))
                .await
        })
        .await?;
        self.session_view(session_id)
    }
}

/// The events that hold the queue of a thread: one for each session whose turns wait in it.
fn hold_queue(state: &State, thread_id: &str, held: &Held) -> Vec<NewEvent> {
    let sessions = state.sessions.active_in_thread(thread_id);
    let waiting = |session: &Session| state.private.queue(&session.session_id).count();
    let held = |session: &Arc<Session>| match waiting(session) {
        0 => None,
        waiting => Some(events::session_held(session, waiting, held)),
    };
    sessions.filter_map(held).collect()
}

/// What is recorded before a notification of the app-server because it holds or releases queues.
///
/// Before, because a queue goes on as soon as its thread is idle, and the turn that failed makes it idle.
pub(in crate::daemon) fn hold_changes_before(
    method: &str,
    params: &str,
) -> Option<impl FnOnce(&State) -> Vec<NewEvent> + Send + use<>> {
    let failed = match method {
        notifications::ERROR | notifications::TURN_COMPLETED => {
            let LastError { thread_id, turn_id, error } = LastError::read(params)?;
            Some((thread_id, turn_id, HoldCause::of_error(&error)?, error))
        }
        notifications::ACCOUNT_UPDATED if notifications::has_account(params) => None,
        _ => return None,
    };
    Some(move |state: &State| match failed {
        Some((thread_id, turn_id, cause, error)) => {
            if held_in(state, &thread_id).is_some() {
                return Vec::new();
            }
            let message = error["message"].as_str().unwrap_or("the app-server did not say why");
            let limits = state.daemon.account.rate_limits.as_ref();
            let reset = || usage_limits::reset(limits, message, &Zoned::now());
            let until = (cause == HoldCause::UsageLimit).then(reset).flatten();
            let held = Held {
                cause,
                reason: format!("The turn before them failed: {message}"),
                since: rfc3339_now(),
                until: until.map(|until| format!("{until:.3}")),
                automatic: false,
                queue_id: None,
                turn_id,
            };
            hold_queue(state, &thread_id, &held)
        }
        None => {
            let refused = |session: &&Arc<Session>| {
                session.held.as_ref().is_some_and(|held| held.cause == HoldCause::Unauthorized)
            };
            let sessions = state.sessions.iter().filter(refused);
            let why = "The app-server is logged in anew.";
            sessions.map(|session| events::session_released(session, why)).collect()
        }
    })
}
