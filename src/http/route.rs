//! The type of a route: its handler, and everything that is documented about it.
//!
//! Stateless. `router` has the table of all routes; `openapi` and `routes::describe` describe the routes that they are
//! passed.

use axum::routing::MethodRouter;
use schemars::{Schema, SchemaGenerator};

use super::app_state::AppState;
use super::auth;
use super::error::ErrorKind;

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
    /// Whether the header `Idempotency-Key` is supported.
    pub(super) supports_idempotency_key: bool,
    pub(super) status: u16,
    /// The media type of a successful response.
    pub(super) media_type: &'static str,
    pub(super) response_schema: fn(&mut SchemaGenerator) -> Schema,
    pub(super) errors: &'static [&'static [ErrorKind]],
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
