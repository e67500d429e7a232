//! The API errors: every status and code, and the response for each.
//!
//! All handlers return [`ApiError`]; [`DaemonError`] is converted here. Stateless.
//!
//! Invariant: every error has a status and code from [`ERROR_KINDS`], which the OpenAPI document lists. Clients branch on
//! the code; the message is for the user.

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

/// A status and a code of an error response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ErrorKind {
    pub(super) status: u16,
    pub(super) code: &'static str,
    /// When it is returned, as a sentence.
    pub(super) when: &'static str,
}

const fn kind(status: u16, code: &'static str, when: &'static str) -> ErrorKind {
    ErrorKind { status, code, when }
}

pub(super) const BAD_REQUEST: ErrorKind = kind(400, "bad_request", "The request is invalid.");
pub(super) const REJECTED: ErrorKind =
    kind(400, "app_server_rejected", "The app-server rejected the forwarded request.");
pub(super) const UNAUTHORIZED: ErrorKind =
    kind(401, "unauthorized", "The request has no token or a wrong one.");
pub(super) const FORBIDDEN: ErrorKind = kind(
    403,
    "forbidden",
    "The request comes from another user, is for another host, or comes from a foreign web page.",
);
pub(super) const NOT_FOUND: ErrorKind = kind(404, "not_found", "Resource not found.");
pub(super) const TOO_SLOW: ErrorKind = kind(408, "request_timeout", "The request was not complete in time.");
pub(super) const NO_TURN: ErrorKind = kind(409, "no_turn", "No turn is in progress in the session.");
pub(super) const TURN_IN_PROGRESS: ErrorKind =
    kind(409, "turn_in_progress", "Another turn is in progress in the session.");
pub(super) const TURN_INTERRUPTED: ErrorKind =
    kind(409, "turn_interrupted", "The turn was interrupted before it started.");
pub(super) const ALREADY_RESOLVED: ErrorKind =
    kind(409, "already_resolved", "The request is already resolved.");
pub(super) const NOT_ACTIVE: ErrorKind = kind(409, "session_not_active", "The session accepts no turns.");
pub(super) const QUEUE_FULL: ErrorKind = kind(409, "queue_full", "The queue of the session is full.");
pub(super) const TRUST_UNDECIDED: ErrorKind =
    kind(409, "trust_undecided", "The user has not decided whether the directory is trusted.");
pub(super) const THREAD_LOCKED: ErrorKind =
    kind(409, "thread_locked", "Another program has the thread open.");
pub(super) const THREAD_UNAVAILABLE: ErrorKind = kind(
    409,
    "thread_unavailable",
    "Codex cannot open the thread: its history is missing, or it is archived.",
);
pub(super) const OUTCOME_UNKNOWN: ErrorKind =
    kind(409, "outcome_unknown", "It is unknown whether the turn of an earlier request started.");
pub(super) const CURSOR_GONE: ErrorKind = kind(410, "cursor_gone", "The cursor has expired or is invalid.");
pub(super) const TOO_LARGE: ErrorKind = kind(413, "payload_too_large", "The body exceeds the limit.");
pub(super) const UNSUPPORTED: ErrorKind =
    kind(415, "unsupported_media_type", "The Content-Encoding of the body is not supported.");
pub(super) const KEY_REUSED: ErrorKind =
    kind(422, "idempotency_key_reused", "The Idempotency-Key belongs to another request.");
pub(super) const UPGRADE_REQUIRED: ErrorKind =
    kind(426, "bad_request", "The client uses another version of WebSocket.");
pub(super) const HEAD_TOO_LARGE: ErrorKind = kind(431, "headers_too_large", "The head exceeds the limit.");
pub(super) const INTERNAL: ErrorKind = kind(500, "internal_error", "Internal error of codexd.");
pub(super) const APP_SERVER_ERROR: ErrorKind =
    kind(502, "app_server_error", "The app-server answered with an error.");
pub(super) const UNAVAILABLE: ErrorKind = kind(503, "app_server_unavailable", "No app-server is available.");
pub(super) const OVERLOADED: ErrorKind =
    kind(503, "overloaded", "The app-server is overloaded, or there are too many connections.");
pub(super) const STORAGE: ErrorKind = kind(
    503,
    "storage_unavailable",
    "The event log is unavailable, or a directory or file that the request needs does not answer.",
);
pub(super) const SHUTTING_DOWN: ErrorKind = kind(503, "shutting_down", "The daemon is stopping.");
pub(super) const TIMEOUT: ErrorKind =
    kind(504, "app_server_timeout", "The app-server did not answer in time.");

/// Every status and code.
const ERROR_KINDS: &[ErrorKind] = &[
    BAD_REQUEST,
    REJECTED,
    UNAUTHORIZED,
    FORBIDDEN,
    NOT_FOUND,
    TOO_SLOW,
    NO_TURN,
    TURN_IN_PROGRESS,
    TURN_INTERRUPTED,
    ALREADY_RESOLVED,
    NOT_ACTIVE,
    QUEUE_FULL,
    TRUST_UNDECIDED,
    THREAD_LOCKED,
    THREAD_UNAVAILABLE,
    OUTCOME_UNKNOWN,
    CURSOR_GONE,
    TOO_LARGE,
    UNSUPPORTED,
    KEY_REUSED,
    UPGRADE_REQUIRED,
    HEAD_TOO_LARGE,
    INTERNAL,
    APP_SERVER_ERROR,
    UNAVAILABLE,
    OVERLOADED,
    STORAGE,
    SHUTTING_DOWN,
    TIMEOUT,
];

fn is_listed(status: StatusCode, code: &str) -> bool {
    ERROR_KINDS.iter().any(|kind| kind.status == status.as_u16() && kind.code == code)
}

/// An error response; boxed, because it is the rare variant of every result.
#[derive(Debug)]
pub(super) struct ApiError(Box<ErrorParts>);

#[derive(Debug)]
struct ErrorParts {
    status: StatusCode,
    code: &'static str,
    message: String,
    details: Option<Value>,
    retry_after: Option<u64>,
    /// Whether the connection is closed after it.
    closes_connection: bool,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        debug_assert!(is_listed(status, code), "{status} {code} is not in ERROR_KINDS");
        Self(Box::new(ErrorParts {
            status,
            code,
            message: message.into(),
            details: None,
            retry_after: None,
            closes_connection: false,
        }))
    }

    /// The request is invalid.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// The head is malformed or ambiguous; `rule` is the violated rule, as a clause.
    pub(super) fn malformed(rule: &str) -> Self {
        Self::bad_request(format!("Malformed request: {rule}."))
    }

    /// The request does not have the token that it needs; the message does not describe the token that it has.
    pub(super) fn unauthorized() -> Self {
        let message = "The request needs the header Authorization: Bearer TOKEN, with the token from the file that \
                       --auth-token-file names.";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    /// The client or page may not use codexd.
    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// This part of the request was not complete in time.
    pub(super) fn too_slow(part: &str, limit: Duration) -> Self {
        let message = format!("The {part} of the request was not complete within {} s.", limit.as_secs());
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", message)
    }

    /// The head is too long or has too many headers.
    pub(super) fn head_too_large() -> Self {
        let message = "The head of the request exceeds the limit of 16 KiB or 100 headers.";
        Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", message)
    }

    /// A limit is reached; the client may retry.
    pub(super) fn overloaded(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message).with_default_retry_after()
    }

    /// Internal error.
    pub(super) fn internal() -> Self {
        Self::from(DaemonError::Internal)
    }

    /// The resource does not exist.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// The body is longer than `limit` bytes.
    pub(super) fn payload_too_large(limit: usize) -> Self {
        let message = format!("The request body exceeds the limit of {limit} bytes.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", message)
    }

    /// The body has a Content-Encoding.
    pub(super) fn unsupported_encoding() -> Self {
        let message = "codexd supports no Content-Encoding; send the request body without it.";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
    }

    /// The client uses another version of WebSocket.
    pub(super) fn upgrade_required(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UPGRADE_REQUIRED, "bad_request", message)
    }

    /// The cursor has expired; `gap` holds the bounds of the log.
    pub(super) fn cursor_gone(gap: Value, expired: CursorExpired) -> Self {
        let message = format!(
            "The events cannot be read from this cursor: {expired}; read the sessions again and continue after {}.",
            gap["cursor"].as_str().unwrap_or_default()
        );
        Self::new(StatusCode::GONE, "cursor_gone", message).with_details(gap)
    }

    /// The event log cannot be read.
    pub(super) fn log_unreadable(error: &std::io::Error) -> Self {
        tracing::error!(%error, "failed to read the event log");
        let message =
            format!("Failed to read the event log ({error}); check the disk of the logs directory.");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "storage_unavailable", message).with_default_retry_after()
    }

    /// A directory or file that the request needs does not answer.
    pub(super) fn storage_unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "storage_unavailable", message).with_default_retry_after()
    }

    /// The HTTP status.
    pub(super) fn status(&self) -> u16 {
        self.0.status.as_u16()
    }

    /// The message for the user.
    pub(super) fn message(&self) -> &str {
        &self.0.message
    }

    /// The raw response, for a connection without an HTTP parser.
    pub(super) fn to_raw_response(&self) -> Bytes {
        let ErrorParts { status, code, message, details, retry_after, closes_connection: _ } = &*self.0;
        let (message, details) = (message.clone(), details.clone());
        response::raw_response(*status, *retry_after, &Failure { ok: false, error: code, message, details })
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
        json!({ "error": self.0.code, "message": self.0.message, "details": self.0.details })
    }

    fn with_details(mut self, details: Value) -> Self {
        self.0.details = Some(details);
        self
    }

    fn with_default_retry_after(mut self) -> Self {
        self.0.retry_after = Some(DEFAULT_RETRY_AFTER_SECONDS);
        self
    }

    /// Sets `Retry-After` to `time` in whole seconds, at least the default.
    fn with_retry_after(mut self, time: Option<Duration>) -> Self {
        let seconds = time.map_or(DEFAULT_RETRY_AFTER_SECONDS, |time| {
            time.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)
        });
        self.0.retry_after = Some(seconds.max(DEFAULT_RETRY_AFTER_SECONDS));
        self
    }
}

impl From<DaemonError> for ApiError {
    fn from(error: DaemonError) -> Self {
        use StatusCode as S;
        let message = error.to_string();
        let new = |status, code| Self::new(status, code, message);
        match error {
            DaemonError::Invalid(_) => new(S::BAD_REQUEST, "bad_request"),
            DaemonError::UnknownSession(_) => new(S::NOT_FOUND, "not_found"),
            DaemonError::UnknownTurn { .. } => new(S::NOT_FOUND, "not_found"),
            DaemonError::NotQueued { .. } => new(S::NOT_FOUND, "not_found"),
            DaemonError::TurnWithdrawn(_) => new(S::CONFLICT, "turn_interrupted"),
            DaemonError::NoTurn(_) => new(S::CONFLICT, "no_turn"),
            DaemonError::OtherTurn { session_id, turn_id } => new(S::CONFLICT, "turn_in_progress")
                .with_details(json!({ "sessionId": session_id, "turnId": turn_id })),
            DaemonError::UnknownRequest(_) => new(S::NOT_FOUND, "not_found"),
            DaemonError::AlreadyResolved(request) => {
                new(S::CONFLICT, "already_resolved").with_details(json!({ "request": request }))
            }
            DaemonError::NoThread(_) => new(S::CONFLICT, "session_not_active"),
            DaemonError::SessionNotActive { session_id, reason } => new(S::CONFLICT, "session_not_active")
                .with_details(json!({ "sessionId": session_id, "closedReason": reason })),
            DaemonError::TurnInProgress { session_id, turn_id } => new(S::CONFLICT, "turn_in_progress")
                .with_details(json!({ "sessionId": session_id, "turnId": turn_id })),
            DaemonError::QueueFull { session_id, limit } => new(S::CONFLICT, "queue_full")
                .with_details(json!({ "sessionId": session_id, "limit": limit })),
            DaemonError::TrustUndecided { cwd, left_out } => {
                new(S::CONFLICT, "trust_undecided").with_details(json!({ "cwd": cwd, "leftOut": left_out }))
            }
            DaemonError::ThreadLocked { thread_id, reason } => new(S::CONFLICT, "thread_locked")
                .with_details(json!({ "threadId": thread_id, "message": reason })),
            DaemonError::ThreadUnavailable { session_id, thread_id, reason } => {
                new(S::CONFLICT, "thread_unavailable").with_details(
                    json!({ "sessionId": session_id, "threadId": thread_id, "message": reason }),
                )
            }
            DaemonError::OutcomeUnknown { session_id, submitted_at, reason } => {
                new(S::CONFLICT, "outcome_unknown").with_details(
                    json!({ "sessionId": session_id, "submittedAt": submitted_at, "message": reason }),
                )
            }
            DaemonError::KeyReused(_) => new(S::UNPROCESSABLE_ENTITY, "idempotency_key_reused"),
            DaemonError::Rejected { method, code, message } => new(S::BAD_REQUEST, "app_server_rejected")
                .with_details(json!({ "code": code, "message": message, "method": method })),
            DaemonError::AppServer { method, code, message } => new(S::BAD_GATEWAY, "app_server_error")
                .with_details(json!({ "code": code, "message": message, "method": method })),
            DaemonError::Overloaded => new(S::SERVICE_UNAVAILABLE, "overloaded").with_default_retry_after(),
            DaemonError::Unavailable { retry_after, .. } => {
                new(S::SERVICE_UNAVAILABLE, "app_server_unavailable").with_retry_after(retry_after)
            }
            DaemonError::Timeout { .. } | DaemonError::StillOpening { .. } => {
                new(S::GATEWAY_TIMEOUT, "app_server_timeout")
            }
            DaemonError::Storage(_) => {
                new(S::SERVICE_UNAVAILABLE, "storage_unavailable").with_default_retry_after()
            }
            DaemonError::Internal => new(S::INTERNAL_SERVER_ERROR, "internal_error"),
            DaemonError::ShuttingDown => {
                new(S::SERVICE_UNAVAILABLE, "shutting_down").with_default_retry_after()
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let ErrorParts { status, code, message, details, retry_after, closes_connection } = *self.0;
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
