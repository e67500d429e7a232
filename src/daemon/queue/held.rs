//! Queues that cannot go on: why, until when, and how they go on.
//!
//! A turn that was accepted into a queue is taken out of it by its own beginning or by a client's request, and by nothing
//! else. What keeps it from beginning is said in the session's record ([`Held`]) and by `session.held`; the end of that by
//! `session.released`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};
use serde::Deserialize;
use serde_json::Value;

use crate::daemon::recorder::now;
use crate::daemon::turns::require_active;
use crate::daemon::{Daemon, DaemonError, SessionView, events};
use crate::state::{AccountState, Draft, Held, HoldCause, Session, State};

/// How long a queue rests whose thread could not be opened; it doubles each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest of these rests.
const LAST_RETRY: Duration = Duration::from_secs(60);

/// What keeps the first turn of a queue from beginning.
pub(in crate::daemon) enum StartFailure {
    /// It could not be tried, or its outcome was not heard: it is tried again soon, and the queue is not held.
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
        if held.cause.is_a_failed_turn() {
            return is_over(state, thread_id, held);
        }
        let automatic = held.cause.ends_by_itself();
        let retry = self.threads.entry(thread_id.to_owned()).or_insert_with(|| Retry {
            // A queue that was held just now was tried with this generation.
            generation: if is_recent(&held.since) { generation } else { 0 },
            tries: 0,
            next: automatic.then(|| Instant::now() + FIRST_RETRY),
        });
        let is_due = retry.generation != generation || retry.next.is_some_and(|next| next <= Instant::now());
        if is_due {
            retry.tries = if retry.generation == generation { retry.tries + 1 } else { 0 };
            retry.generation = generation;
            let rest = FIRST_RETRY.saturating_mul(1 << retry.tries.min(10)).min(LAST_RETRY);
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
    later.filter(|turn| turn.started_at >= held.since).any(|turn| turn.status == "completed")
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
            since: now(),
            until: None,
            automatic: cause.ends_by_itself(),
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
            let (_alone, session) = daemon.lock_session_thread(&name).await?;
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
fn hold_queue(state: &State, thread_id: &str, held: &Held) -> Vec<Draft> {
    let sessions = state.sessions.active_in_thread(thread_id);
    let waiting = |session: &Session| state.memory.queue(&session.session_id).count();
    let held = |session: &Arc<Session>| match waiting(session) {
        0 => None,
        waiting => Some(events::session_held(session, waiting, held)),
    };
    sessions.filter_map(held).collect()
}

/// What a notification says about the end of a turn with an error.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Failure {
    thread_id: String,
    turn_id: Option<String>,
    /// Of `error`.
    #[serde(default)]
    will_retry: bool,
    /// Of `error`.
    error: Option<Value>,
    /// Of `turn/completed`.
    turn: Option<FailedTurn>,
}

#[derive(Deserialize)]
struct FailedTurn {
    id: String,
    error: Option<Value>,
}

/// What is recorded before a notification of the app-server because it holds or releases queues.
///
/// Before, because a queue goes on as soon as its thread is idle, and the turn that failed makes it idle.
pub(in crate::daemon) fn hold_changes_before(
    method: &str,
    params: &str,
) -> Option<impl FnOnce(&State) -> Vec<Draft> + Send + use<>> {
    let failed = match method {
        "error" | "turn/completed" => {
            // Most turns end without an error; only those that do not are read twice.
            memchr::memmem::find(params.as_bytes(), b"\"codexErrorInfo\"")?;
            let failure: Failure =
                serde_json::from_str(params).ok().filter(|failure: &Failure| !failure.will_retry)?;
            let (turn_id, error) = match failure.turn {
                Some(turn) => (Some(turn.id), turn.error?),
                None => (failure.turn_id, failure.error?),
            };
            Some((failure.thread_id, turn_id, HoldCause::of_error(&error)?, error))
        }
        "account/updated" => {
            let account: Value = serde_json::from_str(params).ok()?;
            account["authMode"].as_str()?;
            None
        }
        _ => return None,
    };
    Some(move |state: &State| match failed {
        Some((thread_id, turn_id, cause, error)) => {
            if held_in(state, &thread_id).is_some() {
                return Vec::new();
            }
            let message = error["message"].as_str().unwrap_or("the app-server did not say why");
            let until =
                (cause == HoldCause::UsageLimit).then(|| reset(&state.daemon.account, message)).flatten();
            let held = Held {
                cause,
                reason: format!("The turn before them failed: {message}"),
                since: now(),
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

/// When a usage limit ends: the latest reset of the windows that are used up, else what the error says.
fn reset(account: &AccountState, message: &str) -> Option<Timestamp> {
    let limits = account.rate_limits.as_ref();
    let windows = ["primary", "secondary"].iter().filter_map(|name| limits?.get(name));
    let used_up = windows.filter(|window| window["usedPercent"].as_f64().is_some_and(|used| used >= 100.0));
    let resets = used_up.filter_map(|window| Timestamp::from_second(window["resetsAt"].as_i64()?).ok());
    resets.filter(|reset| *reset > Timestamp::now()).max().or_else(|| reset_in_words(message, &Zoned::now()))
}

/// The time in "… try again at 4:29 PM." or "… try again at Nov 30th, 2026 4:29 PM.", which is in the local time zone
/// (codex 0.140.0 to 0.171.0).
///
/// Codex leaves the seconds out, so this is the end of that minute.
fn reset_in_words(message: &str, now: &Zoned) -> Option<Timestamp> {
    let (_, after) = message.split_once("try again at ")?;
    let words: Vec<&str> = after.trim_end_matches('.').split_whitespace().collect();
    let (time, date) = match *words.as_slice() {
        [time, half, ..] if time.contains(':') => (clock(time, half)?, None),
        [month, day, year, time, half, ..] => (clock(time, half)?, Some(calendar(month, day, year)?)),
        _ => return None,
    };
    let zone: TimeZone = now.time_zone().clone();
    let at = |date: Date| date.to_datetime(time).to_zoned(zone.clone()).ok()?.checked_add(1.minute()).ok();
    let at = match date {
        Some(date) => at(date)?,
        None => at(now.date()).filter(|at| at > now).or_else(|| at(now.date().tomorrow().ok()?))?,
    };
    Some(at.timestamp())
}

fn clock(time: &str, half: &str) -> Option<Time> {
    let (hour, minute) = time.split_once(':')?;
    let hour: i8 = hour.parse().ok().filter(|hour| (1..=12).contains(hour))?;
    let afternoon = match half.trim_end_matches(|next: char| !next.is_ascii_alphabetic()) {
        "AM" => 0,
        "PM" => 12,
        _ => return None,
    };
    Time::new(hour % 12 + afternoon, minute.parse().ok()?, 0, 0).ok()
}

fn calendar(month: &str, day: &str, year: &str) -> Option<Date> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = MONTHS.iter().position(|known| *known == month)? + 1;
    let day = day.trim_end_matches(|next: char| !next.is_ascii_digit());
    Date::new(year.parse().ok()?, i8::try_from(month).ok()?, day.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_reset_of_a_usage_limit_is_read_from_the_limits_or_from_the_error() {
        let now: Zoned = "2026-11-28T15:29:30+01:00[+01:00]".parse().unwrap();
        for (words, until) in [
            ("try again at 4:29 PM.", Some("2026-11-28T15:30:00Z")),
            ("visit X to purchase more credits or try again at 12:05 AM.", Some("2026-11-28T23:06:00Z")),
            ("try again at 3:29 PM.", Some("2026-11-28T14:30:00Z")),
            ("try again at 3:10 PM.", Some("2026-11-29T14:11:00Z")),
            ("or try again at Nov 30th, 2026 4:29 PM.", Some("2026-11-30T15:30:00Z")),
            ("or try again at Dec 1st, 2026 9:00 AM", Some("2026-12-01T08:01:00Z")),
            ("try again later.", None),
            ("try again at noon.", None),
            ("try again at 25:00 PM.", None),
            ("try again at Foo 1st, 2026 9:00 AM", None),
            ("", None),
        ] {
            let until = until.map(|until| until.parse::<Timestamp>().unwrap());
            assert_eq!(reset_in_words(words, &now), until, "{words}");
        }
        let soon = Timestamp::now().as_second() + 600;
        let limits = json!({
            "primary": { "usedPercent": 100, "resetsAt": soon }, "secondary": { "usedPercent": 20, "resetsAt": soon + 1 }
        });
        let account = AccountState { rate_limits: Some(limits), ..AccountState::default() };
        assert_eq!(reset(&account, "").unwrap().as_second(), soon);
    }
}
