//! `codexd threads`: lists the threads of Codex, or opens one as a session.

use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::api::list;
use super::failure::Failure;
use super::names::{current_or_named_directory, find_session};
use super::terminal::{Column, Overflow, table};
use crate::cli::ThreadsArguments;
use crate::client::percent_encode;
use crate::commands::context::CommandContext;
use crate::commands::format::age;

const COLUMNS: [Column; 5] = [
    Column { title: "THREAD", overflow: Overflow::Keep },
    Column { title: "TITLE", overflow: Overflow::TruncateEnd },
    Column { title: "DIRECTORY", overflow: Overflow::TruncateStart },
    Column { title: "SESSION", overflow: Overflow::Keep },
    Column { title: "USED", overflow: Overflow::Keep },
];

pub(crate) async fn run(context: &CommandContext, arguments: &ThreadsArguments) -> Result<ExitCode, Failure> {
    if let Some(thread_id) = &arguments.open {
        return open(context, thread_id).await;
    }
    let mut path = format!("/v1/codexd/threads?limit={}&archived={}", arguments.limit, arguments.archived);
    if let Some(search) = &arguments.search {
        path.push_str(&format!("&search={}", percent_encode(search)));
    }
    if let Some(cwd) = &arguments.cwd {
        let directory = current_or_named_directory(Some(cwd))?;
        path.push_str(&format!("&cwd={}", percent_encode(&directory.to_string_lossy())));
    }
    let answer = context.client.get(&path).await?;
    let now = Timestamp::now();
    let rows: Vec<_> = list(&answer, "threads").iter().map(|thread| row(thread, now)).collect();
    let text =
        if rows.is_empty() { "No threads.".to_owned() } else { table(&context.stdout, &COLUMNS, &rows) };
    context.print(&answer, &text)?;
    Ok(ExitCode::SUCCESS)
}

/// Copies the thread of a session for a new session.
pub(crate) async fn fork(context: &CommandContext, session: &str) -> Result<ExitCode, Failure> {
    let session_id = find_session(context, session, &current_or_named_directory(None)?).await?;
    let forked = context.client.post("/v1/codexd/sessions", &json!({ "forkFrom": session_id })).await?;
    let new_id = forked["session"]["sessionId"].as_str().unwrap_or_default();
    let ask = context.command_line(&format!("ask --session {new_id} …"));
    let text = format!("Session {new_id} is a copy of {session_id}. Continue it with: {ask}");
    context.print(&forked, &context.stdout.line(&text))?;
    Ok(ExitCode::SUCCESS)
}

/// Opens a thread as a session, unless an active session has it already.
async fn open(context: &CommandContext, thread_id: &str) -> Result<ExitCode, Failure> {
    let known = context.client.get("/v1/codexd/sessions?status=active&order=newest").await?;
    let opened = match list(&known, "sessions").iter().find(|session| session["threadId"] == thread_id) {
        Some(session) => json!({ "session": session }),
        None => context.client.post("/v1/codexd/sessions", &json!({ "threadId": thread_id })).await?,
    };
    let session_id = opened["session"]["sessionId"].as_str().unwrap_or_default();
    let ask = context.command_line(&format!("ask --session {session_id} …"));
    let text = format!("Thread {thread_id} is session {session_id}. Continue it with: {ask}");
    context.print(&opened, &context.stdout.line(&text))?;
    Ok(ExitCode::SUCCESS)
}

fn row(thread: &Value, now: Timestamp) -> Vec<String> {
    let text = |name: &str| thread[name].as_str().unwrap_or("-").to_owned();
    vec![text("threadId"), text("title"), text("cwd"), text("sessionId"), age(&thread["updatedAt"], now)]
}
