//! `codexd close`: closes a session.

use std::process::ExitCode;

use super::Failure;
use super::sessions::{find, folder, path};
use crate::commands::context::Caller;

pub(crate) async fn run(caller: &Caller, session: &str, interrupt: bool) -> Result<ExitCode, Failure> {
    let session_id = find(caller, session, &folder(None)?).await?;
    let path = path(&session_id);
    let path = if interrupt { format!("{path}?interrupt=true") } else { path };
    let answer = caller.client.delete(&path).await.map_err(|error| match error.code() {
        "turn_in_progress" => Failure::new(format!(
            "A turn runs in session {session_id}; wait for it, or close the session with --interrupt."
        )),
        _ => error.into(),
    })?;
    caller.say(&answer, &caller.stdout.line(&format!("Session {session_id} is closed.")))?;
    Ok(ExitCode::SUCCESS)
}
