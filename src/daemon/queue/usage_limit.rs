//! Queues at a usage limit: what is recorded when a turn reaches one, and which turn is tried when it should have ended.
//!
//! Everything here is a function of the records and the time. A limit holds for all sessions of its model provider: when
//! its end has come, one queued turn of all of them is tried, and the others start only after it has completed. So at most
//! one turn is lost to a limit that lasts longer than expected, and after [`MAX_TRIALS`] of them codexd stops trying.

use std::sync::Arc;
use std::time::Duration;

use jiff::Zoned;
use serde_json::Map;

use crate::codex::protocol::{items, usage_limits};
use crate::daemon::events;
use crate::ids::{SessionId, ThreadId, TurnId};
use crate::state::{
    Held, HoldCause, NewEvent, OnUsageLimit, Phase, QueuedTurn, Session, SessionEvent, State, TurnEvent,
    UsageLimit, provider_of,
};
use crate::timestamp::Timestamp;

/// How many turns in a row may be tried and reach the limit again.
const MAX_TRIALS: u32 = 5;
/// When a turn is tried if Codex reports no end of the limit; it doubles with each trial.
const FIRST_DELAY: Duration = Duration::from_secs(15 * 60);
/// The longest of these delays; all of them together are longer than the five hours of Codex's shorter window.
const MAX_DELAY: Duration = Duration::from_secs(4 * 60 * 60);
/// The input of a turn that continues one that reached the limit.
const CONTINUE_TEXT: &str =
    "Continue: your last turn was cut off by the usage limit, which has been reset since.";

/// The events before the end of a turn that failed because of the usage limit; none when they are recorded already.
pub(super) fn reached(
    state: &State,
    thread_id: &ThreadId,
    turn_id: Option<&TurnId>,
    message: &str,
    now: &Zoned,
) -> Vec<NewEvent> {
    let turn = turn_id.and_then(|turn_id| state.turns.get(thread_id, turn_id));
    let Some(turn) = turn.filter(|turn| turn.phase != Phase::Ended) else { return Vec::new() };
    let Some(session) = state.session_for(turn) else { return Vec::new() };
    let before = state.usage_limit_of(session);
    let is_repeated = before.is_some_and(|before| before.turn_id.as_ref() == Some(&turn.turn_id));
    if is_repeated || before.is_none() && turn.on_usage_limit == OnUsageLimit::Fail {
        return Vec::new();
    }
    let trial = before.and_then(|before| before.trial.as_ref());
    let was_trial = trial.is_some_and(|trial| trial.turn_id.as_ref() == Some(&turn.turn_id));
    let failed_trials = before.map_or(0, |before| before.failed_trials + u32::from(was_trial));
    let reported = usage_limits::reset(state.daemon.account.rate_limits.as_ref(), message, now);
    let delay = FIRST_DELAY.saturating_mul(1 << failed_trials.min(10)).min(MAX_DELAY);
    let until = reported.or_else(|| now.timestamp().checked_add(delay).ok()).unwrap_or(jiff::Timestamp::MAX);
    let limit = UsageLimit {
        since_seq: 0,
        turn_id: Some(turn.turn_id.clone()),
        reason: reason(message, reported.is_some(), failed_trials),
        until: until.into(),
        is_reported: reported.is_some(),
        failed_trials,
        trial: None,
    };
    let mut new_events = vec![
        SessionEvent::UsageLimitReached {
            session_id: session.session_id.clone(),
            thread_id: Some(thread_id.clone()),
            turn_id: limit.turn_id.clone(),
            model_provider: provider_of(session).to_owned(),
            reason: limit.reason.clone(),
            until: limit.until.clone(),
            is_reported: limit.is_reported,
            failed_trials,
        }
        .into(),
    ];
    let at = Timestamp::from(now.timestamp());
    let continues = turn.on_usage_limit == OnUsageLimit::Continue && failed_trials < MAX_TRIALS;
    if continues {
        new_events.push(continuation(state, session, thread_id, &turn.turn_id, at.clone()));
    }
    let is_held = state.sessions.active_in_thread(thread_id).any(|session| session.held.is_some());
    if !is_held && (continues || state.next_due(thread_id, &at).is_some()) {
        let continued = continues.then_some(&session.session_id);
        new_events.extend(hold(state, thread_id, &held_by(&limit, &at), continued));
    }
    new_events
}

/// Why turns wait, as sentences.
fn reason(message: &str, is_reported: bool, failed_trials: u32) -> String {
    let mut reason = format!("A turn reached the usage limit: {message}");
    if !reason.ends_with('.') {
        reason.push('.');
    }
    if failed_trials >= MAX_TRIALS {
        reason.push_str(&format!(" {MAX_TRIALS} turns in a row were tried since, so codexd tries no other."));
    } else if !is_reported {
        reason.push_str(
            " Codex reports no time at which it ends, so a turn is tried after a delay that grows from 15 minutes to 4 \
             hours.",
        );
    }
    reason
}

/// The new turn that asks Codex to continue; its ID follows from the turn, so that there is one.
fn continuation(
    state: &State,
    session: &Session,
    thread_id: &ThreadId,
    turn_id: &TurnId,
    at: Timestamp,
) -> NewEvent {
    let queue_id = format!("queued-continue-{turn_id}");
    let turn = QueuedTurn {
        queue_id: queue_id.clone(),
        queued_at: at,
        input: vec![items::text_input(CONTINUE_TEXT)],
        // Those of the turn before apply to the thread.
        settings: Map::new(),
        submitted: false,
        order: 0,
        not_before: None,
        on_usage_limit: OnUsageLimit::Continue,
        continues: Some(turn_id.clone()),
    };
    TurnEvent::Queued {
        session_id: session.session_id.clone(),
        thread_id: Some(thread_id.clone()),
        queue_id,
        position: state.queue_of(thread_id).take_while(|(_, turn)| turn.order == 0).count() + 1,
        turn: Box::new(turn),
        idempotency: None,
    }
    .into()
}

/// What is shown of a limit in the sessions whose turns wait for it.
fn held_by(limit: &UsageLimit, now: &Timestamp) -> Held {
    Held {
        cause: HoldCause::UsageLimit,
        reason: limit.reason.clone(),
        since: now.clone(),
        until: (limit.failed_trials < MAX_TRIALS).then(|| limit.until.clone()),
        automatic: true,
        queue_id: None,
        turn_id: limit.turn_id.clone(),
    }
}

/// The hold of a thread's queue: one event for each session with turns in it; `also` is one that gets its first turn.
fn hold(state: &State, thread_id: &ThreadId, held: &Held, also: Option<&SessionId>) -> Vec<NewEvent> {
    let waiting = |session: &Arc<Session>| {
        let waiting = state.private.queue(&session.session_id).count();
        waiting + usize::from(also == Some(&session.session_id))
    };
    let sessions = state.sessions.active_in_thread(thread_id).map(|session| (session, waiting(session)));
    let sessions = sessions.filter(|(_, waiting)| *waiting > 0);
    sessions.map(|(session, waiting)| events::session_held(session, waiting, held)).collect()
}

/// The hold of a queue by a usage limit that codexd lifts by itself, if there is one.
fn hold_of<'a>(state: &'a State, thread_id: &ThreadId) -> Option<(&'a Arc<Session>, &'a Held)> {
    let sessions = state.sessions.active_in_thread(thread_id);
    let mut held = sessions.filter_map(|session| Some((session, session.held.as_deref()?)));
    held.next().filter(|(_, held)| held.cause == HoldCause::UsageLimit && held.automatic)
}

/// Whether a queued turn must wait, because a usage limit is known and another turn is tried first.
///
/// What holds a queue for another reason is tried by its own rules, and once the limit should have ended its turn may show
/// that: no other one can while it is the only one.
fn is_blocked(state: &State, session_id: &SessionId, turn: &QueuedTurn, now: &Timestamp) -> bool {
    let Some(session) = state.sessions.get(session_id) else { return false };
    let Some(limit) = state.usage_limit_of(session) else { return false };
    if let Some(trial) = state.trial_under_way(limit) {
        return trial.queue_id != turn.queue_id;
    }
    let is_held_otherwise = session.held.as_ref().is_some_and(|held| held.cause != HoldCause::UsageLimit);
    !is_held_otherwise || limit.until > *now
}

/// The turn of a thread that may start now: the one that is tried, or the first one that is due.
pub(in crate::daemon) fn next_to_start<'a>(
    state: &'a State,
    thread_id: &ThreadId,
    now: &Timestamp,
) -> Option<(&'a SessionId, &'a QueuedTurn)> {
    let mut trials = state.private.usage_limits.values().filter_map(|limit| state.trial_under_way(limit));
    let trial = trials.find(|trial| trial.thread_id == *thread_id && trial.turn_id.is_none());
    let tried =
        trial.and_then(|trial| state.queue_of(thread_id).find(|(_, turn)| turn.queue_id == trial.queue_id));
    let next = tried.or_else(|| state.next_due(thread_id, now));
    next.filter(|(session_id, turn)| !is_blocked(state, session_id, turn, now))
}

/// Whether a turn that may wait is queued also in an idle thread, because a usage limit is known and codexd tries a queued
/// turn by itself when it should have ended.
pub(in crate::daemon) fn queues_new_turns(state: &State, session: &Session) -> bool {
    state.usage_limit_of(session).is_some_and(|limit| limit.failed_trials < MAX_TRIALS)
}

/// The holds and releases that the records lack.
pub(in crate::daemon) fn changes(state: &State, now: &Timestamp) -> Vec<NewEvent> {
    let mut new_events = Vec::new();
    for thread_id in state.queued_threads() {
        let next = state.next_due(thread_id, now);
        let Some((session, held)) = hold_of(state, thread_id) else {
            let mut sessions = state.sessions.active_in_thread(thread_id);
            let is_free =
                state.turns.running(thread_id).is_none() && sessions.all(|session| session.held.is_none());
            if is_free
                && let Some((session_id, turn)) = next
                && next_to_start(state, thread_id, now).is_none()
                && is_blocked(state, session_id, turn, now)
                && let Some(limit) =
                    state.sessions.get(session_id).and_then(|session| state.usage_limit_of(session))
            {
                new_events.extend(hold(state, thread_id, &held_by(limit, now), None));
            }
            continue;
        };
        match state.usage_limit_of(session) {
            None => {
                let why = "A turn has completed since, so the usage limit has ended.";
                new_events.extend(events::released(state, thread_id, why));
            }
            Some(_) if next.is_none() => {
                new_events.extend(events::released(state, thread_id, "No turn is due in it."));
            }
            Some(limit) => {
                let now_held = held_by(limit, now);
                if (&held.reason, &held.until) != (&now_held.reason, &now_held.until) {
                    new_events.extend(hold(state, thread_id, &now_held, None));
                }
            }
        }
    }
    new_events
}

/// The queued turn to try of all those that wait for the limit of a model provider: the first one of the idle threads.
fn candidate<'a>(
    state: &'a State,
    provider: &str,
    now: &Timestamp,
) -> Option<(&'a ThreadId, &'a SessionId, &'a QueuedTurn)> {
    let idle = state.queued_threads().into_iter().filter(|thread_id| {
        let mut held = state.sessions.active_in_thread(thread_id).filter_map(|session| session.held.as_ref());
        state.turns.running(thread_id).is_none() && held.all(|held| held.cause == HoldCause::UsageLimit)
    });
    let due = idle.filter_map(|thread_id| {
        let (session_id, turn) = state.next_due(thread_id, now)?;
        let session = state.sessions.get(session_id)?;
        (provider_of(session) == provider).then_some((thread_id, session_id, turn))
    });
    due.min_by(|(.., a), (.., b)| (a.order, &a.queued_at).cmp(&(b.order, &b.queued_at)))
}

/// What is to be done about the limits at one time: the providers of which a turn can be tried now, with its thread, and when
/// the next one can.
pub(super) fn trials(state: &State, now: &Timestamp) -> (Vec<(String, ThreadId)>, Option<Timestamp>) {
    let (mut ready, mut next) = (Vec::new(), None);
    for (provider, limit) in &state.private.usage_limits {
        let is_open = limit.failed_trials < MAX_TRIALS && state.trial_under_way(limit).is_none();
        let Some((thread_id, ..)) = candidate(state, provider, now).filter(|_| is_open) else { continue };
        match limit.until <= *now {
            true => ready.push((provider.clone(), thread_id.clone())),
            false => next = next.into_iter().chain([limit.until.clone()]).min(),
        }
    }
    (ready, next)
}

/// The trial of the first turn that waits for the limit of a provider; none when it is too early, or one is under way.
pub(in crate::daemon) fn trial(state: &State, provider: &str, now: &Timestamp) -> Vec<NewEvent> {
    let limit = state.private.usage_limits.get(provider).filter(|limit| limit.until <= *now);
    let Some(limit) = limit.filter(|limit| limit.failed_trials < MAX_TRIALS) else { return Vec::new() };
    if state.trial_under_way(limit).is_some() {
        return Vec::new();
    }
    let Some((thread_id, session_id, turn)) = candidate(state, provider, now) else { return Vec::new() };
    let trial = SessionEvent::UsageLimitTrial {
        session_id: session_id.clone(),
        thread_id: thread_id.clone(),
        queue_id: turn.queue_id.clone(),
        model_provider: provider.to_owned(),
        is_requested: false,
    };
    let why = "Its first turn is tried, because the usage limit should have ended.";
    events::released(state, thread_id, why).into_iter().chain([trial.into()]).collect()
}

/// The trial of the next turn of a thread at a client's request; none when no limit is known.
pub(super) fn requested_trial(state: &State, thread_id: &ThreadId, now: &Timestamp) -> Option<NewEvent> {
    let (session_id, turn) = state.next_due(thread_id, now)?;
    let session = state.sessions.get(session_id)?;
    state.usage_limit_of(session)?;
    let trial = SessionEvent::UsageLimitTrial {
        session_id: session_id.clone(),
        thread_id: thread_id.clone(),
        queue_id: turn.queue_id.clone(),
        model_provider: provider_of(session).to_owned(),
        is_requested: true,
    };
    Some(trial.into())
}

/// The event that a limit ends later, as the app-server reports; none when it is over, or a turn is tried already.
pub(in crate::daemon) fn postponed(state: &State, provider: &str, until: Timestamp) -> Vec<NewEvent> {
    let limit = state.private.usage_limits.get(provider).filter(|limit| limit.until < until);
    let Some(limit) = limit.filter(|limit| state.trial_under_way(limit).is_none()) else { return Vec::new() };
    let session = state.sessions.iter().find(|session| provider_of(session) == provider);
    let Some(session) = session else { return Vec::new() };
    let reached = SessionEvent::UsageLimitReached {
        session_id: session.session_id.clone(),
        thread_id: session.thread_id.clone(),
        turn_id: None,
        model_provider: provider.to_owned(),
        reason: "The app-server reports that the usage limit is still reached.".to_owned(),
        until,
        is_reported: true,
        failed_trials: limit.failed_trials,
    };
    vec![reached.into()]
}
