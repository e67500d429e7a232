//! The type of a route: its handler, and everything that is documented about it.
//!
//! Stateless. `router` has the table of all routes; `openapi` and `routes::describe` describe the routes that they are
//! passed.

use axum::routing::MethodRouter;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Value, json};

use super::app_state::AppState;
use super::auth;
use super::error::{self, ErrorKind};
use super::response::Envelope;

/// A method of a path, with everything that is documented about it.
pub(super) struct Route {
    /// In upper case; `WS` is a `GET` that is upgraded to a WebSocket.
    pub(super) method: &'static str,
    /// With the parameters in braces; [`EVENT_STREAM`] is replaced by the configured path.
    pub(super) path: &'static str,
    pub(super) description: &'static str,
    /// Whether it is one of the eight routes of the contract; the others are extensions.
    pub(super) is_formal: bool,
    pub(super) handler: fn() -> MethodRouter<AppState>,
    /// Its operation ID in the OpenAPI document.
    pub(super) operation_id: &'static str,
    /// Further description in the OpenAPI document.
    pub(super) remarks: &'static str,
    pub(super) query: Option<fn() -> Schema>,
    pub(super) body: Option<fn() -> Schema>,
    /// Examples of the body.
    pub(super) examples: &'static [Example],
    /// Whether the header `Idempotency-Key` is supported.
    pub(super) supports_idempotency_key: bool,
    pub(super) status: u16,
    /// The media type of a successful response.
    pub(super) media_type: &'static str,
    pub(super) response_schema: fn(&mut SchemaGenerator) -> Schema,
    pub(super) errors: &'static [&'static [ErrorKind]],
}

/// An example of a request body.
pub(super) struct Example {
    /// Its name in the OpenAPI document.
    pub(super) name: &'static str,
    /// When to send such a body.
    pub(super) summary: &'static str,
    /// The body as JSON text; words in upper case stand for IDs.
    pub(super) body: &'static str,
}

impl Example {
    /// The body.
    pub(super) fn body(&self) -> Value {
        serde_json::from_str(self.body).unwrap_or_default()
    }

    /// The example in the OpenAPI document.
    pub(super) fn in_document(&self) -> Value {
        json!({ "summary": self.summary, "value": self.body() })
    }
}

/// The placeholder for the configured path of the event stream.
pub(super) const EVENT_STREAM: &str = "{event stream}";

impl Route {
    /// The path for the router.
    pub(super) fn path<'a>(&self, event_stream_path: &'a str) -> &'a str
    where
        'static: 'a,
    {
        if self.path == EVENT_STREAM { event_stream_path } else { self.path }
    }

    /// Whether its requests need no token.
    pub(super) fn needs_no_token(&self) -> bool {
        auth::TOKEN_FREE_PATHS.contains(&self.path)
    }

    /// The HTTP method.
    pub(super) fn http_method(&self) -> &'static str {
        if self.method == "WS" { "GET" } else { self.method }
    }
}

/// The errors of reading a request body.
pub(super) const BODY_ERRORS: &[ErrorKind] =
    &[error::BAD_REQUEST, error::TOO_SLOW, error::TOO_LARGE, error::UNSUPPORTED];
/// The errors of `Idempotency-Key`.
pub(super) const KEY_ERRORS: &[ErrorKind] = &[error::KEY_REUSED];
/// The errors of a call to the app-server, and of recording the event that follows.
pub(super) const CALL_ERRORS: &[ErrorKind] = &[
    error::REJECTED,
    error::APP_SERVER_ERROR,
    error::UNAVAILABLE,
    error::OVERLOADED,
    error::STORAGE,
    error::SHUTTING_DOWN,
    error::TIMEOUT,
];
/// The errors of reopening the thread of a session.
pub(super) const ATTACH_ERRORS: &[ErrorKind] =
    &[error::NOT_ACTIVE, error::THREAD_LOCKED, error::THREAD_UNAVAILABLE];

/// The schema of a body without the envelope.
pub(super) fn flat<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// The schema of a body in the envelope.
pub(super) fn data<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<Envelope<T>>()
}

/// The schema of a text.
pub(super) fn text(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({ "type": "string" })
}

/// The schema of an OpenAPI document.
pub(super) fn document(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({ "type": "object", "required": ["openapi", "info", "paths"] })
}

/// A route of the contract, with the other fields empty.
pub(super) const fn formal(
    method: &'static str,
    path: &'static str,
    operation_id: &'static str,
    handler: fn() -> MethodRouter<AppState>,
    response_schema: fn(&mut SchemaGenerator) -> Schema,
    description: &'static str,
) -> Route {
    Route {
        method,
        path,
        description,
        is_formal: true,
        handler,
        operation_id,
        remarks: "",
        query: None,
        body: None,
        examples: &[],
        supports_idempotency_key: false,
        status: 200,
        media_type: "application/json",
        response_schema,
        errors: &[],
    }
}

/// Any other route, with the other fields empty.
pub(super) const fn extension(
    method: &'static str,
    path: &'static str,
    operation_id: &'static str,
    handler: fn() -> MethodRouter<AppState>,
    response_schema: fn(&mut SchemaGenerator) -> Schema,
    description: &'static str,
) -> Route {
    Route { is_formal: false, ..formal(method, path, operation_id, handler, response_schema, description) }
}
