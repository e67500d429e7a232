//! The schema of every event type: the fields that its `detail` always has. Stateless; called by the OpenAPI document.

use serde_json::{Map, Value, json};

use super::schemas::reference;
use crate::state::event_type;

/// The type of a field of a detail.
#[derive(Clone, Copy)]
enum DetailType {
    Str,
    StringOrNull,
    IntegerOrNull,
    Integer,
    Flag,
    List,
    Record(&'static str),
    Any,
}

use DetailType::{Any, Flag, Integer, IntegerOrNull, List, Record, Str, StringOrNull};

type Detail = &'static [(&'static str, DetailType)];

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
        event_type::DAEMON_STARTED,
        &[("endpoint", Str), ("localApiBase", Str), ("strategy", Str), ("pid", IntegerOrNull)],
    ),
    (event_type::DAEMON_STOPPED, &[]),
    (
        event_type::CHILD_STARTED,
        &[("args", List), ("command", Str), ("pid", IntegerOrNull), ("generation", Integer)],
    ),
    (event_type::CHILD_EXITED, &[("code", IntegerOrNull), ("signal", StringOrNull), ("expected", Flag)]),
    (event_type::CHILD_BACKOFF, RESTART_SCHEDULED),
    (event_type::CHILD_CRASH_LOOP, RESTART_SCHEDULED),
    (event_type::CHILD_ERROR, &[]),
    (event_type::CHILD_KILL_FAILED, &[]),
    (event_type::CHILD_EXTERNAL, &[]),
    (event_type::CHILD_SPAWN_FAILED, &[]),
    ("child.stderr", &[("bytes", Integer), ("stream", Str)]),
    (
        event_type::CONNECTED,
        &[("endpoint", Str), ("platformFamily", Any), ("platformOs", Any), ("userAgent", Any)],
    ),
    (event_type::CODEX_STATE_CHANGED, &[("state", Str), ("message", Str), ("command", StringOrNull)]),
    (event_type::APP_SERVER_RESTARTING, &[("generation", Integer), ("reason", Str)]),
    (
        event_type::MCP_SERVER_FAILED,
        &[("sessionId", StringOrNull), ("threadId", Str), ("name", Str), ("error", Str)],
    ),
    (event_type::CONNECT_FAILED, &[("endpoint", Str)]),
    ("app-server.close.failed", &[]),
    (
        event_type::TRANSPORT_CLOSED,
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
        event_type::SESSION_CREATED,
        &[("purpose", Str), ("sessionId", Str), ("threadId", StringOrNull), ("session", Record("Session"))],
    ),
    (
        event_type::SESSION_RESUMED,
        &[("purpose", Str), ("sessionId", Str), ("threadId", StringOrNull), ("session", Record("Session"))],
    ),
    (
        event_type::SESSION_RECREATED,
        &[
            ("purpose", Str),
            ("sessionId", Str),
            ("threadId", StringOrNull),
            ("previousThreadId", StringOrNull),
            ("session", Record("Session")),
        ],
    ),
    (
        event_type::SESSION_TRUST,
        &[
            ("sessionId", Str),
            ("threadId", StringOrNull),
            ("cwd", StringOrNull),
            ("trust", Record("Trust")),
            ("leftOut", List),
        ],
    ),
    (event_type::SESSION_CLOSED, &[("sessionId", Str)]),
    (
        event_type::SESSION_HELD,
        &[("sessionId", Str), ("threadId", StringOrNull), ("waiting", Integer), ("held", Record("Held"))],
    ),
    (event_type::SESSION_RELEASED, &[("sessionId", Str), ("threadId", StringOrNull), ("reason", Str)]),
    (event_type::SESSION_FORGOTTEN, &[("sessionId", Str), ("threadId", StringOrNull)]),
    (event_type::TURN_ACCEPTED, &[("sessionId", Str), ("threadId", Str), ("turnId", Str)]),
    (event_type::TURN_SUBMITTED, &[("sessionId", Str), ("threadId", Str), ("clientMessageId", Str)]),
    (event_type::TURN_REJECTED, &[("sessionId", Str), ("reason", Str)]),
    (
        event_type::TURN_QUEUED,
        &[
            ("sessionId", Str),
            ("threadId", StringOrNull),
            ("queueId", Str),
            ("position", Integer),
            ("turn", Record("QueuedTurn")),
        ],
    ),
    (
        event_type::TURN_ITEM_READ,
        &[("sessionId", StringOrNull), ("threadId", Str), ("turnId", Str), ("item", Any)],
    ),
    (
        event_type::TURN_SETTLED,
        &[("sessionId", Str), ("threadId", StringOrNull), ("turnId", Str), ("status", Str)],
    ),
    (
        "turn.stalled",
        &[("sessionId", Str), ("threadId", StringOrNull), ("turnId", Str), ("silentSeconds", Integer)],
    ),
    (
        event_type::REQUEST_OPENED,
        &[
            ("requestId", Str),
            ("sessionId", StringOrNull),
            ("threadId", StringOrNull),
            ("turnId", StringOrNull),
            ("request", Record("Request")),
        ],
    ),
    (
        event_type::REQUEST_RESOLVED,
        &[("requestId", Str), ("resolvedBy", Str), ("decision", Any), ("reason", StringOrNull)],
    ),
    (event_type::THREAD_STARTED, &[("threadId", Str)]),
    (event_type::THREAD_STATUS_CHANGED, &[("status", Any), ("threadId", Str)]),
    (event_type::TURN_STARTED, &[("status", Str), ("threadId", Str), ("turnId", Str)]),
    (event_type::TURN_COMPLETED, &[("error", Any), ("status", Str), ("threadId", Str), ("turnId", Str)]),
    (event_type::TURN_ERROR, &[("error", Any), ("threadId", Str), ("turnId", Str), ("willRetry", Flag)]),
    (
        event_type::TURN_MISSING,
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
    (event_type::NOTIFICATION, &[("notificationMethod", Str), ("params", Any)]),
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
            detail.iter().map(|(key, detail_type)| ((*key).to_owned(), schema(*detail_type))).collect();
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

fn schema(detail_type: DetailType) -> Value {
    match detail_type {
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
