//! The threads that Codex has on this machine, those of the terminal included.

use crate::codex::protocol::methods;
use crate::codex::protocol::responses::{self, ThreadPage, thread_list_params};
use crate::daemon::app_server::calls::call;
use crate::daemon::error::DaemonError;
use crate::daemon::sessions::Sessions;
use crate::ids::{SessionId, ThreadId};
use crate::state::title::{title_of_message, title_of_name};
use crate::time::rfc3339_of_seconds;

/// How many threads a page has, unless the request sets it.
const DEFAULT_LIMIT: u64 = 50;

/// Which threads to list.
#[derive(Debug, Default)]
pub struct ThreadSelection {
    /// A part of the title.
    pub search: Option<String>,
    /// The working directory, exactly.
    pub cwd: Option<String>,
    /// Whether to list the archived ones instead of the others.
    pub archived: bool,
    /// How many at most.
    pub limit: Option<u64>,
    /// Where the page begins, as the page before returned it.
    pub after: Option<String>,
}

/// A thread that Codex has on this machine.
#[derive(Debug)]
pub struct ListedThread {
    /// Its ID.
    pub thread_id: ThreadId,
    /// Its name, else the first words of its first message.
    pub title: Option<String>,
    /// The beginning of its first message.
    pub preview: String,
    /// Its working directory.
    pub cwd: Option<String>,
    /// Its model, if the app-server reports it.
    pub model: Option<String>,
    /// RFC 3339, UTC, milliseconds.
    pub created_at: String,
    /// RFC 3339, UTC, milliseconds.
    pub updated_at: String,
    /// The newest active session that has it.
    pub session_id: Option<SessionId>,
}

/// One page of threads.
#[derive(Debug)]
pub struct ThreadList {
    /// The threads, the last used ones first.
    pub threads: Vec<ListedThread>,
    /// Where the next page begins; `None` if this is the last one.
    pub next: Option<String>,
}

impl Sessions {
    /// A page of the threads that Codex has, the last used ones first.
    pub async fn threads_of_codex(&self, selection: ThreadSelection) -> Result<ThreadList, DaemonError> {
        let sessions = self.clone();
        self.core
            .run(async move {
                let client = sessions.core.wait_for_client().await?;
                let params = thread_list_params(
                    selection.search.as_deref(),
                    selection.cwd.as_deref(),
                    selection.archived,
                    selection.limit.unwrap_or(DEFAULT_LIMIT),
                    selection.after.as_deref(),
                );
                let page: ThreadPage = call(&client, methods::THREAD_LIST, &params).await?;
                let state = sessions.core.state();
                let session_of = |thread_id: &ThreadId| {
                    let session = state.sessions.active_in_thread(thread_id).last();
                    session.map(|session| session.session_id.clone())
                };
                let threads = page.data.into_iter().map(|thread| ListedThread {
                    title: title(&thread),
                    session_id: session_of(&thread.id),
                    thread_id: thread.id,
                    preview: thread.preview,
                    cwd: thread.cwd,
                    model: thread.model,
                    created_at: rfc3339_of_seconds(thread.created_at),
                    updated_at: rfc3339_of_seconds(thread.updated_at),
                });
                Ok(ThreadList { threads: threads.collect(), next: page.next_cursor })
            })
            .await
    }
}

fn title(thread: &responses::ListedThread) -> Option<String> {
    let name = thread.name.as_deref().and_then(title_of_name);
    name.or_else(|| title_of_message(&thread.preview)).map(|title| title.to_string())
}
