//! Why a use case could not be carried out, in terms of the use case.

use std::sync::Arc;
use std::time::Duration;

use crate::codex::CallError;
use crate::codex::protocol::errors;
use crate::state::ServerRequest;

/// Why the daemon did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The request cannot be right.
    #[error("{0}")]
    Invalid(String),
    /// There is no session of that name.
    #[error("Unknown codexd session \"{0}\".")]
    UnknownSession(String),
    /// There is no turn of that name.
    #[error("Unknown codexd turn \"{turn_id}\" in session \"{session_id}\".")]
    UnknownTurn {
        /// The session.
        session_id: String,
        /// The turn.
        turn_id: String,
    },
    /// No turn of that name waits.
    #[error(
        "In session \"{session_id}\" no turn \"{queue_id}\" waits; it may have begun, been refused or been taken back, and the session lists those that wait."
    )]
    NotQueued {
        /// The session.
        session_id: String,
        /// The turn, by its name in the queue.
        queue_id: String,
    },
    /// The turn was interrupted before the app-server heard of it.
    #[error(
        "The turn for session \"{0}\" was interrupted before it began; submit it again if it is still wanted."
    )]
    TurnWithdrawn(String),
    /// No turn runs.
    #[error("In session \"{0}\" no turn runs.")]
    NoTurn(String),
    /// Another turn runs than the one that was named.
    #[error("In session \"{session_id}\" another turn runs: {turn_id}.")]
    OtherTurn {
        /// The session.
        session_id: String,
        /// The turn that runs.
        turn_id: String,
    },
    /// There is no request of that name.
    #[error("Unknown codexd request \"{0}\".")]
    UnknownRequest(String),
    /// Somebody answered first, or the request is no longer wanted.
    #[error("Request \"{}\" is over already.", .0.request_id)]
    AlreadyResolved(Arc<ServerRequest>),
    /// The session takes no turns.
    #[error(
        "Session \"{session_id}\" is not active: {reason} Create or resume one with POST /v1/codexd/sessions."
    )]
    SessionNotActive {
        /// The session.
        session_id: String,
        /// Why it was closed, as a sentence.
        reason: String,
    },
    /// The session has no thread in the app-server.
    #[error("Session \"{0}\" does not have an app-server thread.")]
    NoThread(String),
    /// Whether a directory is trusted was to be asked, and nobody has answered.
    #[error(
        "The directory {cwd} has its own Codex configuration ({}), and nobody has said whether it is trusted; send \
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
        "Session \"{session_id}\" is busy with turn {turn_id}; wait for it, steer it with \"expectedTurnId\", or say \
         \"whenBusy\": \"steer\" or \"queue\"."
    )]
    TurnInProgress {
        /// The session.
        session_id: String,
        /// The turn that runs.
        turn_id: String,
    },
    /// Too many turns wait in the session.
    #[error("In session \"{session_id}\" {limit} turns wait already; wait until some of them ran.")]
    QueueFull {
        /// The session.
        session_id: String,
        /// How many may wait.
        limit: usize,
    },
    /// Another process writes the session's thread.
    #[error(
        "Thread {thread_id} is in use by another Codex process ({reason}); end that one, such as a Codex in a terminal or \
         an editor, and try again."
    )]
    ThreadLocked {
        /// The thread.
        thread_id: String,
        /// What the app-server says.
        reason: String,
    },
    /// Codex cannot open the session's thread.
    #[error(
        "Codex cannot open thread {thread_id} of session \"{session_id}\" ({reason}); see that CODEX_HOME is there and is \
         the directory that the thread was made in, or unarchive the thread, and try again."
    )]
    ThreadUnavailable {
        /// The session.
        session_id: String,
        /// The thread.
        thread_id: String,
        /// What the app-server says.
        reason: String,
    },
    /// Whether a turn that was given to the app-server began cannot be found out.
    #[error(
        "Whether the turn began that was given to session \"{session_id}\" at {submitted_at} is unknown ({reason}), so it is \
         not started again; look at the thread, and send it as a new request if it is not there."
    )]
    OutcomeUnknown {
        /// The session.
        session_id: String,
        /// When it was given to the app-server at the earliest, RFC 3339.
        submitted_at: String,
        /// Why it cannot be found out.
        reason: String,
    },
    /// The word of an earlier request was used for another one.
    #[error(
        "The Idempotency-Key \"{0}\" was used for another request within 24 hours; use a new one for this request."
    )]
    KeyReused(String),
    /// The app-server says that the request is wrong.
    #[error("The app-server rejected {method}: {message}")]
    Rejected {
        /// What it was asked.
        method: String,
        /// Its error code.
        code: i64,
        /// Its reason.
        message: String,
    },
    /// The app-server failed, or answered something that cannot be understood.
    #[error("The app-server failed at {method}: {message}")]
    AppServer {
        /// What it was asked.
        method: String,
        /// Its error code, if it gave one.
        code: Option<i64>,
        /// Its reason.
        message: String,
    },
    /// The app-server has too much to do.
    #[error("The app-server is overloaded; try again in a moment.")]
    Overloaded,
    /// There is no app-server to ask.
    #[error("The app-server is not available: {reason}")]
    Unavailable {
        /// Why, as a sentence.
        reason: String,
        /// How long until it is started again, where that is known.
        retry_after: Option<Duration>,
    },
    /// The app-server did not answer in time.
    #[error(
        "The app-server did not answer {method} within {seconds} s; whether it took effect is unknown, so look at \
         the session before trying again."
    )]
    Timeout {
        /// What it was asked.
        method: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The app-server did not open a thread in time; the session is recorded when it does.
    #[error(
        "The app-server has not answered {method} within {seconds} s (--call-timeout); the session is kept as soon as it does, \
         so look for it in GET /v1/codexd/sessions, or repeat the request with its Idempotency-Key to wait for it."
    )]
    StillOpening {
        /// What it was asked.
        method: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// The event log cannot be written.
    #[error("The event log cannot be written ({0}); see to the disk of the logs folder and try again.")]
    Storage(Arc<str>),
    /// codexd has a fault.
    #[error("codexd met a fault of its own and did not finish this; its log says where.")]
    Internal,
    /// The daemon is going away.
    #[error("codexd is shutting down; try again when it is back.")]
    ShuttingDown,
}

impl DaemonError {
    /// Whether the app-server answered, though not with what was asked for.
    pub(super) fn is_app_server_error(&self) -> bool {
        matches!(self, DaemonError::Rejected { .. } | DaemonError::AppServer { .. })
    }

    /// The method of which the app-server says that it has none of that name.
    ///
    /// Codex gives nearly every error the same code, so its text decides.
    pub(super) fn unknown_method(&self) -> Option<&str> {
        match self {
            DaemonError::Rejected { method, message, .. } if errors::is_unknown_method(message) => {
                Some(method)
            }
            DaemonError::AppServer { method, code: Some(errors::METHOD_NOT_FOUND), .. } => Some(method),
            _ => None,
        }
    }

    /// Whether it is sure that the app-server did not do what it was asked.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(
            self,
            DaemonError::Rejected { .. }
                | DaemonError::AppServer { code: Some(_), .. }
                | DaemonError::Overloaded
        )
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
                code @ (errors::INVALID_REQUEST | errors::INVALID_PARAMS) => {
                    DaemonError::Rejected { method, code, message: error.message }
                }
                code => DaemonError::AppServer { method, code: Some(code), message: error.message },
            },
            CallError::Malformed { method, reason } => {
                DaemonError::AppServer { method, code: None, message: reason }
            }
        }
    }
}
