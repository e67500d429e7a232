//! `codexd close`: closes a session, or all of them.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::api::{list, session_path};
use super::failure::Failure;
use super::names::{current_or_named_directory, find_session};
use crate::cli::CloseArguments;
use crate::client::ClientError;
use crate::commands::context::CommandContext;

pub(crate) async fn run(context: &CommandContext, arguments: &CloseArguments) -> Result<ExitCode, Failure> {
    let Some(session) = &arguments.session else { return close_all(context, arguments.interrupt).await };
    let session_id = find_session(context, session, &current_or_named_directory(None)?).await?;
    let view = context.client.get(&session_path(&session_id)).await?;
    let answer =
        close(context, &session_id, arguments.interrupt).await.map_err(|error| match error.code() {
            "turn_in_progress" => Failure::new(format!(
                "Session {session_id} has a running turn; wait for it, or close the session with --interrupt."
            )),
            _ => error.into(),
        })?;
    let removed = match list(&view, "queuedTurns").len() {
        0 => String::new(),
        1 => " Its queued turn was removed.".to_owned(),
        count => format!(" Its {count} queued turns were removed."),
    };
    context.print(&answer, &context.stdout.line(&format!("Session {session_id} is closed.{removed}")))?;
    Ok(ExitCode::SUCCESS)
}

async fn close(context: &CommandContext, session_id: &str, interrupt: bool) -> Result<Value, ClientError> {
    let path = session_path(session_id);
    let path = if interrupt { format!("{path}?interrupt=true") } else { path };
    context.client.delete(&path).await
}

/// Closes every active session; without `interrupt`, those with a running turn stay.
async fn close_all(context: &CommandContext, interrupt: bool) -> Result<ExitCode, Failure> {
    let answer = context.client.get("/v1/codexd/sessions?status=active").await?;
    let ids = list(&answer, "sessions").iter().filter_map(|session| session["sessionId"].as_str());
    let (mut closed, mut busy) = (Vec::new(), Vec::new());
    for session_id in ids {
        match close(context, session_id, interrupt).await {
            Ok(_) => closed.push(session_id),
            Err(error) if error.code() == "turn_in_progress" => busy.push(session_id),
            Err(error) => return Err(error.into()),
        }
    }
    let sessions = |count| if count == 1 { "session" } else { "sessions" };
    let text = format!("Closed {} {}.", closed.len(), sessions(closed.len()));
    context.print(&json!({ "closed": closed, "busy": busy }), &text)?;
    if busy.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure::new(format!(
        "{} {} stayed open because of a running turn; wait for it, or use --interrupt: {}.",
        busy.len(),
        sessions(busy.len()),
        busy.join(", ")
    )))
}
