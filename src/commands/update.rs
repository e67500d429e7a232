//! `codexd rename`, `codexd archive` and `codexd unarchive`.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::api::session_path;
use super::failure::Failure;
use super::names::{current_or_named_directory, find_session};
use crate::commands::context::CommandContext;

/// Names a session.
pub(crate) async fn rename(
    context: &CommandContext,
    session: &str,
    title: &str,
) -> Result<ExitCode, Failure> {
    if title.trim().is_empty() {
        return Err(Failure::usage("The title is empty."));
    }
    update(context, session, &json!({ "title": title }), |session_id, updated| {
        format!("Session {session_id} is named {:?}.", updated["title"].as_str().unwrap_or_default())
    })
    .await
}

/// Archives or unarchives the thread of a session.
pub(crate) async fn archive(
    context: &CommandContext,
    session: &str,
    archived: bool,
) -> Result<ExitCode, Failure> {
    update(context, session, &json!({ "archived": archived }), |session_id, _| match archived {
        true => format!("The thread of session {session_id} is archived."),
        false => format!("The thread of session {session_id} is not archived any more."),
    })
    .await
}

async fn update(
    context: &CommandContext,
    session: &str,
    changes: &Value,
    text: impl FnOnce(&str, &Value) -> String,
) -> Result<ExitCode, Failure> {
    let session_id = find_session(context, session, &current_or_named_directory(None)?).await?;
    let answer = context.client.patch(&session_path(&session_id), changes).await?;
    context.print(&answer, &context.stdout.line(&text(&session_id, &answer["session"])))?;
    Ok(ExitCode::SUCCESS)
}
