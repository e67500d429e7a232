//! What an event means to the state.
//!
//! Every event has two faces: the text that goes into the log and to the clients ([`super::NewEvent`]), and the
//! [`Change`] it makes to the records.
//! A change is always readable from the text alone ([`Change::read`]), because after a restart the text is
//! all there is.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::daemon::CodexRecord;
use super::event_type;
use super::held::Held;
use super::new_event::Level;
use super::private::{IdempotencyKey, QueuedTurn};
use super::server_requests::{RequestPolicy, Resolution, ServerRequest};
use super::session::{Session, Trust};
use crate::codex::protocol::{notifications, values};

/// Why a session is closed whose event gives no reason: until now only a client's request to close it gives none.
const DEFAULT_CLOSE_REASON: &str = "A client closed it with DELETE /v1/codexd/sessions/:session_id.";

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
    /// How Codex is has changed.
    CodexState(CodexRecord),
    /// The app-server is ended on purpose, and the next one is started.
    AppServerRestarting,
    /// An MCP server of a thread did not start.
    McpServerFailed,
    /// The app-server is somebody else's process.
    ChildExternal,
    /// The connection could not be made or was lost; a spawned child keeps its own status.
    ConnectionFailed {
        /// What went wrong.
        message: String,
    },
    /// A session came to be, or was replaced by a newer record of the same name.
    SessionOpened {
        /// Its record.
        session: Box<Session>,
        /// What the app-server was told; `None` leaves what is known.
        settings: Option<Map<String, Value>>,
        /// What it does with requests; `None` leaves what is known.
        policy: Option<RequestPolicy>,
        /// What its caller said with `trust`; `None` leaves what is known.
        trust: Option<bool>,
        /// The request that may be repeated, if it is one.
        key: Option<IdempotencyKey>,
    },
    /// It was decided whether the app-server may use what is in a session's directory.
    SessionTrust {
        /// The session.
        session_id: String,
        /// What is passed.
        trust: Trust,
    },
    /// A session ended.
    SessionClosed {
        /// Which.
        session_id: String,
        /// Why, as a sentence.
        reason: String,
    },
    /// The turns that wait in a session do not begin for now.
    SessionHeld {
        /// Which.
        session_id: String,
        /// Why.
        held: Box<Held>,
    },
    /// The turns that wait in a session may begin again.
    SessionReleased {
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
        /// The session that started it.
        session_id: String,
        /// The thread; `None` means that of the session.
        thread_id: Option<String>,
        /// The turn.
        turn_id: String,
        /// Whether the session only said something to a turn that runs, which then is not its own.
        steered: bool,
        /// What it is by now, when it was found later; `None` when it has just begun.
        found: Option<FoundTurn>,
        /// The waiting turn that it was, if it was one.
        queue_id: Option<String>,
        /// The request that may be repeated, if it is one.
        key: Option<IdempotencyKey>,
    },
    /// A turn is about to be given to the app-server, and what comes of it must be found out if nobody hears.
    TurnSubmitted {
        /// The session it belongs to.
        session_id: String,
        /// By what name the app-server knows it.
        client_message_id: String,
        /// The waiting turn that it is, if it is one.
        queue_id: Option<String>,
        /// The request that may be repeated, if it is one.
        key: Option<IdempotencyKey>,
    },
    /// The app-server did not take a turn.
    TurnRejected {
        /// The session it was for.
        session_id: String,
        /// The waiting turn that it was, if it was one.
        queue_id: Option<String>,
        /// The word of the request that may be repeated, if it is one.
        key: Option<String>,
    },
    /// A turn waits until its session is idle.
    TurnQueued {
        /// The session.
        session_id: String,
        /// The turn.
        turn: Box<QueuedTurn>,
        /// The request that may be repeated, if it is one.
        key: Option<IdempotencyKey>,
    },
    /// The app-server asks for something.
    RequestOpened(Box<ServerRequest>),
    /// What it asked for is answered, or no longer wanted.
    RequestResolved(Resolution),
    /// The app-server was asked what became of a turn.
    TurnSettled {
        /// The session that started it, or another one of its thread.
        session_id: String,
        /// The thread; `None` means that of the session.
        thread_id: Option<String>,
        /// The turn.
        turn_id: String,
        /// The app-server's word.
        status: String,
        /// Why it failed, if that is known.
        error: Option<Value>,
    },
    /// A thread changed between idle and active.
    ThreadStatusChanged {
        /// The thread.
        thread_id: String,
        /// Whether a turn runs in it.
        is_active: bool,
    },
    /// A thread exists that a sub-agent works in.
    ThreadStarted {
        /// The thread.
        thread_id: String,
        /// The thread that it descends from.
        parent_thread_id: String,
    },
    /// A turn runs.
    TurnStarted {
        /// The thread.
        thread_id: String,
        /// The turn.
        turn_id: String,
        /// The app-server's word, normally `inProgress`.
        status: String,
        /// The turn at the root, when it is another one: the turn is that of a sub-agent.
        root_turn_id: Option<String>,
    },
    /// A turn ended.
    TurnCompleted {
        /// The thread.
        thread_id: String,
        /// The turn.
        turn_id: String,
        /// `completed`, `interrupted`, `failed`, or a newer word.
        status: String,
        /// Why it failed, in the app-server's form.
        error: Option<Value>,
    },
    /// A turn met an error.
    TurnError {
        /// The thread.
        thread_id: String,
        /// The turn.
        turn_id: String,
        /// Whether the app-server goes on by itself.
        will_retry: bool,
        /// What it was, in the app-server's form.
        error: Option<Value>,
    },
    /// Something in a turn is complete.
    ItemCompleted {
        /// The thread.
        thread_id: String,
        /// The turn.
        turn_id: String,
        /// The item, in the app-server's form.
        item: Value,
    },
    /// A turn used tokens.
    TokensUsed {
        /// The thread.
        thread_id: String,
        /// The turn.
        turn_id: String,
        /// How many, in the app-server's form.
        usage: Value,
    },
    /// How much of the account's limits is used, in the app-server's form.
    RateLimits(Value),
    /// With what account the app-server works.
    Account {
        /// How it is logged in, such as `chatgpt` or `apikey`.
        auth_mode: Option<String>,
        /// Its plan.
        plan_type: Option<String>,
    },
    /// A turn was cut off by the end of its connection.
    TurnMissing {
        /// The session that started it, or another one of its thread.
        session_id: String,
        /// The thread; `None` means that of the session.
        thread_id: Option<String>,
        /// The turn.
        turn_id: String,
    },
}

/// What a turn is that was found in its thread after nobody had heard of its acceptance.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundTurn {
    /// The app-server's word.
    pub status: String,
    /// Whether the thread has no newer one.
    pub is_newest: bool,
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
            event_type::CHILD_ERROR | event_type::CHILD_KILL_FAILED | event_type::CHILD_SPAWN_FAILED => {
                Change::ChildFailed { message: message.to_owned() }
            }
            event_type::CODEX_STATE_CHANGED => Change::CodexState(CodexRecord::deserialize(detail).ok()?),
            event_type::APP_SERVER_RESTARTING => Change::AppServerRestarting,
            event_type::MCP_SERVER_FAILED => Change::McpServerFailed,
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
            event_type::SESSION_CREATED | event_type::SESSION_RESUMED | event_type::SESSION_RECREATED => {
                Change::SessionOpened {
                    session: Box::new(Session::deserialize(detail.get("session")?).ok()?),
                    settings: read(detail, "settings"),
                    policy: read(detail, "requestPolicy"),
                    trust: detail.get("trust").and_then(Value::as_bool),
                    key: read(detail, "idempotency"),
                }
            }
            event_type::SESSION_CLOSED => Change::SessionClosed {
                session_id: text("sessionId")?,
                reason: text("reason").unwrap_or_else(|| DEFAULT_CLOSE_REASON.to_owned()),
            },
            event_type::SESSION_HELD => {
                Change::SessionHeld { session_id: text("sessionId")?, held: Box::new(read(detail, "held")?) }
            }
            event_type::SESSION_RELEASED => Change::SessionReleased { session_id: text("sessionId")? },
            event_type::SESSION_TRUST => {
                Change::SessionTrust { session_id: text("sessionId")?, trust: read(detail, "trust")? }
            }
            event_type::SESSION_FORGOTTEN => Change::SessionForgotten { session_id: text("sessionId")? },
            event_type::TURN_ACCEPTED => Change::TurnAccepted {
                session_id: text("sessionId")?,
                thread_id: text("threadId"),
                turn_id: text("turnId")?,
                steered: detail["steered"] == true,
                found: FoundTurn::deserialize(detail).ok(),
                queue_id: text("queueId"),
                key: read(detail, "idempotency"),
            },
            event_type::TURN_SUBMITTED => Change::TurnSubmitted {
                session_id: text("sessionId")?,
                client_message_id: text("clientMessageId")?,
                queue_id: text("queueId"),
                key: read(detail, "idempotency"),
            },
            event_type::TURN_REJECTED => Change::TurnRejected {
                session_id: text("sessionId")?,
                queue_id: text("queueId"),
                key: text("idempotencyKey"),
            },
            event_type::TURN_QUEUED => Change::TurnQueued {
                session_id: text("sessionId")?,
                turn: Box::new(read(detail, "turn")?),
                key: read(detail, "idempotency"),
            },
            event_type::REQUEST_OPENED => Change::RequestOpened(Box::new(read(detail, "request")?)),
            event_type::REQUEST_RESOLVED => Change::RequestResolved(Resolution::deserialize(detail).ok()?),
            event_type::TURN_ITEM_READ => Change::ItemCompleted {
                thread_id: text("threadId")?,
                turn_id: text("turnId")?,
                item: detail.get("item")?.clone(),
            },
            event_type::TURN_SETTLED => Change::TurnSettled {
                session_id: text("sessionId")?,
                thread_id: text("threadId"),
                turn_id: text("turnId")?,
                status: text("status")?,
                error: detail.get("error").filter(|error| !error.is_null()).cloned(),
            },
            event_type::THREAD_STATUS_CHANGED => Change::ThreadStatusChanged {
                thread_id: text("threadId")?,
                is_active: detail["status"]["type"] == values::THREAD_ACTIVE,
            },
            event_type::TURN_STARTED => Change::TurnStarted {
                thread_id: text("threadId")?,
                turn_id: text("turnId")?,
                status: text("status").unwrap_or_else(|| values::TURN_IN_PROGRESS.to_owned()),
                root_turn_id: text("rootTurnId"),
            },
            event_type::THREAD_STARTED => Change::ThreadStarted {
                thread_id: text("threadId")?,
                parent_thread_id: text("parentThreadId")?,
            },
            event_type::TURN_COMPLETED => Change::TurnCompleted {
                thread_id: text("threadId")?,
                turn_id: text("turnId")?,
                status: text("status")?,
                error: detail.get("error").filter(|error| !error.is_null()).cloned(),
            },
            event_type::NOTIFICATION => return Self::read_notification(detail),
            event_type::TURN_ERROR => Change::TurnError {
                thread_id: text("threadId")?,
                turn_id: text("turnId")?,
                will_retry: detail.get("willRetry").and_then(Value::as_bool).unwrap_or(false),
                error: detail.get("error").filter(|error| !error.is_null()).cloned(),
            },
            event_type::TURN_MISSING => Change::TurnMissing {
                session_id: text("sessionId")?,
                thread_id: text("threadId"),
                turn_id: text("turnId")?,
            },
            _ => return None,
        })
    }
}

impl Change {
    /// The two notifications beside the mapped ones that tell something about a turn.
    fn read_notification(detail: &Value) -> Option<Self> {
        let params = &detail["params"];
        let text = |key: &str| params[key].as_str().map(str::to_owned);
        match detail["notificationMethod"].as_str()? {
            notifications::ITEM_COMPLETED => Some(Change::ItemCompleted {
                thread_id: text("threadId")?,
                turn_id: text("turnId")?,
                item: params.get("item")?.clone(),
            }),
            notifications::RATE_LIMITS_UPDATED => Some(Change::RateLimits(params.get("rateLimits")?.clone())),
            notifications::ACCOUNT_UPDATED => {
                Some(Change::Account { auth_mode: text("authMode"), plan_type: text("planType") })
            }
            notifications::TOKEN_USAGE_UPDATED => Some(Change::TokensUsed {
                thread_id: text("threadId")?,
                turn_id: text("turnId")?,
                usage: params.get("tokenUsage")?.clone(),
            }),
            _ => None,
        }
    }
}

/// A part of a detail that is there and has the right form.
fn read<T: DeserializeOwned>(detail: &Value, key: &str) -> Option<T> {
    T::deserialize(detail.get(key)?).ok()
}

/// An event as it is read back from the log.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, Deserialize)]
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
    #[schemars(with = "Option<Map<String, Value>>")]
    pub detail: Value,
}

impl Event {
    /// The change this event makes to the records.
    pub fn change(&self) -> Change {
        Change::read(&self.event_type, &self.message, &self.detail)
    }
}
