//! Constructors of the daemon's events; types, messages and details follow the contract.

mod child;
mod detail;
mod held;
mod trust;
mod turns;

use serde_json::{Map, Value, json};

use crate::codex::Closed;
use crate::config::{Config, MODE};
use crate::journal::{Damage, Notice, Recovered};
use crate::state::{
    IdempotencyKey, Level, NewEvent, RequestPolicy, Resolution, ResolvedBy, ServerRequest, Session, State,
    event_type,
};

use detail::add;
pub(crate) use detail::preview;
use turns::turn_missing;
pub(crate) use turns::{
    turn_accepted, turn_found, turn_item_read, turn_queued, turn_rejected, turn_settled, turn_stalled,
    turn_submitted,
};

pub(crate) use child::{
    app_server_restarting, child_error, child_exited, child_external, child_kill_failed, child_spawn_failed,
    child_started, child_stderr, close_failed, codex_state, connect_failed, connected, invalid_message,
    mcp_server_failed, message_skipped, restart_scheduled,
};
pub(crate) use held::{
    accepted_with_release, hold_of_new_queue, released, releases_after_removal, session_held,
    session_released,
};
pub(crate) use trust::{session_trust, session_trust_if_notable};

pub(crate) fn daemon_started(config: &Config, daemon_id: &str) -> NewEvent {
    let server = &config.server;
    NewEvent::with_state_change(
        Level::Info,
        event_type::DAEMON_STARTED,
        format!("codexd started in {MODE} mode."),
        json!({
            "endpoint": server.endpoint.to_string(),
            "localApiBase": config.service.local_api_base.as_str(),
            "strategy": server.strategy.as_str(),
            "pid": std::process::id(),
            "daemonId": daemon_id,
        }),
    )
}

pub(crate) fn daemon_stopped() -> NewEvent {
    NewEvent::with_state_change(Level::Info, event_type::DAEMON_STOPPED, "codexd stopped.", Value::Null)
}

pub(crate) fn request_refused(method: &str, params: &Value) -> NewEvent {
    NewEvent::without_state_change(
        Level::Warn,
        "app-server.request.refused",
        format!("Refused the app-server's request {method}: no client can answer it."),
        json!({
            "requestMethod": method,
            "threadId": params.get("threadId"),
            "turnId": params.get("turnId"),
            "itemId": params.get("itemId"),
        }),
    )
}

/// The app-server sent a request that a client can answer.
pub(crate) fn request_opened(request: &ServerRequest) -> NewEvent {
    NewEvent::with_state_change(
        Level::Warn,
        event_type::REQUEST_OPENED,
        format!("The app-server asks {}; answer request {}.", request.method, request.request_id),
        json!({
            "requestId": request.request_id,
            "sessionId": request.session_id,
            "threadId": request.thread_id,
            "turnId": request.turn_id,
            "rootTurnId": request.root_turn_id,
            "request": request,
        }),
    )
}

/// A server request is resolved; `request` is its record before that.
pub(crate) fn request_resolved(request: Option<&ServerRequest>, resolution: &Resolution) -> NewEvent {
    let mut detail = json!(resolution);
    if let Some(request) = request {
        detail["sessionId"] = json!(request.session_id);
        detail["threadId"] = json!(request.thread_id);
        detail["turnId"] = json!(request.turn_id);
        detail["rootTurnId"] = json!(request.root_turn_id);
    }
    let what = match (&resolution.decision, &resolution.reason) {
        (Some(decision), _) => format!("{decision}, by {}.", json!(resolution.resolved_by)),
        (None, Some(reason)) => reason.clone(),
        (None, None) => format!("by {}.", json!(resolution.resolved_by)),
    };
    let message = format!("Request {} is resolved: {what}", resolution.request_id);
    NewEvent::with_state_change(Level::Info, event_type::REQUEST_RESOLVED, message, detail)
}

/// The end of a connection, and of every turn and request on it.
///
/// An expected end that cut nothing off gives no event.
pub(crate) fn closed(state: &State, closed: &Closed) -> Vec<NewEvent> {
    let requests = state.requests.pending().map(|request| {
        let resolution = Resolution {
            request_id: request.request_id.clone(),
            resolved_by: ResolvedBy::ConnectionClosed,
            decision: None,
            reason: Some("The connection on which it arrived has closed.".to_owned()),
        };
        request_resolved(Some(request), &resolution)
    });
    let turns = state.turns.open().filter_map(|turn| turn_missing(state, turn, closed));
    let missing: Vec<NewEvent> = requests.chain(turns).collect();
    if closed.expected && missing.is_empty() {
        return missing;
    }
    let exit = closed.exit.as_ref();
    let transport_closed = NewEvent::with_state_change(
        Level::Warn,
        event_type::TRANSPORT_CLOSED,
        format!("App-server transport closed via {}: {}", closed.source, closed.message),
        json!({
            "exitCode": exit.and_then(|exit| exit.code),
            "flushedTrailingMessage": closed.flushed_trailing_message,
            "signal": exit.and_then(|exit| exit.signal.as_deref()),
            "source": closed.source,
            "trailingMessageLength": closed.trailing_message_length,
        }),
    );
    std::iter::once(transport_closed).chain(missing).collect()
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
    }
}

pub(crate) fn session_opened(
    session: &Session,
    resumed: bool,
    settings: &Map<String, Value>,
    policy: RequestPolicy,
    trust: Option<bool>,
    key: Option<&IdempotencyKey>,
) -> NewEvent {
    let (event_type, verb) = match resumed {
        true => (event_type::SESSION_RESUMED, "Resumed"),
        false => (event_type::SESSION_CREATED, "Created"),
    };
    let thread_id = session.thread_id.as_deref().unwrap_or_default();
    let mut detail = json!({
        "purpose": session.purpose,
        "sessionId": session.session_id,
        "threadId": session.thread_id,
        "session": session,
        "settings": settings,
        "requestPolicy": policy,
    });
    add(&mut detail, "trust", trust.as_ref());
    add(&mut detail, "idempotency", key);
    let message = format!("{verb} session {} for thread {thread_id}.", session.session_id);
    NewEvent::with_state_change(Level::Info, event_type, message, detail)
}

/// A session whose thread never had a turn has a new thread.
pub(crate) fn session_recreated(session: &Session, previous: Option<&str>) -> NewEvent {
    let thread_id = session.thread_id.as_deref().unwrap_or_default();
    NewEvent::with_state_change(
        Level::Info,
        event_type::SESSION_RECREATED,
        format!("Session {} has a new thread {thread_id}: the old one never had a turn.", session.session_id),
        json!({
            "purpose": session.purpose,
            "sessionId": session.session_id,
            "threadId": session.thread_id,
            "previousThreadId": previous,
            "session": session,
        }),
    )
}

/// The end of a session and of its queued turns.
pub(crate) fn session_closed(state: &State, session_id: &str, reason: Option<&str>) -> Vec<NewEvent> {
    let never_started = "the session was closed before it started.";
    let waiting = state.private.queue(session_id);
    let mut new_events: Vec<_> =
        waiting.map(|turn| turn_rejected(session_id, Some(&turn.queue_id), None, never_started)).collect();
    let names: Vec<_> = state.private.queue(session_id).map(|turn| turn.queue_id.as_str()).collect();
    new_events.extend(releases_after_removal(state, session_id, &names));
    let (level, message) = match reason {
        None => (Level::Info, format!("Closed session {session_id}.")),
        Some(reason) => (Level::Warn, format!("Closed session {session_id}: {reason}.")),
    };
    let mut detail = json!({ "sessionId": session_id });
    add(&mut detail, "reason", reason);
    new_events.push(NewEvent::with_state_change(level, event_type::SESSION_CLOSED, message, detail));
    new_events
}

pub(crate) fn session_forgotten(session: &Session) -> NewEvent {
    let session_id = &session.session_id;
    NewEvent::with_state_change(
        Level::Info,
        event_type::SESSION_FORGOTTEN,
        format!("Forgot session {session_id}, which was closed at {}.", session.updated_at),
        json!({ "sessionId": session_id, "threadId": session.thread_id }),
    )
}

/// A notice about the state files for the operator.
pub(crate) fn state_notice(message: String) -> NewEvent {
    NewEvent::without_state_change(Level::Warn, "state.recovered", message, Value::Null)
}

/// A notice about the event log for the operator.
pub(crate) fn log_notice(notice: Notice) -> NewEvent {
    let detail = notice
        .skipped
        .map_or(Value::Null, |(from, through)| json!({ "skippedFrom": from, "skippedThrough": through }));
    NewEvent::without_state_change(Level::Warn, "state.recovered", notice.message, detail)
}

/// The log cannot be written.
pub(crate) fn storage_failed(reason: &str) -> NewEvent {
    let message =
        format!("The event log cannot be written ({reason}); no new event is acknowledged until it can.");
    NewEvent::without_state_change(Level::Error, "storage.failed", message, json!({ "reason": reason }))
}

/// The log can be written again.
pub(crate) fn storage_recovered(recovered: &Recovered) -> NewEvent {
    let (message, level) = match recovered.lost {
        None => ("The event log can be written again; no events are missing.".to_owned(), Level::Info),
        Some((first, last)) => (
            format!("The event log can be written again; the events {first} to {last} are lost."),
            Level::Error,
        ),
    };
    let (first, last) = recovered.lost.unzip();
    NewEvent::without_state_change(
        level,
        "storage.recovered",
        message,
        json!({ "lostFrom": first, "lostThrough": last }),
    )
}

/// Lines in the middle of the log cannot be read.
pub(crate) fn log_damaged(damage: &[Damage]) -> NewEvent {
    let parts: Vec<Value> = damage
        .iter()
        .map(|damage| {
            json!({
                "file": damage.path.to_string_lossy(),
                "afterSeq": damage.after,
                "beforeSeq": damage.before,
                "bytes": damage.bytes,
                "missingFrom": damage.missing.map(|missing| missing.from),
                "missingThrough": damage.missing.map(|missing| missing.through),
            })
        })
        .collect();
    let between = |damage: &Damage| match damage.before {
        Some(before) => format!("between event {} and event {before}", damage.after),
        None => format!("after event {}", damage.after),
    };
    let places: Vec<_> = damage.iter().take(5).map(between).collect();
    let more = if damage.len() > places.len() { " and in more places" } else { "" };
    let message =
        format!("The event log is damaged {}{more}; the events that were there are lost.", places.join(", "));
    NewEvent::without_state_change(Level::Error, "log.damaged", message, json!({ "damage": parts }))
}
