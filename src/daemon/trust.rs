//! Whether the app-server may use what a directory says about itself: its `.codex` with MCP servers, hooks and rules.
//!
//! With a directory that the user has not decided about, `thread/start` with a sandbox that may write saves it as
//! trusted in the user's `config.toml` and starts its MCP commands at once, outside of any sandbox (measured on 0.140.0
//! to 0.171.0).
//! So every call that loads a thread passes through here: [`Daemon::thread_params`] is the only place that makes the
//! parameters of `thread/start`, `thread/resume` and `thread/fork`.
//!
//! What must stay true: where the user has decided, nothing is added; `config.toml` is never changed; the sandbox and
//! the approval policy are those that the app-server would have used without the addition.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Daemon, DaemonError};
use crate::codex::Client;
use crate::config::Endpoint;
use crate::state::Trust;

#[expect(clippy::disallowed_methods, reason = "what blocks is called on threads of a pool")]
mod directory;

use directory::Directory;

/// From this version on `thread/resume` and `thread/fork` keep the approval policy of the thread; before, they take the
/// default, which `untrusted` changes (0.140.0 takes the default, 0.160.1 keeps, measured).
const KEEPS_APPROVAL_POLICY: (u64, u64) = (0, 160);

/// What is decided about the directory of one thread, each time that the thread is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    /// What is passed to the app-server.
    pub(super) trust: Trust,
    /// The directory, when it is known.
    pub(super) cwd: Option<String>,
    /// The `.codex` directories that are not used, because the directory is not trusted.
    pub(super) left_out: Vec<String>,
    /// Why the app-server's settings could not be read, when they could not.
    pub(super) unreadable: Option<String>,
    /// The answer that holds for the thread, and is remembered with its session; none was given.
    pub(super) answer: Option<bool>,
}

/// What the caller of a new session says with `trust`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustWord {
    /// Whether the directory is trusted, where the user has not decided.
    Answer(bool),
    /// What was last answered for the directory; without an answer [`DaemonError::TrustUndecided`], where something
    /// would be left out.
    Ask,
}

/// The thread that a call is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Loading<'a> {
    /// `thread/start`.
    New,
    /// `thread/resume` or `thread/fork` of this thread, with the directory that was known of it last.
    Old { thread_id: &'a str, cwd: Option<&'a str> },
}

/// What `config/read` answers, as far as it is needed.
#[derive(Debug, Default, Deserialize)]
struct ConfigRead {
    #[serde(default)]
    config: Map<String, Value>,
    #[serde(default)]
    layers: Option<Vec<Layer>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    name: LayerName,
    #[serde(default)]
    disabled_reason: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayerName {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    dot_codex_folder: Option<String>,
}

impl Daemon {
    /// The parameters of `thread/start`, `thread/resume` or `thread/fork`: the caller's settings, and what keeps a
    /// directory from being trusted by the way.
    ///
    /// `wanted` is what the caller said with `trust`.
    pub(super) async fn thread_params(
        &self,
        client: &Client,
        settings: &Map<String, Value>,
        wanted: Option<TrustWord>,
        loading: Loading<'_>,
    ) -> Result<(Map<String, Value>, Decision), DaemonError> {
        let mut params = settings.clone();
        let directories = self.directories_of(client, settings, loading).await?;
        let cwd = directories.first().map(|directory| directory.lexical.clone());
        let mut answer = match wanted {
            Some(TrustWord::Answer(answer)) => Some(answer),
            Some(TrustWord::Ask) | None => None,
        };
        let mut decision =
            Decision { trust: Trust::AsUser, cwd, left_out: Vec::new(), unreadable: None, answer };
        let own = settings.get("config").and_then(Value::as_object);
        if directories.iter().any(|directory| own.is_some_and(|own| decided_by_caller(own, directory))) {
            return Ok((params, decision));
        }
        let mut effective = Map::new();
        let mut undecided = Vec::new();
        for directory in &directories {
            match read_config(client, directory).await {
                Ok(read) if read.is_decided(directory) => {}
                Ok(read) => {
                    decision.left_out.extend(read.left_out());
                    effective = read.config;
                    undecided.push(directory);
                }
                // A connection that is gone or stands still answers nothing else either.
                Err(error) if !error.is_app_server_error() => return Err(error),
                Err(error) => {
                    decision.unreadable = Some(error.to_string());
                    undecided.push(directory);
                }
            }
        }
        if undecided.is_empty() {
            return Ok((params, decision));
        }
        if wanted == Some(TrustWord::Ask) {
            answer = self.remembered_trust(&undecided);
            if answer.is_none() && !decision.left_out.is_empty() {
                let (cwd, left_out) = (decision.cwd.unwrap_or_default(), decision.left_out);
                return Err(DaemonError::TrustUndecided { cwd, left_out });
            }
            decision.answer = answer;
        }
        decision.trust = if answer == Some(true) { Trust::Trusted } else { Trust::Untrusted };
        add_projects(&mut params, &undecided, decision.trust);
        if decision.trust == Trust::Trusted {
            decision.left_out.clear();
            return Ok((params, decision));
        }
        let is_set = |names: &[&str]| {
            names.iter().any(|name| {
                let given = own.and_then(|own| own.get(*name)).or_else(|| effective.get(*name));
                given.is_some_and(|value| !value.is_null())
            })
        };
        // `untrusted` makes "workspace-write" of what is "read-only" where nothing is said about a directory.
        if !params.contains_key("sandbox") && !is_set(&["sandbox_mode", "default_permissions"]) {
            params.insert("sandbox".to_owned(), "read-only".into());
        }
        // And "untrusted" of "on-request". Where the settings are not known, more questions are better than fewer.
        let keeps =
            matches!(loading, Loading::Old { .. }) && client.older_than(KEEPS_APPROVAL_POLICY).is_none();
        if !params.contains_key("approvalPolicy")
            && !keeps
            && !is_set(&["approval_policy"])
            && decision.unreadable.is_none()
        {
            params.insert("approvalPolicy".to_owned(), "on-request".into());
        }
        Ok((params, decision))
    }

    /// What was last answered for these directories; none when one of them has no answer.
    fn remembered_trust(&self, directories: &[&Directory]) -> Option<bool> {
        let state = self.state();
        let answers = &state.memory.trust_answers;
        let given: Option<Vec<bool>> =
            directories.iter().map(|directory| answers.get(directory.place()).copied()).collect();
        given.map(|given| given.into_iter().all(|answer| answer))
    }

    /// Where a thread will work: one directory, or two where it is not known which one the app-server takes.
    async fn directories_of(
        &self,
        client: &Client,
        settings: &Map<String, Value>,
        loading: Loading<'_>,
    ) -> Result<Vec<Directory>, DaemonError> {
        let mut paths = Vec::new();
        match (settings.get("cwd").and_then(Value::as_str), loading) {
            (Some(cwd), _) => paths.push(cwd.to_owned()),
            (None, Loading::New) => paths.extend(self.server_directory(client).await?),
            (None, Loading::Old { thread_id, cwd }) => {
                paths.extend(thread_directory(client, thread_id).await?);
                if let Some(cwd) = cwd.filter(|cwd| !paths.iter().any(|path| path == cwd)) {
                    paths.push(cwd.to_owned());
                }
            }
        }
        let mut directories = Vec::with_capacity(paths.len());
        for path in paths {
            directories.push(Directory::look(&path).await);
        }
        Ok(directories)
    }

    /// The directory in which the app-server itself works, which is that of a thread without one.
    async fn server_directory(&self, client: &Client) -> Result<Option<String>, DaemonError> {
        if matches!(self.config().server.endpoint.target(), Endpoint::Stdio) {
            return Ok(self.config().server.cwd.to_str().map(str::to_owned));
        }
        // One that others started does not say where, except of a thread: this one may write nothing, so that nothing
        // is trusted by it, and leaves nothing behind.
        let params = json!({ "ephemeral": true, "sandbox": "read-only" });
        let started: StartedThread = Self::call(client, "thread/start", &params).await?;
        let params = json!({ "threadId": started.thread.id });
        let _: Value = Self::call(client, "thread/unsubscribe", &params).await.unwrap_or_default();
        Ok(started.cwd)
    }
}

#[derive(Deserialize)]
struct StartedThread {
    thread: ThreadRead,
    cwd: Option<String>,
}

#[derive(Deserialize)]
struct ThreadRead {
    id: String,
    #[serde(default)]
    cwd: Option<String>,
}

/// The directory of a thread that is loaded or on disk; none where the app-server does not know the thread.
async fn thread_directory(client: &Client, thread_id: &str) -> Result<Option<String>, DaemonError> {
    #[derive(Deserialize)]
    struct Read {
        thread: ThreadRead,
    }
    let params = json!({ "threadId": thread_id });
    match Daemon::call::<Read>(client, "thread/read", &params).await {
        Ok(read) => Ok(read.thread.cwd),
        // The resume itself says what is wrong with the thread.
        Err(DaemonError::Rejected { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn read_config(client: &Client, directory: &Directory) -> Result<ConfigRead, DaemonError> {
    let params = json!({ "cwd": directory.lexical, "includeLayers": true });
    Daemon::call(client, "config/read", &params).await
}

impl ConfigRead {
    /// Whether the user has decided about this directory.
    fn is_decided(&self, directory: &Directory) -> bool {
        let layers: Vec<_> = self.project_layers().collect();
        let enabled = layers.iter().filter(|layer| layer.disabled_reason.is_none()).count();
        if !layers.is_empty() && enabled == layers.len() {
            return true;
        }
        let projects = self.config.get("projects").and_then(Value::as_object);
        let level = projects.and_then(|projects| level(projects, directory));
        // An entry that trusts while every layer stays out is one that the app-server does not count.
        level.is_some_and(|level| level == "untrusted" || layers.is_empty() || enabled > 0)
    }

    /// The `.codex` directories that are not used.
    fn left_out(&self) -> Vec<String> {
        let disabled = self.project_layers().filter(|layer| layer.disabled_reason.is_some());
        disabled.filter_map(|layer| layer.name.dot_codex_folder.clone()).collect()
    }

    fn project_layers(&self) -> impl Iterator<Item = &Layer> {
        self.layers.iter().flatten().filter(|layer| layer.name.kind == "project")
    }
}

/// The level that a table of projects has for a directory, or for the root of its repository.
fn level<'a>(projects: &'a Map<String, Value>, directory: &Directory) -> Option<&'a str> {
    directory.names().find_map(|name| projects.get(name)?.get("trust_level")?.as_str())
}

/// Whether the caller's own settings for the thread say whether the directory is trusted.
///
/// A dotted key counts only where the app-server reads it as it is meant: it takes every dot for a step.
fn decided_by_caller(config: &Map<String, Value>, directory: &Directory) -> bool {
    let nested = config.get("projects").and_then(Value::as_object);
    let dotted = |name: &str| {
        !name.contains('.')
            && config.get(&format!("projects.{name}.trust_level")).is_some_and(Value::is_string)
    };
    nested.is_some_and(|projects| level(projects, directory).is_some()) || directory.names().any(dotted)
}

/// Passes the decision for these directories, beside what the caller passes.
///
/// It is a nested object: a dotted key is taken apart at each dot of the path, and then decides nothing (measured on
/// 0.171.0). So does a path that the app-server would write in another way, so both ways are named.
fn add_projects(params: &mut Map<String, Value>, directories: &[&Directory], trust: Trust) {
    let level = if trust == Trust::Trusted { "trusted" } else { "untrusted" };
    let config = object(params.entry("config").or_insert(Value::Null));
    let projects = object(config.entry("projects").or_insert(Value::Null));
    for directory in directories {
        for name in directory.own_names() {
            object(projects.entry(name).or_insert(Value::Null))
                .insert("trust_level".to_owned(), level.into());
        }
    }
}

/// The object that this is; anything else becomes an empty one.
fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(fields) => fields,
        _ => unreachable!("it was just made one"),
    }
}

#[cfg(test)]
mod tests;
