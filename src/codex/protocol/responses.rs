//! What the app-server answers to calls, as far as codexd reads it.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::ids::{ThreadId, TurnId};

/// The answer to `thread/start`, `thread/resume` and `thread/fork`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenedThread {
    /// The thread.
    pub thread: OpenThread,
    /// Its working directory.
    pub cwd: Option<String>,
    /// Its model.
    pub model: Option<String>,
    /// The provider of the model.
    pub model_provider: Option<String>,
    /// Its service tier.
    pub service_tier: Option<String>,
    /// How hard the model thinks.
    pub reasoning_effort: Option<String>,
}

/// A thread, by its id.
#[derive(Debug, Deserialize)]
pub struct OpenThread {
    /// The id.
    pub id: ThreadId,
    /// The name that the user gave it.
    #[serde(default)]
    pub name: Option<String>,
    /// The beginning of its first message; empty when there is none.
    #[serde(default)]
    pub preview: String,
}

/// The answer to `thread/loaded/list`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadedThreads {
    /// The ids of the threads.
    pub data: Vec<ThreadId>,
    /// Where the next page begins.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// The newest turns of a thread: the answer to `thread/turns/list`, or to `thread/read` with all turns.
#[derive(Debug, Deserialize)]
#[serde(try_from = "TurnsAnswer")]
pub struct TurnPage {
    /// The turns, the newest first.
    pub data: Vec<ListedTurn>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TurnsAnswer {
    data: Option<Vec<ListedTurn>>,
    #[serde(default)]
    next_cursor: Option<String>,
    thread: Option<ThreadTurns>,
}

/// A thread with its turns, the oldest first.
#[derive(Debug, Deserialize)]
struct ThreadTurns {
    turns: Vec<ListedTurn>,
}

impl TryFrom<TurnsAnswer> for TurnPage {
    type Error = &'static str;

    fn try_from(answer: TurnsAnswer) -> Result<Self, Self::Error> {
        let TurnsAnswer { data, next_cursor, thread } = answer;
        match (data, thread) {
            (Some(data), _) => Ok(Self { data, next_cursor }),
            (None, Some(ThreadTurns { turns })) => {
                Ok(Self { data: turns.into_iter().rev().collect(), next_cursor: None })
            }
            (None, None) => Err("missing field `data`"),
        }
    }
}

/// A turn of a list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedTurn {
    /// Its id.
    pub id: TurnId,
    /// The turn that it is part of, if that is another one, as with a review.
    #[serde(default)]
    pub root_turn_id: Option<TurnId>,
    /// Its status.
    pub status: String,
    /// Its items, in Codex's form.
    #[serde(default)]
    pub items: Vec<Value>,
    /// Why it failed, in Codex's form.
    #[serde(default)]
    pub error: Option<Value>,
    /// Seconds since 1970.
    #[serde(default)]
    pub started_at: Option<i64>,
    /// Seconds since 1970.
    #[serde(default)]
    pub completed_at: Option<i64>,
}

/// The answer to `turn/start`.
#[derive(Debug, Deserialize)]
pub struct StartedTurn {
    /// The turn.
    pub turn: AcceptedTurn,
}

/// A turn, by its id.
#[derive(Debug, Deserialize)]
pub struct AcceptedTurn {
    /// The id.
    pub id: TurnId,
}

/// The answer to `turn/steer`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SteeredTurn {
    /// The turn.
    pub turn_id: TurnId,
}

/// The answer to `model/list`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelPage {
    /// The models, in Codex's form.
    pub data: Vec<Value>,
    /// Where the next page begins.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// The answer to `thread/list`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ThreadPage {
    /// The threads.
    pub data: Vec<ListedThread>,
    /// Where the next page begins.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// A thread of a list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedThread {
    /// Its id.
    pub id: ThreadId,
    /// The name that the user gave it.
    #[serde(default)]
    pub name: Option<String>,
    /// The beginning of its first message.
    #[serde(default)]
    pub preview: String,
    /// Its working directory.
    #[serde(default)]
    pub cwd: Option<String>,
    /// Its model (0.160.1 and newer).
    #[serde(default)]
    pub model: Option<String>,
    /// Seconds since 1970.
    pub created_at: i64,
    /// Seconds since 1970.
    pub updated_at: i64,
}

/// The parameters of `thread/list`; all providers and sources are included, as the terminal's are.
pub fn thread_list_params(
    search: Option<&str>,
    cwd: Option<&str>,
    archived: bool,
    limit: u64,
    cursor: Option<&str>,
) -> Value {
    json!({
        "searchTerm": search, "cwd": cwd, "archived": archived, "limit": limit, "cursor": cursor,
        "modelProviders": [], "sortKey": "updated_at",
        "sourceKinds": ["cli", "vscode", "exec", "appServer", "unknown"],
    })
}

/// What `thread/read` answers about the status of a thread.
#[derive(Debug, Deserialize)]
pub struct ThreadStatusRead {
    thread: ThreadWithStatus,
}

#[derive(Debug, Deserialize)]
struct ThreadWithStatus {
    status: Status,
}

#[derive(Debug, Deserialize)]
struct Status {
    r#type: String,
}

impl ThreadStatusRead {
    /// Whether a turn runs in the thread.
    pub fn is_active(&self) -> bool {
        self.thread.status.r#type == super::values::THREAD_ACTIVE
    }
}

/// What `thread/read` answers about the directory of a thread.
#[derive(Debug, Deserialize)]
pub struct ThreadDirectoryRead {
    /// The thread.
    pub thread: ThreadDirectory,
}

/// A thread with its directory.
#[derive(Debug, Deserialize)]
pub struct ThreadDirectory {
    /// Its id.
    pub id: ThreadId,
    /// Its working directory.
    #[serde(default)]
    pub cwd: Option<String>,
}

/// What `thread/start` answers about the directory of a thread.
#[derive(Debug, Deserialize)]
pub struct StartedThreadDirectory {
    /// The thread.
    pub thread: ThreadDirectory,
    /// The working directory.
    pub cwd: Option<String>,
}

/// Whether Codex has an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Account {
    /// It is unknown.
    #[default]
    Unknown,
    /// Its model needs one, and it has none.
    Missing,
    /// It has one, or needs none.
    Sufficient,
}

impl Account {
    /// Reads the answer to `account/read`; a response that cannot be decoded means unknown.
    pub fn read(answer: &Value) -> Self {
        match (answer["account"].is_object(), answer["requiresOpenaiAuth"].as_bool()) {
            (true, _) | (_, Some(false)) => Self::Sufficient,
            (false, Some(true)) => Self::Missing,
            (false, None) => Self::Unknown,
        }
    }
}

/// The account, as `account/read` answers; it has no secrets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccountRead {
    /// Its kind, such as `chatgpt` or `apiKey`; `null` when there is none.
    pub r#type: Option<String>,
    /// Its plan.
    pub plan_type: Option<String>,
    /// The address of its person.
    pub email: Option<String>,
    /// Its workspace (0.160.1 and newer).
    pub workspace_name: Option<String>,
    /// Whether the model needs an account of OpenAI.
    pub requires_openai_auth: Option<bool>,
}

impl AccountRead {
    /// Reads the answer; `None` when it cannot be decoded.
    pub fn read(answer: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let account = &answer["account"];
        let requires_openai_auth = answer["requiresOpenaiAuth"].as_bool();
        let read = Self {
            r#type: text(&account["type"]),
            plan_type: text(&account["planType"]),
            email: text(&account["email"]),
            workspace_name: text(&account["workspaceName"]),
            requires_openai_auth,
        };
        (account.is_object() || requires_openai_auth.is_some()).then_some(read)
    }
}

/// The user agent in the answer to `initialize`, which has the version.
pub fn user_agent(answer: &Value) -> &str {
    answer["userAgent"].as_str().unwrap_or_default()
}
