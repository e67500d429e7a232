//! What is delivered of an event.
//!
//! Without `detail`, no prompt, no answer, no output and no text of an error leaves the log: only the members that are listed
//! here, and messages that are made from them. A new event or member is left out until it is listed.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::hook::Hook;
use crate::journal::Line;

/// The members of a detail that are delivered: IDs, names from closed lists, numbers and times.
const MEMBERS: [&str; 51] = [
    "requestId",
    "sessionId",
    "threadId",
    "turnId",
    "rootTurnId",
    "rootThreadId",
    "parentThreadId",
    "previousThreadId",
    "itemId",
    "queueId",
    "daemonId",
    "purpose",
    "status",
    "type",
    "cwd",
    "willRetry",
    "resolvedBy",
    "isNewest",
    "steered",
    "position",
    "silentSeconds",
    "generation",
    "pid",
    "code",
    "signal",
    "expected",
    "exitCode",
    "delayMs",
    "until",
    "deaths",
    "state",
    "version",
    "installedVersion",
    "strategy",
    "waiting",
    "succeeded",
    "durationMs",
    "notificationMethod",
    "requestMethod",
    "method",
    "failureClass",
    "turnStatusAtClose",
    "trust",
    "cause",
    "automatic",
    "expiresAt",
    "isKnown",
    "isOurs",
    "isEnding",
    "skippedFrom",
    "skippedThrough",
];
/// The members that are delivered with those of their own members that [`MEMBERS`] lists.
const OBJECTS: [&str; 3] = ["request", "held", "status"];
/// The types whose messages are made from such members only.
const TYPES_WITH_PUBLIC_MESSAGE: [&str; 26] = [
    "daemon.started",
    "daemon.stopped",
    "storage.recovered",
    "log.damaged",
    "child.joined",
    "child.started",
    "child.exited",
    "app-server.restart.waiting",
    "app-server.connected",
    "session.created",
    "session.resumed",
    "session.recreated",
    "session.forgotten",
    "turn.accepted",
    "turn.submitted",
    "turn.queued",
    "turn.settled",
    "turn.stalled",
    "app-server.turn.completed.missing",
    "request.opened",
    "app-server.thread.started",
    "app-server.thread.status.changed",
    "app-server.turn.started",
    "app-server.turn.completed",
    "app-server.turn.diff.updated",
    "app-server.turn.plan.updated",
];

/// The JSON of an event for this hook; `id` is the ID of the delivery.
pub(super) fn of_event(hook: &Hook, id: &str, line: &Line) -> Bytes {
    let mut event: Map<String, Value> = serde_json::from_slice(line.json()).unwrap_or_default();
    if !hook.detail {
        reduce(&mut event);
    }
    let mut payload = Map::new();
    payload.insert("id".to_owned(), id.into());
    payload.insert("hook".to_owned(), hook.name.as_str().into());
    payload.extend(event);
    Value::Object(payload).to_string().into()
}

/// The JSON of the delivery that `codexd hooks test` requests.
pub(super) fn of_test(hook: &Hook, id: &str, now: &str) -> Bytes {
    let payload = json!({
        "id": id,
        "hook": hook.name,
        "createdAt": now,
        "level": "info",
        "type": "test",
        "message": format!("This is a test of hook \"{}\".", hook.name),
        "detail": null,
    });
    payload.to_string().into()
}

/// Removes everything that may be a text of a person, a model or a program.
fn reduce(event: &mut Map<String, Value>) {
    let event_type = event.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    if !TYPES_WITH_PUBLIC_MESSAGE.contains(&event_type.as_str()) {
        event.insert("message".to_owned(), format!("Event {event_type}.").into());
    }
    if let Some(Value::Object(detail)) = event.get_mut("detail") {
        detail.retain(|name, value| match value {
            Value::Object(members) if OBJECTS.contains(&name.as_str()) => {
                members.retain(|name, value| is_public(name, value));
                true
            }
            value => is_public(name, value),
        });
    }
}

fn is_public(name: &str, value: &Value) -> bool {
    MEMBERS.contains(&name) && !value.is_object() && !value.is_array()
}
