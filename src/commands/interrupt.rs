//! `codexd interrupt`: interrupts the running turn of a session.

use std::process::ExitCode;

use serde_json::json;

use super::api::list;
use super::failure::Failure;
use super::names::{current_or_named_directory, find_session};
use crate::commands::context::CommandContext;

pub(crate) async fn run(context: &CommandContext, session: Option<String>) -> Result<ExitCode, Failure> {
    let session_id = match session {
        Some(session) => find_session(context, &session, &current_or_named_directory(None)?).await?,
        None => the_only_one(context).await?,
    };
    let answer =
        context.client.post("/v1/codexd/turn/interrupt", &json!({ "sessionId": session_id })).await?;
    let turn_id = answer["turn"]["turnId"].as_str().unwrap_or_default();
    let mut text = match (answer["interrupted"].as_bool(), answer["turn"].is_null()) {
        (Some(true), true) => "The queued turn was withdrawn before it started.".to_owned(),
        (Some(true), false) => format!("Turn {turn_id} was interrupted."),
        (_, true) => "The turn has not started yet; it will be interrupted when it starts.".to_owned(),
        _ if answer["pending"] == true => {
            format!("Turn {turn_id} has not ended yet; it will be interrupted as soon as possible.")
        }
        _ => format!("Turn {turn_id} is {}.", answer["turn"]["status"].as_str().unwrap_or("unknown")),
    };
    if answer["pending"] != true
        && let Some(reason) = answer["commandsReason"].as_str()
    {
        text.push_str(&format!(" Commands that it left in the background continue: {reason}"));
    }
    context.print(&answer, &context.stdout.line(&text))?;
    Ok(ExitCode::SUCCESS)
}

async fn the_only_one(context: &CommandContext) -> Result<String, Failure> {
    let answer = context.client.get("/v1/codexd/sessions?status=active").await?;
    let sessions = list(&answer, "sessions").iter();
    let busy: Vec<&str> = sessions
        .filter(|session| session["currentTurnId"].is_string())
        .filter_map(|session| session["sessionId"].as_str())
        .collect();
    match busy.as_slice() {
        [session_id] => Ok((*session_id).to_owned()),
        [] => Err(Failure::new("No turn is running.")),
        several => Err(Failure::usage(format!(
            "{} sessions have running turns; name one of them: {}.",
            several.len(),
            several.join(", ")
        ))),
    }
}
