//! What an event means to the state.
//!
//! Every event has two faces: the text that goes into the log and to the clients ([`super::NewEvent`]), and the
//! [`Change`] it makes to the records.
//! A change is always readable from the text alone ([`Change::read`]), because after a restart the text is
//! all there is.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::daemon::CodexRecord;
use super::event_type;
use super::held::Held;
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
        /// Whether the app-server is a process that codexd did not start.
        external: bool,
    },
    /// The daemon ended in order.
    DaemonStopped,
    /// A child process exists; it has not answered yet.
    ChildStarted {
        /// Its process id.
        pid: Option<u32>,
        /// Its generation, counted from 1 since the daemon started.
        generation: Option<u64>,
    },
    /// The child answered `initialize`.
    Connected {
        /// The generation of the connection, counted from 1 since the daemon started.
        generation: Option<u64>,
    },
    /// The child ended.
    ChildExited {
        /// Its exit code, absent when a signal ended it.
        code: Option<i32>,
        /// The signal's name, such as `SIGKILL`.
        signal: Option<String>,
        /// Whether codexd ended it on purpose.
        expected: bool,
        /// What went wrong, for the status.
        message: String,
    },
    /// The child could not be started, or failed while it ran.
    ChildFailed {
        /// What went wrong.
        message: String,
    },
    /// The child exited and will be restarted.
    ChildBackoff {
        /// When, RFC 3339, UTC, milliseconds.
        until: Option<String>,
        /// How often in a row it exited unexpectedly.
        deaths: u64,
        /// Whether it exits so often that it is restarted only once a minute.
        crash_loop: bool,
        /// Why it exited.
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
    /// The app-server is a process that codexd did not start.
    ChildExternal,
    /// The connection could not be made or was lost; a spawned child keeps its own status.
    ConnectionFailed {
        /// What went wrong.
        message: String,
    },
    /// A session was created, or a newer record replaces the one with the same id.
    SessionOpened {
        /// Its record.
        session: Box<Session>,
        /// The settings passed to the app-server; `None` keeps the stored ones.
        settings: Option<Map<String, Value>>,
        /// What it does with requests; `None` leaves what is known.
        policy: Option<RequestPolicy>,
        /// The value of `trust` in the request; `None` keeps the stored one.
        trust: Option<bool>,
        /// The idempotency key of the request, if it has one.
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
        /// Whether the session only added input to a running turn, which it did not start.
        steered: bool,
        /// What it is by now, when it was found later; `None` when it has just begun.
        found: Option<FoundTurn>,
        /// The waiting turn that it was, if it was one.
        queue_id: Option<String>,
        /// The idempotency key of the request, if it has one.
        key: Option<IdempotencyKey>,
    },
    /// A turn is about to be sent to the app-server; if no answer arrives, its outcome must be read from the thread.
    TurnSubmitted {
        /// The session it belongs to.
        session_id: String,
        /// The `clientUserMessageId` with which it is sent.
        client_message_id: String,
        /// The waiting turn that it is, if it is one.
        queue_id: Option<String>,
        /// The idempotency key of the request, if it has one.
        key: Option<IdempotencyKey>,
    },
    /// The app-server did not take a turn.
    TurnRejected {
        /// The session it was for.
        session_id: String,
        /// The waiting turn that it was, if it was one.
        queue_id: Option<String>,
        /// The idempotency key of the request, if it has one.
        key: Option<String>,
    },
    /// A turn waits until its session is idle.
    TurnQueued {
        /// The session.
        session_id: String,
        /// The turn.
        turn: Box<QueuedTurn>,
        /// The idempotency key of the request, if it has one.
        key: Option<IdempotencyKey>,
    },
    /// The app-server asks for something.
    RequestOpened(Box<ServerRequest>),
    /// A request of the app-server was answered, or is no longer needed.
    RequestResolved(Resolution),
    /// The app-server was asked for the outcome of a turn.
    TurnSettled {
        /// The session that started it, or another one of its thread.
        session_id: String,
        /// The thread; `None` means that of the session.
        thread_id: Option<String>,
        /// The turn.
        turn_id: String,
        /// The status, as the app-server reports it.
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
        /// The status, as the app-server reports it; normally `inProgress`.
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
        /// `completed`, `interrupted`, `failed`, or a status of a later version.
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
        /// Whether the app-server continues by itself.
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

/// A turn that was found in its thread, because its acceptance was not received.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundTurn {
    /// The status, as the app-server reports it.
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
    /// Reads the notifications without a separate event type that change records.
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
