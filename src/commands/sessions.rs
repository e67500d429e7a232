//! `codexd sessions`.

use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::api::{REQUESTS_PATH, list, pending_requests};
use super::failure::Failure;
use super::terminal::{Column, Overflow, table};
use crate::codex::protocol::values::TURN_IN_PROGRESS;
use crate::commands::context::CommandContext;
use crate::commands::format::age;

const COLUMNS: [Column; 7] = [
    Column { title: "SESSION", overflow: Overflow::Keep },
    Column { title: "TITLE", overflow: Overflow::TruncateEnd },
    Column { title: "DIRECTORY", overflow: Overflow::TruncateStart },
    Column { title: "MODEL", overflow: Overflow::TruncateEnd },
    Column { title: "STATE", overflow: Overflow::Keep },
    Column { title: "LAST TURN", overflow: Overflow::TruncateEnd },
    Column { title: "AGE", overflow: Overflow::Keep },
];

/// Lists the active sessions, or all of them, newest first.
pub(crate) async fn run(context: &CommandContext, all: bool) -> Result<ExitCode, Failure> {
    let query = if all { "order=newest" } else { "order=newest&status=active&archived=false" };
    let answer = context.client.get(&format!("/v1/codexd/sessions?{query}")).await?;
    let sessions = list(&answer, "sessions");
    let requests = context.client.get(REQUESTS_PATH).await?;
    let asking: Vec<&Value> = pending_requests(&requests).map(|request| &request["sessionId"]).collect();
    let now = Timestamp::now();
    let rows: Vec<Vec<String>> = sessions.iter().map(|session| row(session, &asking, now)).collect();
    let text = match rows.is_empty() {
        true if all => "No sessions.".to_owned(),
        true => "No active sessions.".to_owned(),
        false => table(&context.stdout, &COLUMNS, &rows),
    };
    context.print(&json!({ "sessions": sessions }), &text)?;
    Ok(ExitCode::SUCCESS)
}

fn row(session: &Value, asking: &[&Value], now: Timestamp) -> Vec<String> {
    let text = |name: &str| session[name].as_str().unwrap_or("-").to_owned();
    let state = match session["status"].as_str() {
        Some("active") if session["archived"] == true => "archived",
        Some("active") if asking.contains(&&session["sessionId"]) => "asks",
        Some("active") if session["currentTurnId"].is_string() => "busy",
        Some("active") if session["held"].is_object() => "held",
        Some("active") => "idle",
        other => other.unwrap_or("-"),
    };
    let last = match session["lastTurnStatus"].as_str() {
        Some(TURN_IN_PROGRESS) => "in progress".to_owned(),
        Some(status) => format!("{status} {} ago", age(&session["updatedAt"], now)),
        None => "-".to_owned(),
    };
    vec![
        text("sessionId"),
        text("title"),
        text("cwd"),
        text("model"),
        state.to_owned(),
        last,
        age(&session["createdAt"], now),
    ]
}
