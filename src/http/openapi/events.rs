//! The types of events, each with what its detail has at least.

use serde_json::{Map, Value, json};

use crate::state::event_type as is;

/// What a part of a detail is.
#[derive(Clone, Copy)]
enum Part {
    Text,
    TextOrNull,
    WholeOrNull,
    Whole,
    Flag,
    List,
    Record(&'static str),
    Any,
}

use Part::{Any, Flag, List, Record, Text, TextOrNull, Whole, WholeOrNull};

type Detail = &'static [(&'static str, Part)];

/// Why and until when the app-server is not started.
const SETBACK: Detail = &[
    ("delayMs", Whole),
    ("until", Text),
    ("deaths", Whole),
    ("cause", Text),
    ("exitCode", WholeOrNull),
    ("signal", TextOrNull),
    ("stderrTail", List),
];

/// The types whose details have parts that are always there; the others may have `null` for a detail.
const DETAILS: &[(&str, Detail)] = &[
    (
        is::DAEMON_STARTED,
        &[("endpoint", Text), ("localApiBase", Text), ("strategy", Text), ("pid", WholeOrNull)],
    ),
    (is::DAEMON_STOPPED, &[]),
    (is::CHILD_STARTED, &[("args", List), ("command", Text), ("pid", WholeOrNull), ("generation", Whole)]),
    (is::CHILD_EXITED, &[("code", WholeOrNull), ("signal", TextOrNull), ("expected", Flag)]),
    (is::CHILD_BACKOFF, SETBACK),
    (is::CHILD_CRASH_LOOP, SETBACK),
    (is::CHILD_ERROR, &[]),
    (is::CHILD_KILL_FAILED, &[]),
    (is::CHILD_EXTERNAL, &[]),
    (is::CHILD_SPAWN_FAILED, &[]),
    ("child.stderr", &[("bytes", Whole), ("stream", Text)]),
    (is::CONNECTED, &[("endpoint", Text), ("platformFamily", Any), ("platformOs", Any), ("userAgent", Any)]),
    (is::CODEX_STATE_CHANGED, &[("state", Text), ("message", Text), ("command", TextOrNull)]),
    (is::APP_SERVER_RESTARTING, &[("generation", Whole), ("reason", Text)]),
    (
        is::MCP_SERVER_FAILED,
        &[("sessionId", TextOrNull), ("threadId", Text), ("name", Text), ("error", Text)],
    ),
    (is::CONNECT_FAILED, &[("endpoint", Text)]),
    ("app-server.close.failed", &[]),
    (
        is::TRANSPORT_CLOSED,
        &[
            ("exitCode", WholeOrNull),
            ("flushedTrailingMessage", Flag),
            ("signal", TextOrNull),
            ("source", Text),
            ("trailingMessageLength", Whole),
        ],
    ),
    ("app-server.message.invalid", &[("bytes", Whole), ("reason", Text)]),
    ("app-server.request.refused", &[("requestMethod", Text)]),
    (
        is::SESSION_CREATED,
        &[("purpose", Text), ("sessionId", Text), ("threadId", TextOrNull), ("session", Record("Session"))],
    ),
    (
        is::SESSION_RESUMED,
        &[("purpose", Text), ("sessionId", Text), ("threadId", TextOrNull), ("session", Record("Session"))],
    ),
    (
        is::SESSION_RECREATED,
        &[
            ("purpose", Text),
            ("sessionId", Text),
            ("threadId", TextOrNull),
            ("previousThreadId", TextOrNull),
            ("session", Record("Session")),
        ],
    ),
    (
        is::SESSION_TRUST,
        &[
            ("sessionId", Text),
            ("threadId", TextOrNull),
            ("cwd", TextOrNull),
            ("trust", Record("Trust")),
            ("leftOut", List),
        ],
    ),
    (is::SESSION_CLOSED, &[("sessionId", Text)]),
    (
        is::SESSION_HELD,
        &[("sessionId", Text), ("threadId", TextOrNull), ("waiting", Whole), ("held", Record("Held"))],
    ),
    (is::SESSION_RELEASED, &[("sessionId", Text), ("threadId", TextOrNull), ("reason", Text)]),
    (is::SESSION_FORGOTTEN, &[("sessionId", Text), ("threadId", TextOrNull)]),
    (is::TURN_ACCEPTED, &[("sessionId", Text), ("threadId", Text), ("turnId", Text)]),
    (is::TURN_SUBMITTED, &[("sessionId", Text), ("threadId", Text), ("clientMessageId", Text)]),
    (is::TURN_REJECTED, &[("sessionId", Text), ("reason", Text)]),
    (
        is::TURN_QUEUED,
        &[
            ("sessionId", Text),
            ("threadId", TextOrNull),
            ("queueId", Text),
            ("position", Whole),
            ("turn", Record("QueuedTurn")),
        ],
    ),
    (is::TURN_ITEM_READ, &[("sessionId", TextOrNull), ("threadId", Text), ("turnId", Text), ("item", Any)]),
    (is::TURN_SETTLED, &[("sessionId", Text), ("threadId", TextOrNull), ("turnId", Text), ("status", Text)]),
    (
        "turn.stalled",
        &[("sessionId", Text), ("threadId", TextOrNull), ("turnId", Text), ("silentSeconds", Whole)],
    ),
    (
        is::REQUEST_OPENED,
        &[
            ("requestId", Text),
            ("sessionId", TextOrNull),
            ("threadId", TextOrNull),
            ("turnId", TextOrNull),
            ("request", Record("Request")),
        ],
    ),
    (
        is::REQUEST_RESOLVED,
        &[("requestId", Text), ("resolvedBy", Text), ("decision", Any), ("reason", TextOrNull)],
    ),
    (is::THREAD_STARTED, &[("threadId", Text)]),
    (is::THREAD_STATUS_CHANGED, &[("status", Any), ("threadId", Text)]),
    (is::TURN_STARTED, &[("status", Text), ("threadId", Text), ("turnId", Text)]),
    (is::TURN_COMPLETED, &[("error", Any), ("status", Text), ("threadId", Text), ("turnId", Text)]),
    (is::TURN_ERROR, &[("error", Any), ("threadId", Text), ("turnId", Text), ("willRetry", Flag)]),
    (
        is::TURN_MISSING,
        &[
            ("childExitCode", WholeOrNull),
            ("childPid", WholeOrNull),
            ("childSignal", TextOrNull),
            ("childStatus", Record("ChildStatus")),
            ("failureClass", Text),
            ("flushedTrailingMessage", Flag),
            ("sessionId", Text),
            ("threadId", TextOrNull),
            ("trailingMessageLength", Whole),
            ("transportCloseMessage", Text),
            ("transportCloseSource", Text),
            ("turnId", Text),
            ("turnStatusAtClose", TextOrNull),
        ],
    ),
    ("app-server.turn.diff.updated", &[("diff", Any), ("threadId", Text), ("turnId", Text)]),
    (
        "app-server.turn.plan.updated",
        &[("explanation", Any), ("plan", Any), ("threadId", Text), ("turnId", Text)],
    ),
    (
        "app-server.turn.message.delta",
        &[("delta", Text), ("itemId", Any), ("threadId", Any), ("turnId", Text)],
    ),
    ("app-server.turn.plan.delta", &[("delta", Any), ("itemId", Any), ("threadId", Any), ("turnId", Text)]),
    (
        "app-server.command.output.delta",
        &[("capReached", Flag), ("deltaBase64", Text), ("processId", Text), ("stream", Text)],
    ),
    (is::NOTIFICATION, &[("notificationMethod", Text), ("params", Any)]),
    ("state.recovered", &[]),
    ("storage.failed", &[("reason", Text)]),
    ("storage.recovered", &[("lostFrom", WholeOrNull), ("lostThrough", WholeOrNull)]),
    ("log.damaged", &[("damage", List)]),
];

/// Adds the types to the schema of an event: newer types may come, and details may have more parts.
pub(super) fn describe(event: &mut Value) {
    let types: Vec<_> = DETAILS.iter().map(|(name, _)| *name).collect();
    event["properties"]["type"]["examples"] = types.into();
    let with_parts = DETAILS.iter().filter(|(_, detail)| !detail.is_empty());
    let of_type = with_parts.map(|(name, detail)| {
        let parts: Map<_, _> = detail.iter().map(|(key, part)| ((*key).to_owned(), schema(*part))).collect();
        let names: Vec<_> = detail.iter().map(|(key, _)| *key).collect();
        json!({
            "if": { "properties": { "type": { "const": name } } },
            "then": { "properties": {
                "detail": { "type": "object", "required": names, "properties": parts },
            } },
        })
    });
    event["allOf"] = of_type.collect();
}

fn schema(part: Part) -> Value {
    match part {
        Text => json!({ "type": "string" }),
        TextOrNull => json!({ "type": ["string", "null"] }),
        Whole => json!({ "type": "integer" }),
        WholeOrNull => json!({ "type": ["integer", "null"] }),
        Flag => json!({ "type": "boolean" }),
        List => json!({ "type": "array" }),
        Record(name) => super::reference(name),
        Any => json!({}),
    }
}
