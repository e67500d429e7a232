//! The records of the daemon and of the app-server that it supervises.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::timestamp::Timestamp;

/// How the app-server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChildStatus {
    /// None was asked for yet, or an external one was let go.
    #[default]
    Idle,
    /// It is being started and has not answered `initialize`.
    Starting,
    /// It answers.
    Running,
    /// It ended as it should.
    Stopped,
    /// It ended on its own, or could not be started.
    Failed,
    /// codexd did not start it.
    External,
}

/// Where the app-server is between one start and the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChildPhase {
    /// None runs and none is going to.
    #[default]
    Stopped,
    /// It is being started, or connected to.
    Starting,
    /// It answers.
    Running,
    /// It exited and will be restarted soon.
    Backoff,
    /// It exits so often that it is restarted only once a minute.
    CrashLoop,
    /// codexd did not start it, and it answers.
    External,
}

/// The part of the child's record that events change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ChildState {
    /// How it is.
    pub status: ChildStatus,
    /// Its PID while it runs.
    pub pid: Option<u32>,
    /// The version of Codex that it reports while it is connected.
    pub version: Option<String>,
    /// RFC 3339, UTC, milliseconds.
    pub started_at: Option<Timestamp>,
    /// RFC 3339, UTC, milliseconds.
    pub exited_at: Option<Timestamp>,
    /// Its exit code, when it ended by itself.
    pub exit_code: Option<i32>,
    /// The name of the signal that ended it.
    pub signal: Option<String>,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// Its generation, counted from 1 since the daemon started.
    pub generation: Option<u64>,
    /// Where it is between one start and the next.
    pub state: ChildPhase,
    /// How often in a row it exited unexpectedly, as of its last exit.
    pub deaths: u64,
    /// When it is started again, RFC 3339, UTC, milliseconds.
    pub next_start_at: Option<Timestamp>,
    /// The last lines of the stderr of the process that exited last, until the next one answers.
    pub stderr_tail: Vec<String>,
}

/// The account of the app-server, as last reported; it has no secrets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AccountState {
    /// How it is logged in, such as `chatgpt` or `apikey`.
    pub auth_mode: Option<String>,
    /// Its plan.
    pub plan_type: Option<String>,
    /// How much of its limits is used, in the app-server's form.
    pub rate_limits: Option<Value>,
    /// RFC 3339, UTC, milliseconds.
    pub updated_at: Option<Timestamp>,
}

/// The part of the daemon's record that events change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonState {
    /// Whether it serves.
    pub started: bool,
    /// RFC 3339, UTC, milliseconds.
    pub started_at: Option<Timestamp>,
    /// RFC 3339, UTC, milliseconds.
    pub stopped_at: Option<Timestamp>,
    /// The time of the newest event, RFC 3339, UTC, milliseconds.
    pub updated_at: Option<Timestamp>,
    /// Its process id while it serves.
    pub pid: Option<u32>,
    /// The app-server that it supervises.
    pub child: ChildState,
    /// The account that one works with.
    pub account: AccountState,
    /// How Codex is, where something is wrong with it that is no matter of its process.
    pub codex: Option<CodexRecord>,
}

/// The health of Codex, as recorded by an event.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CodexRecord {
    /// The name of the state.
    pub state: String,
    /// As sentences.
    pub message: String,
    /// The command that fixes it.
    pub command: Option<String>,
    /// Since when, RFC 3339, UTC, milliseconds.
    pub since: Timestamp,
}
