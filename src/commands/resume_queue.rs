//! `codexd resume-queue`: resumes the held queue of a session, or lets one of its turns start before its time.

use std::process::ExitCode;

use serde_json::json;

use super::api::{list, session_path};
use super::failure::Failure;
use super::names::{current_or_named_directory, find_session};
use crate::commands::context::CommandContext;

pub(crate) async fn run(
    context: &CommandContext,
    session: &str,
    turn: Option<&str>,
) -> Result<ExitCode, Failure> {
    let session_id = find_session(context, session, &current_or_named_directory(None)?).await?;
    let body = turn.map_or_else(|| json!({}), |queue_id| json!({ "queueId": queue_id }));
    let answer = context.client.post(&format!("{}/queue/resume", session_path(&session_id)), &body).await?;
    let text = match list(&answer, "queuedTurns").len() {
        0 => format!("The queue of session {session_id} is empty."),
        1 => format!("Resumed the queue of session {session_id}; 1 turn is queued."),
        waiting => format!("Resumed the queue of session {session_id}; {waiting} turns are queued."),
    };
    context.print(&answer, &context.stdout.line(&text))?;
    Ok(ExitCode::SUCCESS)
}
