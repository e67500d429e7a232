//! The error of every daemon operation; the HTTP layer maps each variant to a status and an error code.

use std::sync::Arc;
use std::time::Duration;

use super::directory_access::explain;
use crate::codex::CallError;
use crate::codex::protocol::{errors, versions};
use crate::config::Platform;
use crate::hooks::HookError;
use crate::ids::{HookId, RequestId, SessionId, ThreadId, TurnId};
use crate::state::ServerRequest;
use crate::timestamp::Timestamp;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The request is not valid.
    #[error("{0}")]
    Invalid(String),
    /// There is no session with this ID.
    #[error("Unknown codexd session \"{0}\".")]
    UnknownSession(SessionId),
    /// The session has no turn with this ID.
    #[error("Unknown codexd turn \"{turn_id}\" in session \"{session_id}\".")]
    UnknownTurn {
        /// The session.
        session_id: SessionId,
        /// The turn.
        turn_id: TurnId,
    },
    /// The session has no queued turn with this ID.
    #[error(
        "No turn \"{queue_id}\" is queued in session \"{session_id}\"; it may have started, or been rejected or withdrawn. The session lists its queued turns."
    )]
    NotQueued {
        /// The session.
        session_id: SessionId,
        /// The queue ID of the turn.
        queue_id: String,
    },
    /// The turn was interrupted before it was sent to the app-server.
    #[error(
        "The turn for session \"{0}\" was interrupted before it started; submit it again if you still need it."
    )]
    TurnWithdrawn(SessionId),
    /// No turn is running.
    #[error("No turn is running in session \"{0}\".")]
    NoTurn(SessionId),
    /// Another turn than the requested one is running.
    #[error("Another turn is running in session \"{session_id}\": {turn_id}.")]
    OtherTurn {
        /// The session.
        session_id: SessionId,
        /// The running turn.
        turn_id: TurnId,
    },
    /// There is no server request with this ID.
    #[error("Unknown codexd request \"{0}\".")]
    UnknownRequest(RequestId),
    /// The server request was answered before, or the app-server no longer waits for it.
    #[error("Request \"{}\" is already resolved. {}", .0.request_id, .0.resolution())]
    AlreadyResolved(Arc<ServerRequest>),
    /// The session is closed and accepts no turns.
    #[error(
        "Session \"{session_id}\" is not active: {reason} Create or resume one with POST /v1/codexd/sessions."
    )]
    SessionNotActive {
        /// The session.
        session_id: SessionId,
        /// Why it was closed, as a sentence.
        reason: String,
    },
    /// The session has no thread in the app-server.
    #[error("Session \"{0}\" does not have an app-server thread.")]
    NoThread(SessionId),
    /// The client must decide whether the directory is trusted.
    #[error(
        "The directory {cwd} has its own Codex configuration ({}), and it is not decided whether it is trusted; send \
         \"trust\": true to use it, or \"trust\": false.",
        .left_out.join(", ")
    )]
    TrustUndecided {
        /// The directory.
        cwd: String,
        /// The `.codex` directories that would be used.
        left_out: Vec<String>,
    },
    /// The session is busy with a turn.
    #[error(
        "Session \"{session_id}\" is busy with turn {turn_id}; wait for it, steer it with \"expectedTurnId\", or send \
         \"whenBusy\": \"steer\" or \"queue\"."
    )]
    TurnInProgress {
        /// The session.
        session_id: SessionId,
        /// The running turn.
        turn_id: TurnId,
    },
    /// The thread of the session is archived.
    #[error(
        "The thread of session \"{0}\" is archived; unarchive it first, with PATCH /v1/codexd/sessions/{0} and \
         {{\"archived\": false}}."
    )]
    Archived(SessionId),
    /// Something runs in the thread of the session, or waits for it.
    #[error(
        "Session \"{session_id}\" cannot be archived while {}, because Codex would interrupt it; wait for it, or interrupt or \
         withdraw it first.",
        busy(.turn_id.as_ref(), *.queued)
    )]
    CannotArchive {
        /// The session.
        session_id: SessionId,
        /// The running turn.
        turn_id: Option<TurnId>,
        /// The number of queued turns.
        queued: usize,
    },
    /// The session's queue is full.
    #[error("Session \"{session_id}\" has {limit} queued turns already; wait until some of them have run.")]
    QueueFull {
        /// The session.
        session_id: SessionId,
        /// The maximum number of queued turns.
        limit: usize,
    },
    /// Another process writes the session's thread.
    #[error(
        "Thread {thread_id} is in use by another Codex process ({reason}); end that process, such as Codex in a terminal or \
         an editor, and try again, or share one app-server with it (--server-strategy shared, Codex 0.160 or newer)."
    )]
    ThreadLocked {
        /// The thread.
        thread_id: ThreadId,
        /// The app-server's message.
        reason: String,
    },
    /// Codex cannot open the session's thread.
    #[error(
        "Codex cannot open thread {thread_id} of session \"{session_id}\" ({reason}); check that CODEX_HOME exists and is \
         the directory in which the thread was created, or unarchive the thread, and try again."
    )]
    ThreadUnavailable {
        /// The session.
        session_id: SessionId,
        /// The thread.
        thread_id: ThreadId,
        /// The app-server's message.
        reason: String,
    },
    /// It cannot be found out whether a turn that was sent to the app-server started.
    #[error(
        "It is unknown whether the turn that was submitted to session \"{session_id}\" at {submitted_at} started ({reason}), so \
         it is not started again; check the thread, and send the turn as a new request if it is not there."
    )]
    OutcomeUnknown {
        /// The session.
        session_id: SessionId,
        /// The earliest time at which it may have been sent to the app-server, RFC 3339.
        submitted_at: Timestamp,
        /// Why it cannot be found out.
        reason: String,
    },
    /// The Idempotency-Key of an earlier request was used for a different one.
    #[error(
        "The Idempotency-Key \"{0}\" was used for another request within 24 hours; use a new one for this request."
    )]
    KeyReused(String),
    /// A client asked for a call that codexd makes itself.
    #[error("codexd calls {method} itself; use {instead}.")]
    OwnedMethod {
        /// The method.
        method: String,
        /// The route to use instead.
        instead: &'static str,
    },
    /// A client asked for a call that the configuration does not allow.
    #[error(
        "--app-server-calls {allowed} does not allow {method}, which {reason}. Start codexd with --app-server-calls {needed} \
         to allow it."
    )]
    CallNotAllowed {
        /// The method.
        method: String,
        /// The value of the setting.
        allowed: &'static str,
        /// The value that allows it.
        needed: &'static str,
        /// Why, as the end of a sentence about the method.
        reason: &'static str,
    },
    /// The app-server rejected the request as invalid.
    #[error("The app-server rejected {method}: {message}")]
    Rejected {
        /// The called method.
        method: String,
        /// Its error code.
        code: i64,
        /// Its error message.
        message: String,
    },
    /// The app-server does not have the method.
    #[error("{explanation}")]
    UnknownMethod {
        /// The called method.
        method: String,
        /// Its error code.
        code: i64,
        /// The same in a sentence that says what to do.
        explanation: String,
    },
    /// The app-server is too old for a turn that must not start twice.
    #[error(
        "Codex {version} does not report which turn was started by which request, so it gets no turn with an \
         Idempotency-Key and no queued turn; install version {} or newer with \"{}\".",
        versions::text(versions::MINIMUM),
        versions::UPGRADE_COMMAND
    )]
    CodexTooOld {
        /// Its version.
        version: String,
    },
    /// The app-server is too old to fork a thread at a turn.
    #[error(
        "Codex {version} copies all turns of a thread, so it cannot end a fork with \"lastTurnId\"; install version 0.160.0 or \
         newer with \"{}\".",
        versions::UPGRADE_COMMAND
    )]
    CannotForkAtTurn {
        /// Its version.
        version: String,
    },
    /// The app-server failed, or its response could not be decoded.
    #[error("The app-server failed at {method}: {message}")]
    AppServer {
        /// The called method.
        method: String,
        /// Its error code, if it sent one.
        code: Option<i64>,
        /// Its error message.
        message: String,
    },
    /// The app-server is overloaded.
    #[error("The app-server is overloaded; try again in a moment.")]
    Overloaded,
    /// The app-server is not available.
    #[error("The app-server is not available: {reason}")]
    Unavailable {
        /// Why, as a sentence.
        reason: String,
        /// How long until it is started again, where that is known.
        retry_after: Option<Duration>,
    },
    /// The app-server did not answer in time.
    #[error(
        "The app-server did not answer {method} within {seconds} s; whether it took effect is unknown, so check \
         the session before trying again."
    )]
    Timeout {
        /// The called method.
        method: String,
        /// The time limit.
        seconds: u64,
    },
    /// The app-server did not open a thread in time; the session is recorded when it does.
    #[error(
        "The app-server has not answered {method} within {seconds} s (--call-timeout); the session is recorded when it does, \
         so check GET /v1/codexd/sessions, or repeat the request with its Idempotency-Key to wait for it."
    )]
    StillOpening {
        /// The called method.
        method: &'static str,
        /// The time limit.
        seconds: u64,
    },
    /// There is no hook with this ID.
    #[error("Unknown codexd hook \"{0}\".")]
    UnknownHook(HookId),
    /// A hook has the name already.
    #[error("{0}")]
    HookExists(String),
    /// There are as many hooks as there can be.
    #[error("{0}")]
    TooManyHooks(String),
    /// A state file cannot be written.
    #[error("{0}")]
    StateFile(String),
    /// The app-server is not one that codexd may end.
    #[error("{0}")]
    NotOurs(String),
    /// The event log cannot be written.
    #[error("The event log cannot be written ({0}); check the disk of the logs directory and try again.")]
    Storage(Arc<str>),
    /// A bug in codexd, such as a panic.
    #[error("Internal error; see the daemon log.")]
    Internal,
    /// The daemon is shutting down.
    #[error("codexd is shutting down; try again when it is back.")]
    ShuttingDown,
}

/// When a call may be tried again that an app-server refused because it shuts down.
const SHUTDOWN_RETRY_AFTER: Duration = Duration::from_secs(2);

impl DaemonError {
    /// Whether the app-server answered with an error.
    pub(super) fn is_app_server_error(&self) -> bool {
        matches!(
            self,
            DaemonError::Rejected { .. } | DaemonError::UnknownMethod { .. } | DaemonError::AppServer { .. }
        )
    }

    /// Whether it is certain that the call had no effect in the app-server.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(
            self,
            DaemonError::Rejected { .. }
                | DaemonError::UnknownMethod { .. }
                | DaemonError::AppServer { code: Some(_), .. }
                | DaemonError::Overloaded
        )
    }
}

/// What a thread is busy with.
fn busy(turn_id: Option<&TurnId>, queued: usize) -> String {
    match (turn_id, queued) {
        (Some(turn_id), _) => format!("turn {turn_id} is running in its thread"),
        (None, 1) => "a turn is queued in its thread".to_owned(),
        (None, queued) => format!("{queued} turns are queued in its thread"),
    }
}

impl From<HookError> for DaemonError {
    fn from(error: HookError) -> Self {
        let message = error.to_string();
        match error {
            HookError::Invalid(message) => DaemonError::Invalid(message),
            HookError::Exists(_) => DaemonError::HookExists(message),
            HookError::TooMany => DaemonError::TooManyHooks(message),
            HookError::Unknown(hook_id) => DaemonError::UnknownHook(hook_id),
            HookError::Storage(_) => DaemonError::StateFile(message),
            HookError::Stopping => DaemonError::ShuttingDown,
        }
    }
}

impl From<CallError> for DaemonError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Closed { cause } => DaemonError::Unavailable {
                reason: format!("the connection ended during the call: {cause}."),
                retry_after: None,
            },
            CallError::Timeout { method, after } => DaemonError::Timeout { method, seconds: after.as_secs() },
            CallError::Refused { method, error } => match error.code {
                errors::OVERLOADED => DaemonError::Overloaded,
                _ if errors::is_shutting_down(&error.message, error.data.as_deref()) => {
                    DaemonError::Unavailable {
                        reason: "It is shutting down and takes no new work.".to_owned(),
                        retry_after: Some(SHUTDOWN_RETRY_AFTER),
                    }
                }
                code @ (errors::INVALID_REQUEST | errors::INVALID_PARAMS) => DaemonError::Rejected {
                    method,
                    code,
                    message: explain(Platform::current(), error.message),
                },
                code => {
                    let message = explain(Platform::current(), error.message);
                    DaemonError::AppServer { method, code: Some(code), message }
                }
            },
            CallError::UnknownMethod { method, code, explanation } => {
                DaemonError::UnknownMethod { method, code, explanation }
            }
            CallError::Malformed { method, reason } => {
                DaemonError::AppServer { method, code: None, message: reason }
            }
        }
    }
}
