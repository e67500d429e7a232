//! `codexd close`: closes a session.

use std::process::ExitCode;

use super::api::session_path;
use super::failure::Failure;
use super::sessions::{current_or_named_directory, find_session};
use crate::commands::context::CommandContext;

pub(crate) async fn run(
    context: &CommandContext,
    session: &str,
    interrupt: bool,
) -> Result<ExitCode, Failure> {
    let session_id = find_session(context, session, &current_or_named_directory(None)?).await?;
    let path = session_path(&session_id);
    let path = if interrupt { format!("{path}?interrupt=true") } else { path };
    let answer = context.client.delete(&path).await.map_err(|error| match error.code() {
        "turn_in_progress" => Failure::new(format!(
            "Session {session_id} has a running turn; wait for it, or close the session with --interrupt."
        )),
        _ => error.into(),
    })?;
    context.print(&answer, &context.stdout.line(&format!("Session {session_id} is closed.")))?;
    Ok(ExitCode::SUCCESS)
}
