//! The API errors: every status and code, and the response for each.
//!
//! All handlers return [`ApiError`]; [`DaemonError`] is converted here. Stateless.
//!
//! Invariant: every error is of an [`ErrorKind`], and each kind is defined in one line here; the OpenAPI document describes
//! it by that. Clients branch on the code; the message is for the user.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::daemon::DaemonError;
use crate::http::response;
use crate::journal::CursorExpired;

/// The value of `Retry-After` when no better one is known, in seconds.
const DEFAULT_RETRY_AFTER_SECONDS: u64 = 1;

/// The body of every failure.
#[derive(Serialize, JsonSchema)]
pub(super) struct Failure {
    #[schemars(extend("const" = false))]
    ok: bool,
    /// The code, by which programs distinguish failures.
    error: &'static str,
    /// What happened, to which object, and what to do, as a sentence for the user.
    message: String,
    /// Further facts, depending on the code.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Map<String, Value>")]
    details: Option<Value>,
}

/// What distinguishes one error response from another; clients branch on the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ErrorKind {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    /// When it is returned, as a sentence.
    pub(super) when: &'static str,
}

/// Defines one [`ErrorKind`] per line: its name, its status, its code, and when it is returned.
macro_rules! error_kinds {
    ($($name:ident: $status:ident $code:literal, $when:literal;)*) => {
        $(pub(super) const $name: ErrorKind =
            ErrorKind { status: StatusCode::$status, code: $code, when: $when };)*
    };
}

error_kinds! {
    BAD_REQUEST: BAD_REQUEST "bad_request", "The request is invalid.";
    REJECTED: BAD_REQUEST "app_server_rejected", "The app-server rejected the forwarded request.";
    UNAUTHORIZED: UNAUTHORIZED "unauthorized", "The request has no token or a wrong one.";
    FORBIDDEN: FORBIDDEN "forbidden", "The request comes from another user, is for another host, or comes from a foreign web page; or the configuration does not allow the call.";
    NOT_FOUND: NOT_FOUND "not_found", "Resource not found.";
    TOO_SLOW: REQUEST_TIMEOUT "request_timeout", "The body was not complete in time.";
    NO_TURN: CONFLICT "no_turn", "No turn is in progress in the session.";
    TURN_IN_PROGRESS: CONFLICT "turn_in_progress", "Another turn is in progress in the session.";
    TURN_INTERRUPTED: CONFLICT "turn_interrupted", "The turn was interrupted before it started.";
    ALREADY_RESOLVED: CONFLICT "already_resolved", "The request is already resolved.";
    NOT_ACTIVE: CONFLICT "session_not_active", "The session accepts no turns.";
    QUEUE_FULL: CONFLICT "queue_full", "The queue of the session is full.";
    TRUST_UNDECIDED: CONFLICT "trust_undecided", "The user has not decided whether the directory is trusted.";
    THREAD_LOCKED: CONFLICT "thread_locked", "Another program has the thread open.";
    THREAD_UNAVAILABLE: CONFLICT "thread_unavailable", "Codex cannot open the thread: its history is missing, or it is archived.";
    OUTCOME_UNKNOWN: CONFLICT "outcome_unknown", "It is unknown whether the turn of an earlier request started.";
    CODEX_TOO_OLD: CONFLICT "codex_too_old", "Codex is too old for a turn with an Idempotency-Key, for a queued turn, or for a fork that ends at a turn.";
    HOOK_EXISTS: CONFLICT "hook_exists", "Another hook has the name.";
    TOO_MANY_HOOKS: CONFLICT "too_many_hooks", "There are as many hooks as there can be.";
    NOT_OURS: CONFLICT "not_ours", "Another program started the app-server.";
    CURSOR_GONE: GONE "cursor_gone", "The cursor has expired or is invalid.";
    TOO_LARGE: PAYLOAD_TOO_LARGE "payload_too_large", "The body exceeds the limit.";
    UNSUPPORTED: UNSUPPORTED_MEDIA_TYPE "unsupported_media_type", "The Content-Encoding of the body is not supported.";
    KEY_REUSED: UNPROCESSABLE_ENTITY "idempotency_key_reused", "The Idempotency-Key belongs to another request.";
    UPGRADE_REQUIRED: UPGRADE_REQUIRED "bad_request", "The client uses another version of WebSocket.";
    INTERNAL: INTERNAL_SERVER_ERROR "internal_error", "Internal error of codexd.";
    APP_SERVER_ERROR: BAD_GATEWAY "app_server_error", "The app-server answered with an error.";
    UNAVAILABLE: SERVICE_UNAVAILABLE "app_server_unavailable", "No app-server is available.";
    OVERLOADED: SERVICE_UNAVAILABLE "overloaded", "The app-server is overloaded, or there are too many connections.";
    STORAGE: SERVICE_UNAVAILABLE "storage_unavailable", "The event log is unavailable, or a directory or file that the request needs does not answer.";
    SHUTTING_DOWN: SERVICE_UNAVAILABLE "shutting_down", "The daemon is stopping.";
    TIMEOUT: GATEWAY_TIMEOUT "app_server_timeout", "The app-server did not answer in time.";
}

/// An error response; boxed, because it is the rare variant of every result.
#[derive(Debug)]
pub(super) struct ApiError(Box<ErrorParts>);

#[derive(Debug)]
struct ErrorParts {
    kind: ErrorKind,
    message: String,
    details: Option<Value>,
    retry_after: Option<u64>,
    /// Whether the connection is closed after it.
    closes_connection: bool,
}

impl ApiError {
    /// An error without details; every 503 has a `Retry-After`.
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let is_temporary = kind.status == StatusCode::SERVICE_UNAVAILABLE;
        Self(Box::new(ErrorParts {
            kind,
            message: message.into(),
            details: None,
            retry_after: is_temporary.then_some(DEFAULT_RETRY_AFTER_SECONDS),
            closes_connection: false,
        }))
    }

    /// The request is invalid.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(BAD_REQUEST, message)
    }

    /// The request does not have the token that it needs; the message does not describe the token that it has.
    pub(super) fn unauthorized() -> Self {
        let message = "The request needs the header Authorization: Bearer TOKEN, with the token from the file that \
                       --auth-token-file names.";
        Self::new(UNAUTHORIZED, message)
    }

    /// The token of the client only reads.
    pub(super) fn only_reads() -> Self {
        Self::forbidden("This token only reads; what changes something needs the token of --auth-token-file.")
    }

    /// The client or page may not use codexd.
    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(FORBIDDEN, message)
    }

    /// The body was not complete within `limit`.
    pub(super) fn too_slow(limit: Duration) -> Self {
        Self::new(TOO_SLOW, format!("The body of the request was not complete within {} s.", limit.as_secs()))
    }

    /// A limit is reached; the client may retry.
    pub(super) fn overloaded(message: impl Into<String>) -> Self {
        Self::new(OVERLOADED, message)
    }

    /// Internal error.
    pub(super) fn internal() -> Self {
        Self::from(DaemonError::Internal)
    }

    /// The body is longer than `limit` bytes.
    pub(super) fn payload_too_large(limit: usize) -> Self {
        let message = format!("The request body exceeds the limit of {limit} bytes.");
        Self::new(TOO_LARGE, message)
    }

    /// The body has a Content-Encoding.
    pub(super) fn unsupported_encoding() -> Self {
        let message = "codexd supports no Content-Encoding; send the request body without it.";
        Self::new(UNSUPPORTED, message)
    }

    /// The cursor has expired; `gap` holds the bounds of the log.
    pub(super) fn cursor_gone(gap: Value, expired: CursorExpired) -> Self {
        let message = format!(
            "The events cannot be read from this cursor: {expired}; read the sessions again and continue after {}.",
            gap["cursor"].as_str().unwrap_or_default()
        );
        Self::new(CURSOR_GONE, message).with_details(gap)
    }

    /// The event log cannot be read.
    pub(super) fn log_unreadable(error: &std::io::Error) -> Self {
        tracing::error!(%error, "failed to read the event log");
        let message =
            format!("Failed to read the event log ({error}); check the disk of the logs directory.");
        Self::new(STORAGE, message)
    }

    /// A directory or file that the request needs does not answer.
    pub(super) fn storage_unavailable(message: impl Into<String>) -> Self {
        Self::new(STORAGE, message)
    }

    /// The HTTP status.
    #[cfg(test)]
    pub(super) fn status(&self) -> u16 {
        self.0.kind.status.as_u16()
    }

    /// The message for the user.
    #[cfg(test)]
    pub(super) fn message(&self) -> &str {
        &self.0.message
    }

    /// The raw response, for a connection without an HTTP parser.
    pub(super) fn to_raw_response(&self) -> Bytes {
        let ErrorParts { kind, message, details, retry_after, closes_connection: _ } = &*self.0;
        let (message, details) = (message.clone(), details.clone());
        let failure = Failure { ok: false, error: kind.code, message, details };
        response::raw_response(kind.status, *retry_after, &failure)
    }

    /// The response after which the connection is closed, so that unread input is not parsed as a request.
    pub(super) fn into_closing_response(self) -> Response {
        self.closing_connection().into_response()
    }

    /// Marks the error so that the connection is closed after it.
    pub(super) fn closing_connection(mut self) -> Self {
        self.0.closes_connection = true;
        self
    }

    /// The error as part of a WebSocket message.
    pub(super) fn to_json(&self) -> Value {
        json!({ "error": self.0.kind.code, "message": self.0.message, "details": self.0.details })
    }

    /// Adds facts for programs; `null` adds none.
    fn with_details(mut self, details: Value) -> Self {
        self.0.details = (!details.is_null()).then_some(details);
        self
    }
}

impl From<DaemonError> for ApiError {
    fn from(error: DaemonError) -> Self {
        use DaemonError as E;
        let message = error.to_string();
        let retry_after = match error {
            E::Unavailable { retry_after, .. } => retry_after,
            _ => None,
        };
        let (kind, details) = match error {
            E::Invalid(_) => (BAD_REQUEST, Value::Null),
            E::OwnedMethod { method, instead } => {
                (BAD_REQUEST, json!({ "method": method, "instead": instead }))
            }
            E::CallNotAllowed { method, .. } => {
                (FORBIDDEN, json!({ "method": method, "setting": "--app-server-calls" }))
            }
            E::UnknownSession(_)
            | E::UnknownTurn { .. }
            | E::NotQueued { .. }
            | E::UnknownRequest(_)
            | E::UnknownHook(_) => (NOT_FOUND, Value::Null),
            E::TurnWithdrawn(_) => (TURN_INTERRUPTED, Value::Null),
            E::NoTurn(_) => (NO_TURN, Value::Null),
            E::OtherTurn { session_id, turn_id } | E::TurnInProgress { session_id, turn_id } => {
                (TURN_IN_PROGRESS, json!({ "sessionId": session_id, "turnId": turn_id }))
            }
            E::Archived(session_id) => (THREAD_UNAVAILABLE, json!({ "sessionId": session_id })),
            E::CannotArchive { session_id, turn_id, queued } => {
                (TURN_IN_PROGRESS, json!({ "sessionId": session_id, "turnId": turn_id, "queued": queued }))
            }
            E::AlreadyResolved(request) => (ALREADY_RESOLVED, json!({ "request": request })),
            E::NoThread(_) => (NOT_ACTIVE, Value::Null),
            E::SessionNotActive { session_id, reason } => {
                (NOT_ACTIVE, json!({ "sessionId": session_id, "closedReason": reason }))
            }
            E::QueueFull { session_id, limit } => {
                (QUEUE_FULL, json!({ "sessionId": session_id, "limit": limit }))
            }
            E::TrustUndecided { cwd, left_out } => {
                (TRUST_UNDECIDED, json!({ "cwd": cwd, "leftOut": left_out }))
            }
            E::ThreadLocked { thread_id, reason } => {
                (THREAD_LOCKED, json!({ "threadId": thread_id, "message": reason }))
            }
            E::ThreadUnavailable { session_id, thread_id, reason } => (
                THREAD_UNAVAILABLE,
                json!({ "sessionId": session_id, "threadId": thread_id, "message": reason }),
            ),
            E::OutcomeUnknown { session_id, submitted_at, reason } => (
                OUTCOME_UNKNOWN,
                json!({ "sessionId": session_id, "submittedAt": submitted_at, "message": reason }),
            ),
            E::NotOurs(_) => (NOT_OURS, Value::Null),
            E::KeyReused(_) => (KEY_REUSED, Value::Null),
            E::Rejected { method, code, message } => {
                (REJECTED, json!({ "code": code, "message": message, "method": method }))
            }
            E::UnknownMethod { method, code, .. } => {
                (REJECTED, json!({ "code": code, "message": message, "method": method }))
            }
            E::CodexTooOld { version } | E::CannotForkAtTurn { version } => {
                (CODEX_TOO_OLD, json!({ "version": version }))
            }
            E::AppServer { method, code, message } => {
                (APP_SERVER_ERROR, json!({ "code": code, "message": message, "method": method }))
            }
            E::Overloaded => (OVERLOADED, Value::Null),
            E::Unavailable { .. } => (UNAVAILABLE, Value::Null),
            E::Timeout { .. } | E::StillOpening { .. } => (TIMEOUT, Value::Null),
            E::HookExists(_) => (HOOK_EXISTS, Value::Null),
            E::TooManyHooks(_) => (TOO_MANY_HOOKS, Value::Null),
            E::Storage(_) | E::StateFile(_) => (STORAGE, Value::Null),
            E::Internal => (INTERNAL, Value::Null),
            E::ShuttingDown => (SHUTTING_DOWN, Value::Null),
        };
        let mut error = Self::new(kind, message).with_details(details);
        if let Some(time) = retry_after {
            let seconds = u64::try_from(time.as_millis().div_ceil(1000)).unwrap_or(u64::MAX);
            error.0.retry_after = Some(seconds.max(DEFAULT_RETRY_AFTER_SECONDS));
        }
        error
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let ErrorParts {
            kind: ErrorKind { status, code, .. },
            message,
            details,
            retry_after,
            closes_connection,
        } = *self.0;
        let mut response = response::json(status, &Failure { ok: false, error: code, message, details });
        let headers = response.headers_mut();
        if closes_connection {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UPGRADE_REQUIRED {
            // RFC 6455 section 4.4: the supported version.
            headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        if status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
            // RFC 9110 section 15.5.16: the supported encodings.
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        if status == StatusCode::UNAUTHORIZED {
            // RFC 9110 section 11.6.1.
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
