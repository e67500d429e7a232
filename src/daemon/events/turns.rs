//! The events of turns: submission, acceptance, rejection, queueing, and ends that the app-server did not report.

use std::time::Duration;

use serde_json::{Value, json};

use crate::codex::Closed;
use crate::daemon::events::detail::add;
use crate::state::{IdempotencyKey, Level, NewEvent, QueuedTurn, Session, State, Turn, event_type};

/// A turn was cut off by the end of its connection.
pub(in crate::daemon) fn turn_missing(state: &State, turn: &Turn, closed: &Closed) -> Option<NewEvent> {
    let session = state.session_for(turn)?;
    let turn_id = &turn.turn_id;
    let child = &state.daemon.child;
    let exit = closed.exit.as_ref();
    Some(NewEvent::with_state_change(
        Level::Error,
        event_type::TURN_MISSING,
        format!("App-server transport closed before turn {turn_id} completed."),
        json!({
            "childExitCode": exit.and_then(|exit| exit.code).or(child.exit_code),
            "childPid": child.pid,
            "childSignal": exit.and_then(|exit| exit.signal.as_ref()).or(child.signal.as_ref()),
            "childStatus": child.status,
            "failureClass": "transport_closed_before_turn_completed",
            "flushedTrailingMessage": closed.flushed_trailing_message,
            "sessionId": session.session_id,
            "threadId": turn.thread_id,
            "trailingMessageLength": closed.trailing_message_length,
            "transportCloseMessage": closed.message,
            "transportCloseSource": closed.source,
            "turnId": turn_id,
            "turnStatusAtClose": turn.status,
        }),
    ))
}

pub(crate) fn turn_accepted(
    session_id: &str,
    thread_id: &str,
    turn_id: &str,
    steered: bool,
    queue_id: Option<&str>,
    key: Option<&IdempotencyKey>,
) -> NewEvent {
    let mut detail = json!({ "sessionId": session_id, "threadId": thread_id, "turnId": turn_id });
    add(&mut detail, "steered", steered.then_some(true));
    add(&mut detail, "queueId", queue_id);
    add(&mut detail, "idempotency", key);
    let message = format!("Accepted turn {turn_id} for session {session_id}.");
    NewEvent::with_state_change(Level::Info, event_type::TURN_ACCEPTED, message, detail)
}

/// A turn whose acceptance was not received was found in its thread, with this status; the thread may have newer turns.
pub(crate) fn turn_found(
    session_id: &str,
    thread_id: &str,
    turn_id: &str,
    (status, is_newest): (&str, bool),
    queue_id: Option<&str>,
    key: Option<&IdempotencyKey>,
) -> NewEvent {
    let mut detail = json!({
        "sessionId": session_id,
        "threadId": thread_id,
        "turnId": turn_id,
        "status": status,
        "isNewest": is_newest,
    });
    add(&mut detail, "queueId", queue_id);
    add(&mut detail, "idempotency", key);
    let message = format!(
        "Found turn {turn_id} of session {session_id}, which is {status}: its acceptance was not received."
    );
    NewEvent::with_state_change(Level::Info, event_type::TURN_ACCEPTED, message, detail)
}

/// A turn is about to be sent to the app-server.
pub(crate) fn turn_submitted(
    session_id: &str,
    thread_id: &str,
    client_message_id: &str,
    queue_id: Option<&str>,
    key: Option<&IdempotencyKey>,
) -> NewEvent {
    let mut detail =
        json!({ "sessionId": session_id, "threadId": thread_id, "clientMessageId": client_message_id });
    add(&mut detail, "queueId", queue_id);
    add(&mut detail, "idempotency", key);
    let message = format!("Submitting a turn to session {session_id}.");
    NewEvent::with_state_change(Level::Info, event_type::TURN_SUBMITTED, message, detail)
}

/// A turn was not accepted.
pub(crate) fn turn_rejected(
    session_id: &str,
    queue_id: Option<&str>,
    key: Option<&IdempotencyKey>,
    reason: &str,
) -> NewEvent {
    let mut detail = json!({ "sessionId": session_id, "reason": reason });
    add(&mut detail, "queueId", queue_id);
    add(&mut detail, "idempotencyKey", key.map(|key| &key.key));
    let message = format!("A turn for session {session_id} was not accepted: {reason}");
    NewEvent::with_state_change(Level::Warn, event_type::TURN_REJECTED, message, detail)
}

/// A turn is queued until its thread is idle.
pub(crate) fn turn_queued(
    session: &Session,
    turn: &QueuedTurn,
    position: usize,
    key: Option<&IdempotencyKey>,
) -> NewEvent {
    let mut detail = json!({
        "sessionId": session.session_id,
        "threadId": session.thread_id,
        "queueId": turn.queue_id,
        "position": position,
        "turn": turn,
    });
    add(&mut detail, "idempotency", key);
    let message = format!("Queued a turn for session {}, position {position}.", session.session_id);
    NewEvent::with_state_change(Level::Info, event_type::TURN_QUEUED, message, detail)
}

/// The end of a turn that was not received and was read from its thread.
pub(crate) fn turn_settled(session: &Session, turn: &Turn, status: &str, error: Option<&Value>) -> NewEvent {
    let turn_id = &turn.turn_id;
    let mut detail = json!({
        "sessionId": session.session_id,
        "threadId": turn.thread_id,
        "turnId": turn_id,
        "status": status,
    });
    add(&mut detail, "error", error);
    NewEvent::with_state_change(
        Level::Warn,
        event_type::TURN_SETTLED,
        format!("Turn {turn_id} of session {} is {status}, as its thread reports.", session.session_id),
        detail,
    )
}

/// An item that was not received was read from its thread.
pub(crate) fn turn_item_read(state: &State, thread_id: &str, turn_id: &str, item: &Value) -> NewEvent {
    let session = state.sessions.of_thread(thread_id).map(|session| &session.session_id);
    let kind = item["type"].as_str().unwrap_or("item");
    NewEvent::with_state_change(
        Level::Info,
        event_type::TURN_ITEM_READ,
        format!("Read {kind} of turn {turn_id} from its thread: it was not received."),
        json!({ "sessionId": session, "threadId": thread_id, "turnId": turn_id, "item": item }),
    )
}

/// A running turn has been silent for a while.
pub(crate) fn turn_stalled(session: &Session, turn: &Turn, silent: Duration) -> NewEvent {
    let seconds = silent.as_secs();
    let turn_id = &turn.turn_id;
    NewEvent::without_state_change(
        Level::Warn,
        "turn.stalled",
        format!("Turn {turn_id} of session {} has been silent for {seconds} s.", session.session_id),
        json!({
            "sessionId": session.session_id,
            "threadId": turn.thread_id,
            "turnId": turn_id,
            "silentSeconds": seconds,
        }),
    )
}
