//! Whether the app-server may use a directory's own configuration: its `.codex` with MCP servers, hooks and rules.
//!
//! With a directory that the user has not decided about, `thread/start` with a sandbox that may write saves it as
//! trusted in the user's `config.toml` and starts its MCP commands at once, outside of any sandbox (measured on 0.140.0
//! to 0.171.0).
//! So every call that loads a thread passes through here: [`thread_params`] is the only place that makes the
//! parameters of `thread/start`, `thread/resume` and `thread/fork`.
//!
//! What must stay true: where the user has decided, nothing is added; `config.toml` is never changed; the sandbox and
//! the approval policy are those that the app-server would have used without the addition.

use serde_json::{Map, Value, json};

use crate::codex::Client;
use crate::codex::protocol::config::{
    self, ConfigRead, PROJECTS, TRUST_LEVEL, TRUSTED, UNTRUSTED, trust_level,
};
use crate::codex::protocol::responses::{StartedThreadDirectory, ThreadDirectoryRead};
use crate::codex::protocol::{methods, values, versions};
use crate::config::Endpoint;
use crate::daemon::app_server::calls::call;
use crate::daemon::core::Core;
use crate::daemon::error::DaemonError;
use crate::daemon::trust::decision::TrustDecision;
use crate::ids::ThreadId;
use crate::state::Trust;

pub(in crate::daemon) mod decision;
#[expect(clippy::disallowed_methods, reason = "what blocks is called on threads of a pool")]
mod directory;

use directory::Directory;

/// The value of `trust` in a request for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustChoice {
    /// Whether the directory is trusted, where the user has not decided.
    Answer(bool),
    /// The last answer for the directory; without one [`DaemonError::TrustUndecided`], where something
    /// would be left out.
    Ask,
}

/// The thread that a call is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum ThreadLoad<'a> {
    /// `thread/start`.
    New,
    /// `thread/resume` or `thread/fork` of this thread, with the directory that was known of it last.
    Old { thread_id: &'a ThreadId, cwd: Option<&'a str> },
}

/// The parameters of `thread/start`, `thread/resume` or `thread/fork`: the caller's settings, and what prevents
/// Codex from trusting a directory implicitly.
///
/// `choice` is the `trust` of the request.
pub(super) async fn thread_params(
    core: &Core,
    client: &Client,
    settings: &Map<String, Value>,
    choice: Option<TrustChoice>,
    load: ThreadLoad<'_>,
) -> Result<(Map<String, Value>, TrustDecision), DaemonError> {
    let mut params = settings.clone();
    let directories = directories_of(core, client, settings, load).await?;
    let cwd = directories.first().map(|directory| directory.lexical.clone());
    let mut answer = match choice {
        Some(TrustChoice::Answer(answer)) => Some(answer),
        Some(TrustChoice::Ask) | None => None,
    };
    let mut decision =
        TrustDecision { trust: Trust::AsUser, cwd, left_out: Vec::new(), unreadable: None, answer };
    let own = settings.get("config").and_then(Value::as_object);
    if directories.iter().any(|directory| own.is_some_and(|own| decided_by_caller(own, directory))) {
        return Ok((params, decision));
    }
    let mut effective = Map::new();
    let mut undecided = Vec::new();
    for directory in &directories {
        match read_config(client, directory).await {
            Ok(read) if is_decided(&read, directory) => {}
            Ok(read) => {
                decision.left_out.extend(read.unused_directories());
                effective = read.config;
                undecided.push(directory);
            }
            // A closed or hanging connection does not answer other calls either.
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
    if choice == Some(TrustChoice::Ask) {
        answer = remembered_trust(core, &undecided);
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
    // `untrusted` turns "read-only" into "workspace-write" for a directory without a decision.
    if !params.contains_key("sandbox") && !is_set(&config::SANDBOX_KEYS) {
        params.insert("sandbox".to_owned(), values::READ_ONLY.into());
    }
    // And "untrusted" of "on-request". Where the settings are not known, more questions are better than fewer.
    let keeps = matches!(load, ThreadLoad::Old { .. })
        && client.older_than(versions::KEEPS_APPROVAL_POLICY).is_none();
    if !params.contains_key("approvalPolicy")
        && !keeps
        && !is_set(&[config::APPROVAL_POLICY_KEY])
        && decision.unreadable.is_none()
    {
        params.insert("approvalPolicy".to_owned(), values::ON_REQUEST.into());
    }
    Ok((params, decision))
}

/// What was last answered for these directories; none when one of them has no answer.
fn remembered_trust(core: &Core, directories: &[&Directory]) -> Option<bool> {
    let state = core.state();
    let answers = &state.private.trust_answers;
    let given: Option<Vec<bool>> =
        directories.iter().map(|directory| answers.get(directory.real_path()).copied()).collect();
    given.map(|given| given.into_iter().all(|answer| answer))
}

/// Where a thread will work: one directory, or two where it is not known which one the app-server takes.
async fn directories_of(
    core: &Core,
    client: &Client,
    settings: &Map<String, Value>,
    load: ThreadLoad<'_>,
) -> Result<Vec<Directory>, DaemonError> {
    let mut paths = Vec::new();
    match (settings.get("cwd").and_then(Value::as_str), load) {
        (Some(cwd), _) => paths.push(cwd.to_owned()),
        (None, ThreadLoad::New) => paths.extend(server_directory(core, client).await?),
        (None, ThreadLoad::Old { thread_id, cwd }) => {
            paths.extend(thread_directory(client, thread_id).await?);
            if let Some(cwd) = cwd.filter(|cwd| !paths.iter().any(|path| path == cwd)) {
                paths.push(cwd.to_owned());
            }
        }
    }
    let mut directories = Vec::with_capacity(paths.len());
    for path in paths {
        directories.push(Directory::resolve(&path).await);
    }
    Ok(directories)
}

/// The directory in which the app-server itself works, which is that of a thread without one.
async fn server_directory(core: &Core, client: &Client) -> Result<Option<String>, DaemonError> {
    if matches!(core.config.server.endpoint.target(), Endpoint::Stdio) {
        return Ok(core.config.server.cwd.to_str().map(str::to_owned));
    }
    // An external app-server reports its directory only with a thread: this one is read-only, so that no directory
    // becomes trusted, and ephemeral, so that no file remains.
    let params = json!({ "ephemeral": true, "sandbox": values::READ_ONLY });
    let started: StartedThreadDirectory = call(client, methods::THREAD_START, &params).await?;
    let params = json!({ "threadId": started.thread.id });
    let _: Value = call(client, methods::THREAD_UNSUBSCRIBE, &params).await.unwrap_or_default();
    Ok(started.cwd)
}

/// The directory of a thread that is loaded or on disk; none where the app-server does not know the thread.
async fn thread_directory(client: &Client, thread_id: &ThreadId) -> Result<Option<String>, DaemonError> {
    let params = json!({ "threadId": thread_id });
    match call::<ThreadDirectoryRead>(client, methods::THREAD_READ, &params).await {
        Ok(read) => Ok(read.thread.cwd),
        // The resume reports what is wrong with the thread.
        Err(DaemonError::Rejected { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn read_config(client: &Client, directory: &Directory) -> Result<ConfigRead, DaemonError> {
    let params = json!({ "cwd": directory.lexical, "includeLayers": true });
    call(client, methods::CONFIG_READ, &params).await
}

/// Whether the user has decided about this directory.
fn is_decided(read: &ConfigRead, directory: &Directory) -> bool {
    let (layers, enabled) = read.project_layers();
    if layers > 0 && enabled == layers {
        return true;
    }
    let level = config::projects(&read.config).and_then(|projects| trust_level(projects, directory.names()));
    // An entry that trusts while every layer stays out is one that the app-server does not count.
    level.is_some_and(|level| level == UNTRUSTED || layers == 0 || enabled > 0)
}

/// Whether the request's settings for the thread decide whether the directory is trusted.
///
/// A dotted key counts only where the app-server reads it as it is meant: it takes every dot for a step.
fn decided_by_caller(own: &Map<String, Value>, directory: &Directory) -> bool {
    let nested = config::projects(own);
    let dotted = |name: &str| {
        !name.contains('.')
            && own.get(&format!("{PROJECTS}.{name}.{TRUST_LEVEL}")).is_some_and(Value::is_string)
    };
    nested.is_some_and(|projects| trust_level(projects, directory.names()).is_some())
        || directory.names().any(dotted)
}

/// Passes the decision for these directories, beside what the caller passes.
///
/// It is a nested object: a dotted key is taken apart at each dot of the path, and then decides nothing (measured on
/// 0.171.0). So does a path that the app-server would write in another way, so both ways are named.
fn add_projects(params: &mut Map<String, Value>, directories: &[&Directory], trust: Trust) {
    let level = if trust == Trust::Trusted { TRUSTED } else { UNTRUSTED };
    let config = object(params.entry("config").or_insert(Value::Null));
    let projects = object(config.entry(PROJECTS).or_insert(Value::Null));
    for directory in directories {
        for name in directory.own_names() {
            object(projects.entry(name).or_insert(Value::Null)).insert(TRUST_LEVEL.to_owned(), level.into());
        }
    }
}

/// The value as an object; any other value becomes an empty object.
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
