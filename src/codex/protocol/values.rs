//! The values of the protocol's enums.
//!
//! The lists are those of the app-server 0.169.0, which names them in its own refusals (measured).

/// Values of `sandbox` when a thread is opened.
pub const SANDBOX_MODES: &[&str] = &[READ_ONLY, "workspace-write", "danger-full-access"];
/// The sandbox in which commands write nothing.
pub const READ_ONLY: &str = "read-only";

/// Values of `approvalPolicy` that Codex 0.171.0 has; other versions have others, so these are shown and not demanded.
pub const APPROVAL_POLICIES: &[&str] = &["untrusted", ON_REQUEST, "never"];
/// The approval policy by which the model decides when it asks.
pub const ON_REQUEST: &str = "on-request";

/// Values of `personality`.
pub const PERSONALITIES: &[&str] = &["none", "friendly", "pragmatic"];
/// Values of `summary`: how reasoning is summed up.
pub const REASONING_SUMMARIES: &[&str] = &["auto", "concise", "detailed", "none"];

/// The types of the items of a turn's input.
pub const INPUT_TYPES: &[&str] =
    &[INPUT_TEXT, INPUT_IMAGE, "localImage", "audio", "localAudio", "skill", "mention"];
/// The type of an item of input that is a text.
pub const INPUT_TEXT: &str = "text";
/// The type of an item of input that is an image, as a URL.
pub const INPUT_IMAGE: &str = "image";

/// The `itemsView` of a list of turns that has the items whole.
pub const ITEMS_FULL: &str = "full";

/// The type of a thread's status while a turn runs in it.
pub const THREAD_ACTIVE: &str = "active";
/// The type of the status of a thread that the app-server has not loaded.
pub const THREAD_NOT_LOADED: &str = "notLoaded";

/// The status of an MCP server that did not start.
pub const MCP_SERVER_FAILED: &str = "failed";

/// The stream of a command's error output.
pub const STREAM_STDERR: &str = "stderr";

/// How a turn is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnStatus<'a> {
    /// It runs.
    InProgress,
    /// It ended by itself.
    Completed,
    /// A client ended it.
    Interrupted,
    /// An error ended it.
    Failed,
    /// A value of a later version.
    Other(&'a str),
}

impl<'a> TurnStatus<'a> {
    /// The status with this name.
    pub fn of(name: &'a str) -> Self {
        match name {
            TURN_IN_PROGRESS => Self::InProgress,
            TURN_COMPLETED => Self::Completed,
            TURN_INTERRUPTED => Self::Interrupted,
            TURN_FAILED => Self::Failed,
            other => Self::Other(other),
        }
    }
}

/// The name of [`TurnStatus::InProgress`]; items have it too.
pub const TURN_IN_PROGRESS: &str = "inProgress";
/// The name of [`TurnStatus::Completed`]; items have it too.
pub const TURN_COMPLETED: &str = "completed";
/// The name of [`TurnStatus::Interrupted`].
pub const TURN_INTERRUPTED: &str = "interrupted";
/// The name of [`TurnStatus::Failed`]; items have it too.
pub const TURN_FAILED: &str = "failed";
/// The names of [`TurnStatus`].
pub const TURN_STATUSES: &[&str] = &[TURN_IN_PROGRESS, TURN_COMPLETED, TURN_INTERRUPTED, TURN_FAILED];

/// The status of an item that the user declined.
pub const ITEM_DECLINED: &str = "declined";
/// The statuses of items.
pub const ITEM_STATUSES: &[&str] = &[TURN_IN_PROGRESS, TURN_COMPLETED, TURN_FAILED, ITEM_DECLINED];
