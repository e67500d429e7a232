//! The handler of Codex's threads. Stateless.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use crate::daemon::{ListedThread, ThreadSelection};
use crate::http::app_state::AppState;
use crate::http::error::ApiError;
use crate::http::queries::ThreadQuery;
use crate::http::{parse, response};
use crate::ids::{SessionId, ThreadId};

/// A page of threads, the last used ones first.
#[derive(Serialize, JsonSchema)]
pub(crate) struct ThreadPage {
    threads: Vec<Thread>,
    /// Where the next page begins, for `after`; `null` if this is the last one.
    next: Option<String>,
}

/// A thread that Codex has on this machine.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Thread {
    /// The ID, for `threadId` of `POST /v1/codexd/sessions`.
    thread_id: ThreadId,
    /// The name of the thread, else the first words of its first message.
    title: Option<String>,
    /// The beginning of its first message.
    preview: String,
    /// Its working directory.
    cwd: Option<String>,
    /// Its model; `null` if the app-server does not report it.
    model: Option<String>,
    /// RFC 3339, UTC.
    created_at: String,
    /// RFC 3339, UTC.
    updated_at: String,
    archived: bool,
    /// The newest active session that has it.
    session_id: Option<SessionId>,
}

/// Lists the threads that the query selects.
pub(crate) async fn list(State(state): State<AppState>, uri: Uri) -> Result<Response, ApiError> {
    let ThreadQuery { search, cwd, archived, limit, after } = parse::query_of(&uri)?;
    let archived = archived.unwrap_or_default();
    let selection = ThreadSelection { search, cwd, archived, limit: limit.map(|limit| limit.0), after };
    let list = state.daemon.sessions.threads_of_codex(selection).await?;
    let threads = list.threads.into_iter().map(|thread| Thread::new(thread, archived)).collect();
    Ok(response::data(StatusCode::OK, ThreadPage { threads, next: list.next }))
}

impl Thread {
    fn new(thread: ListedThread, archived: bool) -> Self {
        let ListedThread { thread_id, title, preview, cwd, model, created_at, updated_at, session_id } =
            thread;
        Self { thread_id, title, preview, cwd, model, created_at, updated_at, archived, session_id }
    }
}
