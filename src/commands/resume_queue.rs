//! `codexd resume-queue`: goes on with the held queue of a session.

use std::process::ExitCode;

use serde_json::json;

use super::Failure;
use super::sessions::{find, folder, list, path};
use crate::commands::context::Caller;

pub(crate) async fn run(caller: &Caller, session: &str) -> Result<ExitCode, Failure> {
    let session_id = find(caller, session, &folder(None)?).await?;
    let answer = caller.client.post(&format!("{}/queue/resume", path(&session_id)), &json!({})).await?;
    let text = match list(&answer, "queuedTurns").len() {
        0 => format!("No turn waits in session {session_id}."),
        1 => format!("The queue of session {session_id} goes on; 1 turn waits."),
        waiting => format!("The queue of session {session_id} goes on; {waiting} turns wait."),
    };
    caller.say(&answer, &caller.stdout.line(&text))?;
    Ok(ExitCode::SUCCESS)
}
