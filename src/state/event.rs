//! What an event is before it has a number, and what it means to the state.
//!
//! Every event has two faces: the text that goes into the log and to the clients ([`Draft`]), and the
//! [`Change`] it makes to the records.
//! A change is always readable from the text alone ([`Change::read`]), because after a restart the text is
//! all there is.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::session::Session;

/// The names of the events whose text changes a record; the rest only pass through.
pub mod event_type {
    #![expect(missing_docs, reason = "each constant is the name it holds")]
    pub const DAEMON_STARTED: &str = "daemon.started";
    pub const DAEMON_STOPPED: &str = "daemon.stopped";
    pub const CHILD_STARTED: &str = "child.started";
    pub const CHILD_EXITED: &str = "child.exited";
    pub const CHILD_ERROR: &str = "child.error";
    pub const CHILD_EXTERNAL: &str = "child.external";
    pub const CHILD_BACKOFF: &str = "child.backoff";
    pub const CHILD_CRASH_LOOP: &str = "child.crash_loop";
    pub const CHILD_SPAWN_FAILED: &str = "child.spawn.failed";
    pub const CONNECTED: &str = "app-server.connected";
    pub const CONNECT_FAILED: &str = "app-server.connect.failed";
    pub const TRANSPORT_CLOSED: &str = "app-server.transport.closed";
    pub const SESSION_CREATED: &str = "session.created";
    pub const SESSION_RESUMED: &str = "session.resumed";
    pub const SESSION_REGISTERED: &str = "session.registered";
    pub const SESSION_CLOSED: &str = "session.closed";
    pub const SESSION_FORGOTTEN: &str = "session.forgotten";
    pub const TURN_ACCEPTED: &str = "turn.accepted";
    pub const THREAD_STATUS_CHANGED: &str = "app-server.thread.status.changed";
    pub const TURN_STARTED: &str = "app-server.turn.started";
    pub const TURN_COMPLETED: &str = "app-server.turn.completed";
    pub const TURN_ERROR: &str = "app-server.turn.error";
    pub const TURN_MISSING: &str = "app-server.turn.completed.missing";
}

/// How much attention an event wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The ordinary course of things.
    Info,
    /// Something to look at when there is time.
    Warn,
    /// Something failed.
    Error,
}

impl Level {
    /// The word in the log: `info`, `warn` or `error`.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }
}

/// An event that has not been numbered yet.
#[derive(Debug, Clone)]
pub struct Draft {
    /// How much attention it wants.
    pub level: Level,
    /// Its name, such as `turn.accepted`.
    pub event_type: &'static str,
    /// One sentence for a person.
    pub message: String,
    /// The text of a JSON object, or `None` for `null`.
    pub detail: Option<String>,
    /// What it does to the records.
    pub change: Change,
}

impl Draft {
    /// An event that changes no record.
    pub fn note(level: Level, event_type: &'static str, message: impl Into<String>, detail: Value) -> Self {
        Self { level, event_type, message: message.into(), detail: text_of(detail), change: Change::None }
    }

    /// An event whose change is read from its own detail, so that it cannot differ from what a restart reads.
    pub fn change(level: Level, event_type: &'static str, message: impl Into<String>, detail: Value) -> Self {
        let message = message.into();
        let change = Change::read(event_type, &message, &detail);
        Self { level, event_type, message, detail: text_of(detail), change }
    }
}

fn text_of(detail: Value) -> Option<String> {
    if detail.is_null() { None } else { Some(detail.to_string()) }
}

/// What an event does to the records; see [`super::State::apply`] for the rules.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Nothing.
    None,
    /// The daemon began to serve.
    DaemonStarted {
        /// Its process id.
        pid: Option<u32>,
        /// `true` when the app-server is somebody else's process.
        external: bool,
    },
    /// The daemon ended in order.
    DaemonStopped,
    /// A child process exists; it has not answered yet.
    ChildStarted {
        /// Its process id.
        pid: Option<u32>,
        /// The how manieth it is in this life of the daemon, from 1.
        generation: Option<u64>,
    },
    /// The child answered `initialize`.
    Connected {
        /// The how manieth connection it is in this life of the daemon, from 1.
        generation: Option<u64>,
    },
    /// The child ended.
    ChildExited {
        /// Its exit code, absent when a signal ended it.
        code: Option<i32>,
        /// The signal's name, such as `SIGKILL`.
        signal: Option<String>,
        /// Whether its end was wanted.
        expected: bool,
        /// What went wrong, for the status.
        message: String,
    },
    /// The child could not be started, or failed while it ran.
    ChildFailed {
        /// What went wrong.
        message: String,
    },
    /// The child died and is started again later.
    ChildBackoff {
        /// When, RFC 3339, UTC, milliseconds.
        until: Option<String>,
        /// How often it died in a row.
        deaths: u64,
        /// Whether it dies so often that it is tried once a minute only.
        crash_loop: bool,
        /// What it died of.
        cause: String,
        /// The last lines of its stderr.
        stderr_tail: Vec<String>,
    },
    /// The app-server is somebody else's process.
    ChildExternal,
    /// The connection could not be made or was lost; a spawned child keeps its own status.
    ConnectionFailed {
        /// What went wrong.
        message: String,
    },
    /// A session came to be, or was replaced by a newer record of the same id.
    SessionOpened(Box<Session>),
    /// A session ended.
    SessionClosed {
        /// Which.
        session_id: String,
    },
    /// A closed session is no longer remembered.
    SessionForgotten {
        /// Which.
        session_id: String,
    },
    /// The app-server took a turn.
    TurnAccepted {
        /// The session it belongs to.
        session_id: String,
        /// The turn.
        turn_id: String,
    },
    /// A thread changed between idle and active.
    ThreadStatusChanged {
        /// The thread.
        thread_id: String,
    },
    /// A turn runs.
    TurnStarted {
        /// The thread.
        thread_id: String,
        /// The turn.
        turn_id: String,
        /// The app-server's word, normally `inProgress`.
        status: String,
    },
    /// A turn ended.
    TurnCompleted {
        /// The thread.
        thread_id: String,
        /// The turn.
        turn_id: String,
        /// `completed`, `interrupted`, `failed`, or a newer word.
        status: String,
    },
    /// A turn met an error.
    TurnError {
        /// The thread.
        thread_id: String,
        /// The turn.
        turn_id: String,
        /// Whether the app-server goes on by itself.
        will_retry: bool,
    },
    /// A turn was cut off by the end of its connection.
    TurnMissing {
        /// The session it belonged to.
        session_id: String,
        /// The turn.
        turn_id: String,
    },
}

impl Change {
    /// Reads the change from an event's own text; an unknown type or a detail that lacks what the change
    /// needs is [`Change::None`].
    pub fn read(event_type: &str, message: &str, detail: &Value) -> Self {
        Self::try_read(event_type, message, detail).unwrap_or(Change::None)
    }

    fn try_read(event_type: &str, message: &str, detail: &Value) -> Option<Self> {
        let text = |key: &str| detail.get(key).and_then(Value::as_str).map(str::to_owned);
        let number = |key: &str| detail.get(key).and_then(Value::as_u64);
        let texts = |key: &str| {
            let texts = detail.get(key).and_then(Value::as_array).into_iter().flatten();
            texts.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let pid = || detail.get("pid").and_then(Value::as_u64).and_then(|pid| u32::try_from(pid).ok());
        Some(match event_type {
            event_type::DAEMON_STARTED => Change::DaemonStarted {
                pid: pid(),
                external: detail.get("strategy").and_then(Value::as_str) == Some("external"),
            },
            event_type::DAEMON_STOPPED => Change::DaemonStopped,
            event_type::CHILD_STARTED => {
                Change::ChildStarted { pid: pid(), generation: number("generation") }
            }
            event_type::CHILD_EXITED => Change::ChildExited {
                code: detail.get("code").and_then(Value::as_i64).and_then(|code| i32::try_from(code).ok()),
                signal: text("signal"),
                expected: detail.get("expected").and_then(Value::as_bool).unwrap_or(false),
                message: message.to_owned(),
            },
            event_type::CHILD_ERROR | event_type::CHILD_SPAWN_FAILED => {
                Change::ChildFailed { message: message.to_owned() }
            }
            event_type::CHILD_EXTERNAL => Change::ChildExternal,
            event_type::CHILD_BACKOFF | event_type::CHILD_CRASH_LOOP => Change::ChildBackoff {
                until: text("until"),
                deaths: number("deaths").unwrap_or(0),
                crash_loop: event_type == event_type::CHILD_CRASH_LOOP,
                cause: text("cause").unwrap_or_else(|| message.to_owned()),
                stderr_tail: texts("stderrTail"),
            },
            event_type::CONNECTED => Change::Connected { generation: number("generation") },
            event_type::CONNECT_FAILED | event_type::TRANSPORT_CLOSED => {
                Change::ConnectionFailed { message: message.to_owned() }
            }
            event_type::SESSION_CREATED | event_type::SESSION_RESUMED | event_type::SESSION_REGISTERED => {
                let session = Session::deserialize(detail.get("session")?).ok()?;
                Change::SessionOpened(Box::new(session))
            }
            event_type::SESSION_CLOSED => Change::SessionClosed { session_id: text("sessionId")? },
            event_type::SESSION_FORGOTTEN => Change::SessionForgotten { session_id: text("sessionId")? },
            event_type::TURN_ACCEPTED => {
                Change::TurnAccepted { session_id: text("sessionId")?, turn_id: text("turnId")? }
            }
            event_type::THREAD_STATUS_CHANGED => Change::ThreadStatusChanged { thread_id: text("threadId")? },
            event_type::TURN_STARTED => Change::TurnStarted {
                thread_id: text("threadId")?,
                turn_id: text("turnId")?,
                status: text("status").unwrap_or_else(|| "inProgress".to_owned()),
            },
            event_type::TURN_COMPLETED => Change::TurnCompleted {
                thread_id: text("threadId")?,
                turn_id: text("turnId")?,
                status: text("status")?,
            },
            event_type::TURN_ERROR => Change::TurnError {
                thread_id: text("threadId")?,
                turn_id: text("turnId")?,
                will_retry: detail.get("willRetry").and_then(Value::as_bool).unwrap_or(false),
            },
            event_type::TURN_MISSING => {
                Change::TurnMissing { session_id: text("sessionId")?, turn_id: text("turnId")? }
            }
            _ => return None,
        })
    }
}

/// An event as it is read back from the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Its number, strictly rising over the life of the log.
    pub seq: u64,
    /// When it was recorded, RFC 3339 in UTC with milliseconds.
    pub created_at: String,
    /// How much attention it wants.
    pub level: Level,
    /// Its name.
    #[serde(rename = "type")]
    pub event_type: String,
    /// One sentence for a person.
    pub message: String,
    /// An object, or `null`.
    pub detail: Value,
}

impl Event {
    /// The change this event makes to the records.
    pub fn change(&self) -> Change {
        Change::read(&self.event_type, &self.message, &self.detail)
    }
}
