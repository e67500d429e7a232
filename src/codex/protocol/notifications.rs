//! The notifications of the app-server: their names, and those that codexd reads.
//!
//! [`Notification::decode`] reads the ten that have separate event types; every other one, and one that lacks what its
//! event needs, is [`Notification::Other`] and passes through as it is.

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memchr;
use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::delta::Delta;
use crate::ids::{ThreadId, TurnId};

/// A turn met an error.
pub const ERROR: &str = "error";
/// Something is not as it should be.
pub const WARNING: &str = "warning";
/// Something is wrong with the configuration.
pub const CONFIG_WARNING: &str = "configWarning";
/// A thread began.
pub const THREAD_STARTED: &str = "thread/started";
/// A thread became active or idle.
pub const THREAD_STATUS_CHANGED: &str = "thread/status/changed";
/// A thread has another name.
pub const THREAD_NAME_UPDATED: &str = "thread/name/updated";
/// A thread was archived.
pub const THREAD_ARCHIVED: &str = "thread/archived";
/// A thread is not archived any more.
pub const THREAD_UNARCHIVED: &str = "thread/unarchived";
/// The settings of a thread have changed.
pub const THREAD_SETTINGS_UPDATED: &str = "thread/settings/updated";
/// Turns were removed from a thread.
pub const THREAD_REVERTED: &str = "thread/reverted";
/// A turn used tokens.
pub const TOKEN_USAGE_UPDATED: &str = "thread/tokenUsage/updated";
/// A turn began.
pub const TURN_STARTED: &str = "turn/started";
/// A turn ended.
pub const TURN_COMPLETED: &str = "turn/completed";
/// What a turn has changed of the files so far.
pub const TURN_DIFF_UPDATED: &str = "turn/diff/updated";
/// The plan of a turn.
pub const TURN_PLAN_UPDATED: &str = "turn/plan/updated";
/// An item of a turn began.
pub const ITEM_STARTED: &str = "item/started";
/// An item of a turn is complete.
pub const ITEM_COMPLETED: &str = "item/completed";
/// A piece of a message of the agent.
pub const AGENT_MESSAGE_DELTA: &str = "item/agentMessage/delta";
/// A piece of a plan that the agent proposes.
pub const PLAN_DELTA: &str = "item/plan/delta";
/// A piece of what a command of a turn prints.
pub const COMMAND_OUTPUT_DELTA: &str = "item/commandExecution/outputDelta";
/// A piece of the summary of what the model thinks.
pub const REASONING_SUMMARY_DELTA: &str = "item/reasoning/summaryTextDelta";
/// A piece of what the model thinks.
pub const REASONING_DELTA: &str = "item/reasoning/textDelta";
/// A piece of what a command prints that a client runs.
pub const EXEC_OUTPUT_DELTA: &str = "command/exec/outputDelta";
/// The account is another one.
pub const ACCOUNT_UPDATED: &str = "account/updated";
/// How much of the account's limits is used.
pub const RATE_LIMITS_UPDATED: &str = "account/rateLimits/updated";
/// How an MCP server starts.
pub const MCP_SERVER_STATUS_UPDATED: &str = "mcpServer/startupStatus/updated";
/// The app-server no longer waits for the answer to a request.
pub const SERVER_REQUEST_RESOLVED: &str = "serverRequest/resolved";

/// Every notification that codexd or its page reads.
pub const ALL: &[&str] = &[
    ERROR,
    WARNING,
    CONFIG_WARNING,
    THREAD_STARTED,
    THREAD_STATUS_CHANGED,
    THREAD_NAME_UPDATED,
    THREAD_ARCHIVED,
    THREAD_UNARCHIVED,
    THREAD_SETTINGS_UPDATED,
    THREAD_REVERTED,
    TOKEN_USAGE_UPDATED,
    TURN_STARTED,
    TURN_COMPLETED,
    TURN_DIFF_UPDATED,
    TURN_PLAN_UPDATED,
    ITEM_STARTED,
    ITEM_COMPLETED,
    AGENT_MESSAGE_DELTA,
    PLAN_DELTA,
    COMMAND_OUTPUT_DELTA,
    REASONING_SUMMARY_DELTA,
    REASONING_DELTA,
    EXEC_OUTPUT_DELTA,
    ACCOUNT_UPDATED,
    RATE_LIMITS_UPDATED,
    MCP_SERVER_STATUS_UPDATED,
    SERVER_REQUEST_RESOLVED,
];

/// Those without a separate event type that change a record.
pub const CHANGING_RECORDS: [&str; 4] =
    [ITEM_COMPLETED, TOKEN_USAGE_UPDATED, ACCOUNT_UPDATED, RATE_LIMITS_UPDATED];
/// How the names of these begin, which is what a recovery searches the log for.
pub const PREFIXES_CHANGING_RECORDS: [&str; 3] = [ITEM_COMPLETED, "thread/tokenUsage/", "account/"];

/// Whether the notification in the text of an event is a piece of a longer text or output.
pub fn is_piece_in_text(json: &[u8]) -> bool {
    const METHOD: &[u8] = b"\"notificationMethod\":\"";
    const PIECE: &[u8] = b"delta";
    let Some(start) = memchr::memmem::find(json, METHOD).map(|at| at + METHOD.len()) else { return false };
    let rest = json.get(start..).unwrap_or_default();
    let method = rest.get(..memchr::memchr(b'"', rest).unwrap_or(0)).unwrap_or_default();
    method.len().checked_sub(PIECE.len()).is_some_and(|at| method[at..].eq_ignore_ascii_case(PIECE))
}

/// A notification with a separate event type; it borrows from the text of the message.
#[derive(Debug)]
pub enum Notification<'a> {
    /// [`THREAD_STARTED`].
    ThreadStarted(StartedThread),
    /// [`THREAD_STATUS_CHANGED`].
    ThreadStatusChanged(ThreadStatus),
    /// [`TURN_STARTED`].
    TurnStarted(TurnParams),
    /// [`TURN_COMPLETED`], and why the turn failed, in Codex's form.
    TurnCompleted(TurnParams, Option<Value>),
    /// [`TURN_DIFF_UPDATED`].
    TurnDiffUpdated(TurnDiff),
    /// [`TURN_PLAN_UPDATED`].
    TurnPlanUpdated(TurnPlan),
    /// [`AGENT_MESSAGE_DELTA`].
    AgentMessageDelta(Delta<'a>),
    /// [`PLAN_DELTA`].
    PlanDelta(Delta<'a>),
    /// [`ERROR`].
    TurnError(TurnError),
    /// [`EXEC_OUTPUT_DELTA`].
    ExecOutputDelta(ExecOutput),
    /// Any other, and one that lacks what its event needs.
    Other,
}

impl<'a> Notification<'a> {
    /// Reads a notification from its method and the text of its parameters.
    pub fn decode(method: &str, params: &'a str) -> Self {
        Self::try_decode(method, params).unwrap_or(Self::Other)
    }

    fn try_decode(method: &str, params: &'a str) -> Option<Self> {
        Some(match method {
            THREAD_STARTED => {
                let ThreadParams { thread } = read(params)?;
                Self::ThreadStarted(thread)
            }
            THREAD_STATUS_CHANGED => Self::ThreadStatusChanged(read(params)?),
            TURN_STARTED => Self::TurnStarted(read(params)?),
            TURN_COMPLETED => {
                let error = read::<FailedParams>(params).and_then(|failed| failed.turn.error);
                Self::TurnCompleted(read(params)?, error)
            }
            TURN_DIFF_UPDATED => Self::TurnDiffUpdated(read(params)?),
            TURN_PLAN_UPDATED => Self::TurnPlanUpdated(read(params)?),
            AGENT_MESSAGE_DELTA => Self::AgentMessageDelta(read(params)?),
            PLAN_DELTA => Self::PlanDelta(read(params)?),
            ERROR => Self::TurnError(read(params)?),
            EXEC_OUTPUT_DELTA => Self::ExecOutputDelta(read(params)?),
            _ => return None,
        })
    }
}

fn read<'a, T: Deserialize<'a>>(params: &'a str) -> Option<T> {
    serde_json::from_str(params).ok()
}

#[derive(Deserialize)]
struct ThreadParams {
    thread: StartedThread,
}

/// A thread that began.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StartedThread {
    /// Its id.
    pub id: ThreadId,
    /// The thread that spawned it, when it is that of a sub-agent.
    #[serde(default)]
    pub parent_thread_id: Option<ThreadId>,
}

/// The parameters of [`THREAD_STATUS_CHANGED`].
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ThreadStatus {
    /// The thread.
    pub thread_id: ThreadId,
    /// Its status, in Codex's form.
    pub status: Value,
}

/// The parameters of [`TURN_STARTED`] and [`TURN_COMPLETED`].
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TurnParams {
    /// The thread.
    pub thread_id: ThreadId,
    /// The turn.
    pub turn: Turn,
}

/// A turn that began or ended.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Turn {
    /// Its id.
    pub id: TurnId,
    /// Its status.
    pub status: String,
    /// The turn at the root, which 0.169.0 and later name.
    #[serde(default)]
    pub root_turn_id: Option<TurnId>,
}

#[derive(Deserialize)]
struct FailedParams {
    turn: FailedTurn,
}

#[derive(Deserialize)]
struct FailedTurn {
    error: Option<Value>,
}

/// The id of the turn that a [`TURN_COMPLETED`] is about.
pub fn completed_turn(params: &str) -> Option<TurnId> {
    read::<TurnParams>(params).map(|params| params.turn.id)
}

/// The parameters of [`TURN_DIFF_UPDATED`].
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TurnDiff {
    /// The thread.
    pub thread_id: ThreadId,
    /// The turn.
    pub turn_id: TurnId,
    /// The diff.
    pub diff: Value,
}

/// The parameters of [`TURN_PLAN_UPDATED`].
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TurnPlan {
    /// The thread.
    pub thread_id: ThreadId,
    /// The turn.
    pub turn_id: TurnId,
    /// Why the plan is what it is.
    #[serde(default)]
    pub explanation: Value,
    /// Its steps.
    pub plan: Value,
}

/// The parameters of [`ERROR`].
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TurnError {
    /// The error, in Codex's form.
    pub error: Value,
    /// The thread.
    pub thread_id: ThreadId,
    /// The turn.
    pub turn_id: TurnId,
    /// Whether Codex tries again by itself.
    pub will_retry: bool,
}

/// The parameters of [`EXEC_OUTPUT_DELTA`].
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecOutput {
    /// The process, by the name that its client gave it.
    pub process_id: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The output, in Base64.
    pub delta_base64: String,
    /// Whether the rest is left out.
    #[serde(default)]
    pub cap_reached: bool,
}

/// The error that ends a turn, as [`ERROR`] and [`TURN_COMPLETED`] have it.
#[derive(Debug)]
pub struct LastError {
    /// The thread.
    pub thread_id: ThreadId,
    /// The turn.
    pub turn_id: Option<TurnId>,
    /// The error, in Codex's form.
    pub error: Value,
}

impl LastError {
    /// Reads the parameters of [`ERROR`] or [`TURN_COMPLETED`]; `None` when there is no error, or Codex tries again.
    ///
    /// Most turns end without an error, so a text without the key of one is not read.
    pub fn read(params: &str) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Params {
            thread_id: ThreadId,
            turn_id: Option<TurnId>,
            /// Of [`ERROR`].
            #[serde(default)]
            will_retry: bool,
            /// Of [`ERROR`].
            error: Option<Value>,
            /// Of [`TURN_COMPLETED`].
            turn: Option<Failed>,
        }
        #[derive(Deserialize)]
        struct Failed {
            id: TurnId,
            error: Option<Value>,
        }
        memchr::memmem::find(params.as_bytes(), super::errors::ERROR_INFO_KEY.as_bytes())?;
        let params: Params = read(params).filter(|params: &Params| !params.will_retry)?;
        let thread_id = params.thread_id;
        let (turn_id, error) = match params.turn {
            Some(turn) => (Some(turn.id), turn.error?),
            None => (params.turn_id, params.error?),
        };
        Some(Self { thread_id, turn_id, error })
    }
}

/// A message of the user as an item: by which name it was sent, and which turn it became part of.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserItem<'a> {
    /// The thread.
    pub thread_id: ThreadId,
    /// The turn.
    pub turn_id: TurnId,
    #[serde(borrow)]
    item: SentItem<'a>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SentItem<'a> {
    #[serde(borrow, default)]
    client_id: Option<Cow<'a, str>>,
}

impl<'a> UserItem<'a> {
    /// Reads the parameters of [`ITEM_STARTED`] or [`ITEM_COMPLETED`]; `None` when the item carries no name.
    pub fn read(params: &'a str) -> Option<Self> {
        const KEY: &[u8] = b"\"clientId\"";
        memchr::memmem::find(params.as_bytes(), KEY)?;
        read::<Self>(params).filter(|params| params.item.client_id.is_some())
    }

    /// The `clientUserMessageId` with which the message was sent.
    pub fn client_message_id(&self) -> &str {
        self.item.client_id.as_deref().unwrap_or_default()
    }
}

/// The parameters of [`MCP_SERVER_STATUS_UPDATED`].
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct McpServerStatus {
    /// The thread for which it starts; Codex before 0.150 does not send it.
    pub thread_id: Option<ThreadId>,
    /// The server.
    pub name: String,
    /// How it starts.
    pub status: String,
    /// Why it did not.
    pub error: Option<String>,
}

impl McpServerStatus {
    /// Reads the parameters.
    pub fn read(params: &str) -> Option<Self> {
        read(params)
    }

    /// Whether the server did not start.
    pub fn is_failed(&self) -> bool {
        self.status == super::values::MCP_SERVER_FAILED
    }
}

/// The id of the request that a [`SERVER_REQUEST_RESOLVED`] is about, exactly as it came.
pub fn resolved_request(params: &str) -> Option<&RawValue> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Resolved<'a> {
        #[serde(borrow)]
        request_id: &'a RawValue,
    }
    read::<Resolved<'_>>(params).map(|resolved| resolved.request_id)
}

/// Why Codex does not use the configuration of its user, from the parameters of a [`CONFIG_WARNING`]; other warnings are
/// about what it does use.
pub fn refused_configuration(params: &str) -> Option<String> {
    let params: Value = read(params)?;
    let summary = params["summary"].as_str()?;
    let details = params["details"].as_str()?;
    summary.starts_with("Invalid configuration").then(|| details.to_owned())
}

/// Whether an [`ACCOUNT_UPDATED`] means that there is an account.
pub fn has_account(params: &str) -> bool {
    read::<Value>(params).is_some_and(|account| account["authMode"].is_string())
}

/// The key before the id of the thread in the text of parameters and of events.
pub const THREAD_ID_KEY: &str = "\"threadId\":\"";

/// The id of the thread that a notification or request is about, found in its text without reading all of it.
pub fn thread_in_text(text: &str) -> Option<&str> {
    static KEY: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(THREAD_ID_KEY));
    let rest = text.get(KEY.find(text.as_bytes())? + THREAD_ID_KEY.len()..)?;
    rest.get(..memchr(b'"', rest.as_bytes()).unwrap_or(rest.len()))
}
