//! `codexd app-server restart`: restarts the app-server of the running daemon.

use std::process::ExitCode;

use serde_json::json;

use super::api::{APP_SERVER_RESTART_PATH, list};
use super::failure::Failure;
use crate::cli::{AppServerAction, AppServerArguments};
use crate::commands::context::CommandContext;

pub(crate) async fn run(
    context: &CommandContext,
    arguments: &AppServerArguments,
) -> Result<ExitCode, Failure> {
    let AppServerArguments { action: AppServerAction::Restart, when_idle, force, .. } = *arguments;
    let body = match (when_idle, force) {
        (true, _) => json!({ "drainSeconds": 0 }),
        (false, true) => json!({ "drainSeconds": 0, "force": true }),
        (false, false) => json!({}),
    };
    let answer = context.client.post(APP_SERVER_RESTART_PATH, &body).await?;
    let restart = &answer["restart"];
    let (turns, requests) = (list(restart, "turns"), list(restart, "requests"));
    let work = format!("Turns in progress: {}, requests without an answer: {}.", turns.len(), requests.len());
    let text = match restart["state"].as_str() {
        _ if force => "The app-server is being restarted, and what is in progress is cut off.".to_owned(),
        Some("draining") => {
            format!("The app-server is restarted when no turn is in progress; new turns wait. {work}")
        }
        Some("waiting") => format!("The app-server is restarted when no turn is in progress. {work}"),
        Some("ending") => {
            "The app-server takes no new work, and is started again when it has ended.".to_owned()
        }
        _ => "The app-server is being restarted.".to_owned(),
    };
    let sessions = turns.iter().filter_map(|turn| turn["sessionId"].as_str());
    let lines = sessions.map(|session_id| context.stdout.line(&format!("  session {session_id}")));
    let lines: Vec<String> = std::iter::once(text).chain(lines).collect();
    context.print(&answer, &lines.join("\n"))?;
    Ok(ExitCode::SUCCESS)
}
