//! The schema of every event type: the fields that its `detail` always has. Stateless; called by the OpenAPI document.

use serde_json::{Map, Value, json};

use super::schemas::reference;
use crate::state::event_type as is;

/// The type of a field of a detail.
#[derive(Clone, Copy)]
enum FieldType {
    Str,
    StringOrNull,
    IntegerOrNull,
    Integer,
    Flag,
    List,
    Record(&'static str),
    Any,
}

use FieldType::{Any, Flag, Integer, IntegerOrNull, List, Record, Str, StringOrNull};

type Detail = &'static [(&'static str, FieldType)];

/// Why the app-server is not running, and when it is started again.
const RESTART_SCHEDULED: Detail = &[
    ("delayMs", Integer),
    ("until", Str),
    ("deaths", Integer),
    ("cause", Str),
    ("exitCode", IntegerOrNull),
    ("signal", StringOrNull),
    ("stderrTail", List),
];

/// The event types, with the fields that their detail always has; a type without fields may have `null` as detail.
const DETAILS: &[(&str, Detail)] = &[
    (
        is::DAEMON_STARTED,
        &[("endpoint", Str), ("localApiBase", Str), ("strategy", Str), ("pid", IntegerOrNull)],
    ),
    (is::DAEMON_STOPPED, &[]),
    (is::CHILD_STARTED, &[("args", List), ("command", Str), ("pid", IntegerOrNull), ("generation", Integer)]),
    (is::CHILD_EXITED, &[("code", IntegerOrNull), ("signal", StringOrNull), ("expected", Flag)]),
    (is::CHILD_BACKOFF, RESTART_SCHEDULED),
    (is::CHILD_CRASH_LOOP, RESTART_SCHEDULED),
    (is::CHILD_ERROR, &[]),
    (is::CHILD_KILL_FAILED, &[]),
    (is::CHILD_EXTERNAL, &[]),
    (is::CHILD_SPAWN_FAILED, &[]),
    ("child.stderr", &[("bytes", Integer), ("stream", Str)]),
    (is::CONNECTED, &[("endpoint", Str), ("platformFamily", Any), ("platformOs", Any), ("userAgent", Any)]),
    (is::CODEX_STATE_CHANGED, &[("state", Str), ("message", Str), ("command", StringOrNull)]),
    (is::APP_SERVER_RESTARTING, &[("generation", Integer), ("reason", Str)]),
    (is::MCP_SERVER_FAILED, &[("sessionId", StringOrNull), ("threadId", Str), ("name", Str), ("error", Str)]),
    (is::CONNECT_FAILED, &[("endpoint", Str)]),
    ("app-server.close.failed", &[]),
    (
        is::TRANSPORT_CLOSED,
        &[
            ("exitCode", IntegerOrNull),
            ("flushedTrailingMessage", Flag),
            ("signal", StringOrNull),
            ("source", Str),
            ("trailingMessageLength", Integer),
        ],
    ),
    ("app-server.message.invalid", &[("bytes", Integer), ("reason", Str)]),
    ("app-server.request.refused", &[("requestMethod", Str)]),
    (
        is::SESSION_CREATED,
        &[("purpose", Str), ("sessionId", Str), ("threadId", StringOrNull), ("session", Record("Session"))],
    ),
    (
        is::SESSION_RESUMED,
        &[("purpose", Str), ("sessionId", Str), ("threadId", StringOrNull), ("session", Record("Session"))],
    ),
    (
        is::SESSION_RECREATED,
        &[
            ("purpose", Str),
            ("sessionId", Str),
            ("threadId", StringOrNull),
            ("previousThreadId", StringOrNull),
            ("session", Record("Session")),
        ],
    ),
    (
        is::SESSION_TRUST,
        &[
            ("sessionId", Str),
            ("threadId", StringOrNull),
            ("cwd", StringOrNull),
            ("trust", Record("Trust")),
            ("leftOut", List),
        ],
    ),
    (is::SESSION_CLOSED, &[("sessionId", Str)]),
    (
        is::SESSION_HELD,
        &[("sessionId", Str), ("threadId", StringOrNull), ("waiting", Integer), ("held", Record("Held"))],
    ),
    (is::SESSION_RELEASED, &[("sessionId", Str), ("threadId", StringOrNull), ("reason", Str)]),
    (is::SESSION_FORGOTTEN, &[("sessionId", Str), ("threadId", StringOrNull)]),
    (is::TURN_ACCEPTED, &[("sessionId", Str), ("threadId", Str), ("turnId", Str)]),
    (is::TURN_SUBMITTED, &[("sessionId", Str), ("threadId", Str), ("clientMessageId", Str)]),
    (is::TURN_REJECTED, &[("sessionId", Str), ("reason", Str)]),
    (
        is::TURN_QUEUED,
        &[
            ("sessionId", Str),
            ("threadId", StringOrNull),
            ("queueId", Str),
            ("position", Integer),
            ("turn", Record("QueuedTurn")),
        ],
    ),
    (is::TURN_ITEM_READ, &[("sessionId", StringOrNull), ("threadId", Str), ("turnId", Str), ("item", Any)]),
    (is::TURN_SETTLED, &[("sessionId", Str), ("threadId", StringOrNull), ("turnId", Str), ("status", Str)]),
    (
        "turn.stalled",
        &[("sessionId", Str), ("threadId", StringOrNull), ("turnId", Str), ("silentSeconds", Integer)],
    ),
    (
        is::REQUEST_OPENED,
        &[
            ("requestId", Str),
            ("sessionId", StringOrNull),
            ("threadId", StringOrNull),
            ("turnId", StringOrNull),
            ("request", Record("Request")),
        ],
    ),
    (
        is::REQUEST_RESOLVED,
        &[("requestId", Str), ("resolvedBy", Str), ("decision", Any), ("reason", StringOrNull)],
    ),
    (is::THREAD_STARTED, &[("threadId", Str)]),
    (is::THREAD_STATUS_CHANGED, &[("status", Any), ("threadId", Str)]),
    (is::TURN_STARTED, &[("status", Str), ("threadId", Str), ("turnId", Str)]),
    (is::TURN_COMPLETED, &[("error", Any), ("status", Str), ("threadId", Str), ("turnId", Str)]),
    (is::TURN_ERROR, &[("error", Any), ("threadId", Str), ("turnId", Str), ("willRetry", Flag)]),
    (
        is::TURN_MISSING,
        &[
            ("childExitCode", IntegerOrNull),
            ("childPid", IntegerOrNull),
            ("childSignal", StringOrNull),
            ("childStatus", Record("ChildStatus")),
            ("failureClass", Str),
            ("flushedTrailingMessage", Flag),
            ("sessionId", Str),
            ("threadId", StringOrNull),
            ("trailingMessageLength", Integer),
            ("transportCloseMessage", Str),
            ("transportCloseSource", Str),
            ("turnId", Str),
            ("turnStatusAtClose", StringOrNull),
        ],
    ),
    ("app-server.turn.diff.updated", &[("diff", Any), ("threadId", Str), ("turnId", Str)]),
    (
        "app-server.turn.plan.updated",
        &[("explanation", Any), ("plan", Any), ("threadId", Str), ("turnId", Str)],
    ),
    ("app-server.turn.message.delta", &[("delta", Str), ("itemId", Any), ("threadId", Any), ("turnId", Str)]),
    ("app-server.turn.plan.delta", &[("delta", Any), ("itemId", Any), ("threadId", Any), ("turnId", Str)]),
    (
        "app-server.command.output.delta",
        &[("capReached", Flag), ("deltaBase64", Str), ("processId", Str), ("stream", Str)],
    ),
    (is::NOTIFICATION, &[("notificationMethod", Str), ("params", Any)]),
    ("state.recovered", &[]),
    ("storage.failed", &[("reason", Str)]),
    ("storage.recovered", &[("lostFrom", IntegerOrNull), ("lostThrough", IntegerOrNull)]),
    ("log.damaged", &[("damage", List)]),
];

/// Adds the event types to the schema of an event. Future versions may add types, and fields to details.
pub(super) fn describe(event: &mut Value) {
    let types: Vec<_> = DETAILS.iter().map(|(name, _)| *name).collect();
    event["properties"]["type"]["examples"] = types.into();
    let with_fields = DETAILS.iter().filter(|(_, detail)| !detail.is_empty());
    let of_type = with_fields.map(|(name, detail)| {
        let fields: Map<_, _> =
            detail.iter().map(|(key, field_type)| ((*key).to_owned(), schema(*field_type))).collect();
        let names: Vec<_> = detail.iter().map(|(key, _)| *key).collect();
        json!({
            "if": { "properties": { "type": { "const": name } } },
            "then": { "properties": {
                "detail": { "type": "object", "required": names, "properties": fields },
            } },
        })
    });
    event["allOf"] = of_type.collect();
}

fn schema(field_type: FieldType) -> Value {
    match field_type {
        Str => json!({ "type": "string" }),
        StringOrNull => json!({ "type": ["string", "null"] }),
        Integer => json!({ "type": "integer" }),
        IntegerOrNull => json!({ "type": ["integer", "null"] }),
        Flag => json!({ "type": "boolean" }),
        List => json!({ "type": "array" }),
        Record(name) => reference(name),
        Any => json!({}),
    }
}
