//! The messages of the WebSocket and the text of server-sent events, which OpenAPI 3.1 has no form for: the messages are
//! schemas that the operation names in `x-websocket`. Stateless; called by the OpenAPI document.

use serde_json::{Map, Value, json};

use super::portable::reference;

/// An example of the stream of server-sent events.
const SERVER_SENT_EVENTS: &str = "retry: 1000\nid: 1f6b2c-7\ndata: {\"seq\":7,\"createdAt\":\"2026-01-01T00:00:00.000Z\",\
    \"level\":\"info\",\"type\":\"turn.accepted\",\"message\":\"…\",\"detail\":{}}\n\n";

/// The messages of one side: the name of its schema, the description, and each message with its type and its fields.
type Messages = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str, &'static [&'static str], &'static str)],
);

/// Fields of messages with the schemas that they refer to; the others are strings.
const FIELDS: &[(&str, &str)] =
    &[("event", "Event"), ("service", "ServiceView"), ("snapshot", "SnapshotView"), ("request", "Request")];

const SERVER: Messages = (
    "WebSocketServerMessage",
    "A text message that codexd sends over the WebSocket.",
    &[
        (
            "HelloMessage",
            "hello",
            &["cursor", "recentEvents", "service", "snapshot"],
            "The first message: the current state, and the newest events. `cursor` is the position of the state.",
        ),
        ("EventMessage", "event", &["event"], "One event."),
        (
            "BookmarkMessage",
            "bookmark",
            &["cursor"],
            "The stream has come to this cursor; no event matched meanwhile.",
        ),
        (
            "GapMessage",
            "gap",
            &["reason", "message", "epoch", "oldest", "latest", "cursor"],
            "Events are missing; `cursor` continues after them.",
        ),
        ("PongMessage", "pong", &[], "The reply to `ping`."),
        ("StatusMessage", "status", &["service", "snapshot"], "The reply to `status`: the current state."),
        ("RespondedMessage", "responded", &["request"], "The reply to `respond`: the request, now resolved."),
        ("ErrorMessage", "error", &["message"], "A message of the client failed; the connection stays open."),
    ],
);

const CLIENT: Messages = (
    "WebSocketClientMessage",
    "A text message that a client may send over the WebSocket.",
    &[
        ("PingMessage", "ping", &[], "Asks for a `pong`."),
        ("ReadStatusMessage", "status", &[], "Asks for the current state."),
        (
            "RespondMessage",
            "respond",
            &["requestId"],
            "Answers a request of the app-server, with `decision` or `result` as in `AnswerRequest`.",
        ),
    ],
);

/// Adds the schemas of the messages to `components`.
pub(super) fn add(components: &mut Map<String, Value>) {
    for (union, description, messages) in [SERVER, CLIENT] {
        let (mut mapping, mut alternatives) = (Map::new(), Vec::new());
        for (name, message_type, fields, description) in messages {
            components.insert((*name).to_owned(), message(message_type, fields, description));
            let reference = reference(name);
            mapping.insert((*message_type).to_owned(), reference["$ref"].clone());
            alternatives.push(reference);
        }
        let union_schema = json!({
            "description": description,
            "oneOf": alternatives,
            "discriminator": { "propertyName": "type", "mapping": mapping },
        });
        components.insert(union.to_owned(), union_schema);
    }
    if let Some(respond) = components.get_mut("RespondMessage") {
        let answer = ["decision", "result"];
        for name in answer {
            respond["properties"][name] = json!({ "description": "As in `AnswerRequest`." });
        }
        respond["properties"]["result"]["type"] = "object".into();
        respond["properties"]["result"]["additionalProperties"] = true.into();
    }
    if let Some(error) = components.get_mut("ErrorMessage") {
        let description = "The code, if the message was `respond`; `requestId` and `details` come with it.";
        error["properties"]["error"] = json!({ "type": "string", "description": description });
        error["properties"]["requestId"] = json!({ "type": "string" });
        error["properties"]["details"] = json!({ "type": ["object", "null"], "additionalProperties": true });
    }
}

fn message(message_type: &str, fields: &[&str], description: &str) -> Value {
    let mut properties = Map::new();
    properties.insert("type".to_owned(), json!({ "type": "string", "enum": [message_type] }));
    for name in fields {
        let schema = match (FIELDS.iter().find(|(field, _)| field == name), *name) {
            (Some((_, schema)), _) => reference(schema),
            (None, "recentEvents") => json!({ "type": "array", "items": reference("Event") }),
            (None, "oldest" | "latest") => json!({ "type": "integer", "format": "uint64", "minimum": 0 }),
            (None, _) => json!({ "type": "string" }),
        };
        properties.insert((*name).to_owned(), schema);
    }
    let required: Vec<_> = properties.keys().cloned().collect();
    json!({ "type": "object", "description": description, "properties": properties, "required": required })
}

/// Describes the two other forms of the event stream in the operation that reads a page of it.
pub(super) fn describe(operation: &mut Value) {
    operation["responses"]["200"]["content"]["text/event-stream"] = json!({
        "schema": { "type": "string", "description": "Server-sent events; `data` is an `Event`." },
        "example": SERVER_SENT_EVENTS,
    });
    operation["responses"]["101"] = json!({ "description": "The connection is a WebSocket." });
    operation["x-websocket"] =
        json!({ "serverMessage": reference(SERVER.0), "clientMessage": reference(CLIENT.0) });
}
