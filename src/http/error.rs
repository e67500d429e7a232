//! The one table of errors: which status and which code each has.
//!
//! Clients branch on the code; the message is for the person behind them.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::daemon::DaemonError;
use crate::http::response;
use crate::journal::Gone;

/// How soon it makes sense to ask again, in seconds.
const DEFAULT_RETRY_AFTER_SECONDS: u64 = 1;

/// How every failure looks.
#[derive(Serialize, JsonSchema)]
pub(super) struct Failure {
    #[schemars(extend("const" = false))]
    ok: bool,
    /// What programs tell failures apart by.
    error: &'static str,
    /// What happened, to which thing, and what to do, for a person.
    message: String,
    /// What there is to know beside the message, depending on the code.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Map<String, Value>")]
    details: Option<Value>,
}

/// A status and a code that an answer can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cause {
    pub(super) status: u16,
    pub(super) code: &'static str,
    /// When it is so, as a sentence.
    pub(super) when: &'static str,
}

const fn cause(status: u16, code: &'static str, when: &'static str) -> Cause {
    Cause { status, code, when }
}

pub(super) const BAD_REQUEST: Cause = cause(400, "bad_request", "The request itself is wrong.");
pub(super) const REJECTED: Cause =
    cause(400, "app_server_rejected", "The app-server refused what was passed on to it.");
pub(super) const UNAUTHORIZED: Cause =
    cause(401, "unauthorized", "The request needs the token, and has another or none.");
pub(super) const FORBIDDEN: Cause = cause(
    403,
    "forbidden",
    "The request comes from another user, for another host or from a foreign web page.",
);
pub(super) const NOT_FOUND: Cause = cause(404, "not_found", "There is no such thing.");
pub(super) const TOO_SLOW: Cause =
    cause(408, "request_timeout", "The request did not come to its end in time.");
pub(super) const NO_TURN: Cause = cause(409, "no_turn", "No turn is under way in the session.");
pub(super) const TURN_IN_PROGRESS: Cause =
    cause(409, "turn_in_progress", "Another turn is under way in the session.");
pub(super) const TURN_INTERRUPTED: Cause =
    cause(409, "turn_interrupted", "The turn was interrupted before it began.");
pub(super) const ALREADY_RESOLVED: Cause = cause(409, "already_resolved", "The request is over.");
pub(super) const NOT_ACTIVE: Cause = cause(409, "session_not_active", "The session takes no turns.");
pub(super) const QUEUE_FULL: Cause = cause(409, "queue_full", "Too many turns wait in the session.");
pub(super) const TRUST_UNDECIDED: Cause =
    cause(409, "trust_undecided", "Nobody has said whether the directory is trusted.");
pub(super) const THREAD_LOCKED: Cause = cause(409, "thread_locked", "Another program has the thread open.");
pub(super) const THREAD_UNAVAILABLE: Cause = cause(
    409,
    "thread_unavailable",
    "Codex cannot open the thread: its history is not there, or it is archived.",
);
pub(super) const OUTCOME_UNKNOWN: Cause =
    cause(409, "outcome_unknown", "Whether the turn of an earlier request began cannot be found out.");
pub(super) const CURSOR_GONE: Cause = cause(410, "cursor_gone", "The cursor leads nowhere.");
pub(super) const TOO_LARGE: Cause = cause(413, "payload_too_large", "The body is over the limit.");
pub(super) const UNSUPPORTED: Cause =
    cause(415, "unsupported_media_type", "The body comes in an encoding that is not decoded.");
pub(super) const KEY_REUSED: Cause =
    cause(422, "idempotency_key_reused", "The Idempotency-Key belongs to another request.");
pub(super) const UPGRADE_REQUIRED: Cause =
    cause(426, "bad_request", "The client speaks another version of WebSocket.");
pub(super) const HEAD_TOO_LARGE: Cause = cause(431, "headers_too_large", "The head is over the limit.");
pub(super) const INTERNAL: Cause = cause(500, "internal_error", "codexd has a fault.");
pub(super) const APP_SERVER_ERROR: Cause =
    cause(502, "app_server_error", "The app-server answered with an error.");
pub(super) const UNAVAILABLE: Cause =
    cause(503, "app_server_unavailable", "There is no app-server to talk to now.");
pub(super) const OVERLOADED: Cause =
    cause(503, "overloaded", "The app-server has too much to do, or there are too many connections.");
pub(super) const STORAGE: Cause = cause(
    503,
    "storage_unavailable",
    "The event log cannot be used, or a directory or file that the request needs does not answer.",
);
pub(super) const SHUTTING_DOWN: Cause = cause(503, "shutting_down", "The daemon stops.");
pub(super) const TIMEOUT: Cause = cause(504, "app_server_timeout", "The app-server did not answer in time.");

/// Every status and code that there is.
const CAUSES: &[Cause] = &[
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
    CAUSES.iter().any(|cause| cause.status == status.as_u16() && cause.code == code)
}

/// An answer that says why something was not done; boxed, because it is the rare case of every result.
#[derive(Debug)]
pub(super) struct ApiError(Box<Parts>);

#[derive(Debug)]
struct Parts {
    status: StatusCode,
    code: &'static str,
    message: String,
    details: Option<Value>,
    retry_after: Option<u64>,
    /// Whether the connection ends with it.
    is_last: bool,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        debug_assert!(is_listed(status, code), "{status} {code} is not in the table");
        Self(Box::new(Parts {
            status,
            code,
            message: message.into(),
            details: None,
            retry_after: None,
            is_last: false,
        }))
    }

    /// The request itself is wrong.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// The head can be read in two ways or in none, because it breaks this rule, half a sentence.
    pub(super) fn malformed(rule: &str) -> Self {
        Self::bad_request(format!("The head of the request cannot be trusted: {rule}."))
    }

    /// The request has not the token that it needs; nothing is said about what it has.
    pub(super) fn unauthorized() -> Self {
        let message = "A request needs the header Authorization: Bearer TOKEN, with the token from the file that \
                       --auth-token-file names.";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    /// The request comes from somebody who has no business here.
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
        let message = "The head of the request is over the limit of 16 KiB or 100 headers.";
        Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", message)
    }

    /// There are too many of something.
    pub(super) fn overloaded(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message).retry()
    }

    /// codexd has a fault.
    pub(super) fn internal() -> Self {
        Self::from(DaemonError::Internal)
    }

    /// There is no such thing.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// The body is longer than `limit` bytes.
    pub(super) fn payload_too_large(limit: usize) -> Self {
        let message = format!("The request body is over the limit of {limit} bytes.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", message)
    }

    /// The body comes in an encoding.
    pub(super) fn unsupported_encoding() -> Self {
        let message = "The body of the request has a Content-Encoding, and codexd decodes none; send it as it is, \
                       without that header.";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
    }

    /// The client speaks another version of WebSocket.
    pub(super) fn upgrade_required(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UPGRADE_REQUIRED, "bad_request", message)
    }

    /// The cursor leads nowhere; `gap` says what there is instead.
    pub(super) fn cursor_gone(gap: Value, gone: Gone) -> Self {
        let message = format!(
            "The events cannot be read on from there: {gone}; read the sessions anew and go on after {}.",
            gap["cursor"].as_str().unwrap_or_default()
        );
        Self::new(StatusCode::GONE, "cursor_gone", message).with_details(gap)
    }

    /// The event log cannot be read.
    pub(super) fn unreadable(error: &std::io::Error) -> Self {
        tracing::error!(%error, "the event log cannot be read");
        let message = format!("The event log cannot be read ({error}); see to the disk of the logs folder.");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "storage_unavailable", message).retry()
    }

    /// A directory or file that the request needs does not answer.
    pub(super) fn disk(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "storage_unavailable", message).retry()
    }

    /// Its status.
    pub(super) fn status(&self) -> u16 {
        self.0.status.as_u16()
    }

    /// What it says to a person.
    pub(super) fn message(&self) -> &str {
        &self.0.message
    }

    /// The error as the last answer of a connection.
    pub(super) fn to_wire(&self) -> Bytes {
        let Parts { status, code, message, details, retry_after, is_last: _ } = &*self.0;
        let (message, details) = (message.clone(), details.clone());
        response::raw_response(*status, *retry_after, &Failure { ok: false, error: code, message, details })
    }

    /// The error as the last answer to an ordinary request: whatever else comes on the connection is not read.
    pub(super) fn into_last_response(self) -> Response {
        self.last().into_response()
    }

    /// The same, after which the connection ends.
    pub(super) fn last(mut self) -> Self {
        self.0.is_last = true;
        self
    }

    /// The error as a part of another message.
    pub(super) fn to_json(&self) -> Value {
        json!({ "error": self.0.code, "message": self.0.message, "details": self.0.details })
    }

    fn with_details(mut self, details: Value) -> Self {
        self.0.details = Some(details);
        self
    }

    fn retry(mut self) -> Self {
        self.0.retry_after = Some(DEFAULT_RETRY_AFTER_SECONDS);
        self
    }

    /// Says when it makes sense to ask again, in whole seconds and never "at once"; soon when that is not known.
    fn retry_after(mut self, time: Option<Duration>) -> Self {
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
            DaemonError::Overloaded => new(S::SERVICE_UNAVAILABLE, "overloaded").retry(),
            DaemonError::Unavailable { retry_after, .. } => {
                new(S::SERVICE_UNAVAILABLE, "app_server_unavailable").retry_after(retry_after)
            }
            DaemonError::Timeout { .. } | DaemonError::StillOpening { .. } => {
                new(S::GATEWAY_TIMEOUT, "app_server_timeout")
            }
            DaemonError::Storage(_) => new(S::SERVICE_UNAVAILABLE, "storage_unavailable").retry(),
            DaemonError::Internal => new(S::INTERNAL_SERVER_ERROR, "internal_error"),
            DaemonError::ShuttingDown => new(S::SERVICE_UNAVAILABLE, "shutting_down").retry(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Parts { status, code, message, details, retry_after, is_last } = *self.0;
        let mut response = response::json(status, &Failure { ok: false, error: code, message, details });
        let headers = response.headers_mut();
        if is_last {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UPGRADE_REQUIRED {
            // RFC 6455 section 4.4: the version that is spoken here.
            headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        if status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
            // RFC 9110 section 15.5.16: what would be taken.
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        if status == StatusCode::UNAUTHORIZED {
            // RFC 9110 section 11.6.1.
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
