//! Events that are made from several records, or from values of other layers. Services make all others themselves.

mod held;
mod trust;

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::codex::protocol::thread_changes::ThreadSettings;
use crate::codex::{Closed, Outline, RestartScheduled};
use crate::config::{Config, MODE};
use crate::ids::{SessionId, ThreadId};
use crate::journal::{Damage, Recovered};
use crate::state::{
    ChildEvent, DaemonEvent, EventDetail, IdempotencyKey, LogDamage, MissingTurn, NewEvent, RequestEvent,
    RequestPolicy, Resolution, ResolvedBy, RestartSchedule, ServerRequest, Session, SessionEvent,
    SessionOpened, State, Turn, TurnEvent,
};

pub(crate) use held::{
    accepted_with_release, hold_of_new_queue, released, releases_after_removal, session_held,
    session_released,
};
pub(crate) use trust::{session_trust, session_trust_if_notable};

pub(crate) fn daemon_started(config: &Config, daemon_id: &str) -> DaemonEvent {
    let server = &config.server;
    DaemonEvent::Started {
        mode: MODE.to_owned(),
        endpoint: server.endpoint.to_string(),
        local_api_base: config.service.local_api_base.as_str().to_owned(),
        strategy: server.strategy.as_str().to_owned(),
        pid: Some(std::process::id()),
        daemon_id: daemon_id.to_owned(),
    }
}

/// The title of a thread, or whether it is archived, in the sessions in which it is another one.
pub(crate) fn session_updated(
    state: &State,
    thread_id: &ThreadId,
    title: Option<&str>,
    archived: Option<bool>,
) -> Vec<NewEvent> {
    let changed = state.sessions.in_thread(thread_id).filter_map(|session| {
        let title = title.filter(|title| session.title.as_deref() != Some(title)).map(str::to_owned);
        let archived = archived.filter(|archived| session.archived != *archived);
        let is_change = title.is_some() || archived.is_some();
        is_change.then(|| {
            let (session_id, thread_id) = (session.session_id.clone(), session.thread_id.clone());
            SessionEvent::Updated {
                session_id,
                thread_id,
                title,
                archived,
                metadata: None,
                model: None,
                reasoning_effort: None,
                service_tier: None,
            }
            .into()
        })
    });
    changed.collect()
}

/// The settings of a thread, in the sessions in which they are others; one that is `None` leaves the record as it is.
pub(crate) fn settings_changed(
    state: &State,
    thread_id: &ThreadId,
    settings: &ThreadSettings,
) -> Vec<NewEvent> {
    let ThreadSettings { model, effort, service_tier } = settings;
    let other = |new: Option<&String>, known: &Option<Arc<str>>| {
        new.filter(|new| known.as_deref() != Some(new.as_str())).cloned()
    };
    let changed = state.sessions.in_thread(thread_id).filter_map(|session| {
        let model = other(Some(model), &session.model);
        let reasoning_effort = other(effort.as_ref(), &session.reasoning_effort);
        let service_tier = other(service_tier.as_ref(), &session.service_tier);
        let is_change = model.is_some() || reasoning_effort.is_some() || service_tier.is_some();
        is_change.then(|| {
            SessionEvent::Updated {
                session_id: session.session_id.clone(),
                thread_id: session.thread_id.clone(),
                title: None,
                archived: None,
                metadata: None,
                model,
                reasoning_effort,
                service_tier,
            }
            .into()
        })
    });
    changed.collect()
}

/// A server request is resolved; `request` is its record before that.
pub(crate) fn request_resolved(request: Option<&ServerRequest>, resolution: &Resolution) -> NewEvent {
    let Resolution { request_id, resolved_by, decision, reason } = resolution.clone();
    RequestEvent::Resolved {
        request_id,
        resolved_by,
        decision,
        reason,
        session_id: request.map(|request| request.session_id.clone()),
        thread_id: request.map(|request| request.thread_id.clone()),
        turn_id: request.map(|request| request.turn_id.clone()),
        root_turn_id: request.map(|request| request.root_turn_id.clone()),
    }
    .into()
}

/// The end of a connection, and of every turn and request on it, unless the app-server may go on with them.
///
/// An expected end that cut nothing off gives no event.
pub(crate) fn closed(state: &State, closed: &Closed) -> Vec<NewEvent> {
    let missing = if closed.app_server_outlives_it { Vec::new() } else { cut_off(state, closed, None) };
    if closed.expected && missing.is_empty() {
        return missing;
    }
    let exit = closed.exit.as_ref();
    let transport_closed = ChildEvent::TransportClosed {
        message: closed.message.clone(),
        exit_code: exit.and_then(|exit| exit.code),
        flushed_trailing_message: closed.flushed_trailing_message,
        signal: exit.and_then(|exit| exit.signal.clone()),
        source: closed.source.to_owned(),
        trailing_message_length: closed.trailing_message_length,
    };
    std::iter::once(transport_closed.into()).chain(missing).collect()
}

/// The end of every request and turn, or of those of one thread, because the connection that they were on ended.
pub(crate) fn cut_off(state: &State, closed: &Closed, thread_id: Option<&ThreadId>) -> Vec<NewEvent> {
    let is_selected = |other: Option<&ThreadId>| {
        thread_id.is_none_or(|thread_id| other.is_some_and(|other| other == thread_id))
    };
    let requests = state.requests.pending().filter(|request| is_selected(request.thread_id.as_ref()));
    let requests = requests.map(|request| request_cut_off(request));
    let turns = state.turns.open().filter(|turn| is_selected(Some(&turn.thread_id)));
    let turns = turns.filter_map(|turn| turn_missing(state, turn, closed));
    requests.chain(turns).collect()
}

/// A request is over, because the connection on which it arrived has closed.
pub(crate) fn request_cut_off(request: &ServerRequest) -> NewEvent {
    let resolution = Resolution {
        request_id: request.request_id.clone(),
        resolved_by: ResolvedBy::ConnectionClosed,
        decision: None,
        reason: Some("The connection on which it arrived has closed.".to_owned()),
    };
    request_resolved(Some(request), &resolution)
}

/// A turn was cut off by the end of its connection.
fn turn_missing(state: &State, turn: &Turn, closed: &Closed) -> Option<NewEvent> {
    let session = state.session_for(turn)?;
    let child = &state.daemon.child;
    let exit = closed.exit.as_ref();
    let missing = MissingTurn {
        child_exit_code: exit.and_then(|exit| exit.code).or(child.exit_code),
        child_pid: child.pid,
        child_signal: exit.and_then(|exit| exit.signal.as_ref()).or(child.signal.as_ref()).cloned(),
        child_status: child.status,
        failure_class: "transport_closed_before_turn_completed".to_owned(),
        flushed_trailing_message: closed.flushed_trailing_message,
        session_id: session.session_id.clone(),
        thread_id: Some(turn.thread_id.clone()),
        trailing_message_length: closed.trailing_message_length,
        transport_close_message: closed.message.clone(),
        transport_close_source: closed.source.to_owned(),
        turn_id: turn.turn_id.clone(),
        turn_status_at_close: Some(turn.status.to_string()),
    };
    Some(TurnEvent::Missing(Box::new(missing)).into())
}

/// The end of the connection of the previous run of the daemon, as far as it is known.
pub(crate) fn closed_by_restart() -> Closed {
    Closed {
        source: "daemon.restart",
        message: "codexd was started again".to_owned(),
        flushed_trailing_message: false,
        trailing_message_length: 0,
        exit: None,
        expected: true,
        app_server_outlives_it: false,
    }
}

/// The app-server is started again after a delay.
pub(crate) fn restart_scheduled(scheduled: RestartScheduled) -> ChildEvent {
    let RestartScheduled { delay, until, failures, crash_loop, reason, exit, stderr_tail } = scheduled;
    let (exit_code, signal) = exit.map_or((None, None), |exit| (exit.code, exit.signal));
    let schedule = Box::new(RestartSchedule {
        delay_seconds: delay.as_secs_f32(),
        delay_ms: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
        until: Some(until.into()),
        deaths: failures.into(),
        cause: Some(reason),
        exit_code,
        signal,
        stderr_tail,
    });
    if crash_loop { ChildEvent::CrashLoop(schedule) } else { ChildEvent::Backoff(schedule) }
}

/// A message exceeded the size limit and was skipped.
pub(crate) fn message_skipped(bytes: usize, cap: usize, outline: &Outline, is_refused: bool) -> ChildEvent {
    let reason = format!("it is longer than {cap} bytes (--line-cap) and was skipped");
    let what = match (outline.method.as_deref(), &outline.id) {
        (Some(method), Some(_)) => format!("request {method}"),
        (Some(method), None) => format!("notification {method}"),
        (None, Some(_)) => "response".to_owned(),
        (None, None) => "message".to_owned(),
    };
    let then = if is_refused { "; the request is refused" } else { "" };
    ChildEvent::MessageInvalid {
        message: format!(", {what}: {reason}{then}"),
        bytes,
        reason,
        method: Some(outline.method.clone()),
        is_request: Some(outline.method.is_some() && outline.id.is_some()),
        thread_id: Some(outline.thread_id.clone()),
        turn_id: Some(outline.turn_id.clone()),
        item_id: Some(outline.item_id.clone()),
    }
}

pub(crate) fn session_opened(
    session: &Session,
    resumed: bool,
    settings: Map<String, Value>,
    request_policy: RequestPolicy,
    trust: Option<bool>,
    idempotency: Option<IdempotencyKey>,
) -> NewEvent {
    let opened = Box::new(SessionOpened {
        purpose: session.purpose,
        session_id: session.session_id.clone(),
        thread_id: session.thread_id.clone(),
        session: session.into(),
        settings,
        request_policy,
        trust,
        idempotency,
    });
    if resumed { SessionEvent::Resumed(opened) } else { SessionEvent::Created(opened) }.into()
}

/// The end of a session and of its queued turns.
pub(crate) fn session_closed(state: &State, session_id: &SessionId, reason: Option<&str>) -> Vec<NewEvent> {
    let never_started = "the session was closed before it started.";
    let waiting = state.private.queue(session_id);
    let mut new_events: Vec<_> =
        waiting.map(|turn| turn_rejected(session_id, Some(&turn.queue_id), None, never_started)).collect();
    let names: Vec<_> = state.private.queue(session_id).map(|turn| turn.queue_id.as_str()).collect();
    new_events.extend(releases_after_removal(state, session_id, &names));
    let (session_id, reason) = (session_id.clone(), reason.map(str::to_owned));
    new_events.push(SessionEvent::Closed { session_id, reason }.into());
    new_events
}

/// A turn was not accepted.
pub(crate) fn turn_rejected(
    session_id: &SessionId,
    queue_id: Option<&str>,
    key: Option<&IdempotencyKey>,
    reason: &str,
) -> NewEvent {
    TurnEvent::Rejected {
        session_id: session_id.clone(),
        reason: reason.to_owned(),
        queue_id: queue_id.map(str::to_owned),
        idempotency_key: key.map(|key| key.key.clone()),
    }
    .into()
}

/// The end of a turn that was not received and was read from its thread.
pub(crate) fn turn_settled(session: &Session, turn: &Turn, status: &str, error: Option<&Value>) -> NewEvent {
    TurnEvent::Settled {
        session_id: session.session_id.clone(),
        thread_id: Some(turn.thread_id.clone()),
        turn_id: turn.turn_id.clone(),
        status: status.to_owned(),
        error: error.cloned(),
        completed_at: None,
    }
    .into()
}

/// The log can be written again.
pub(crate) fn storage_recovered(recovered: &Recovered) -> NewEvent {
    let (lost_from, lost_through) = recovered.lost.unzip();
    DaemonEvent::StorageRecovered { lost_from, lost_through }.into()
}

/// Lines in the middle of the log cannot be read.
pub(crate) fn log_damaged(damage: &[Damage]) -> NewEvent {
    let part = |damage: &Damage| LogDamage {
        file: damage.path.to_string_lossy().into_owned(),
        after_seq: damage.after,
        before_seq: damage.before,
        bytes: damage.bytes,
        missing_from: damage.missing.map(|missing| missing.from),
        missing_through: damage.missing.map(|missing| missing.through),
    };
    DaemonEvent::LogDamaged { damage: damage.iter().map(part).collect() }.into()
}

/// The types of all events.
pub fn event_types() -> impl Iterator<Item = &'static str> {
    EventDetail::types()
}
