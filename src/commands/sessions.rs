//! `codexd sessions`.

use std::process::ExitCode;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::api::{REQUESTS_PATH, list, pending_requests};
use super::failure::Failure;
use super::terminal::{Column, Overflow, table};
use crate::codex::protocol::values::TURN_IN_PROGRESS;
use crate::commands::context::CommandContext;
use crate::commands::format::age;

/// A narrower terminal gets short IDs.
const WIDE: usize = 120;

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
    let queued = list(&answer, "queued");
    let row = |session: &Value| {
        let queued = queued.iter().find(|queued| queued["sessionId"] == session["sessionId"]);
        row(session, &asking, queued, now)
    };
    let mut rows: Vec<Vec<String>> = sessions.iter().map(row).collect();
    if context.stdout.width.is_some_and(|width| width < WIDE) {
        // The part of an ID that tells sessions apart names a session too.
        for id in rows.iter_mut().filter_map(|row| row.first_mut()) {
            *id = id.split('-').nth(1).unwrap_or(id).to_owned();
        }
    }
    let text = match rows.is_empty() {
        true if all => "No sessions.".to_owned(),
        true => "No active sessions.".to_owned(),
        false => table(&context.stdout, &COLUMNS, &rows),
    };
    context.print(&json!({ "sessions": sessions }), &text)?;
    Ok(ExitCode::SUCCESS)
}

fn row(session: &Value, asking: &[&Value], queued: Option<&Value>, now: Timestamp) -> Vec<String> {
    let text = |name: &str| session[name].as_str().unwrap_or("-").to_owned();
    let state = match session["status"].as_str() {
        Some("active") if session["archived"] == true => "archived".to_owned(),
        Some("active") if asking.contains(&&session["sessionId"]) => "asks".to_owned(),
        Some("active") if session["currentTurnId"].is_string() => "busy".to_owned(),
        Some("active") if session["held"].is_object() => waits(&session["held"]["until"], "held", now),
        Some("active") => match queued {
            Some(queued) => waits(&queued["notBefore"], "queued", now),
            None => "idle".to_owned(),
        },
        other => other.unwrap_or("-").to_owned(),
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
        state,
        last,
        age(&session["createdAt"], now),
    ]
}

/// Until when a session waits, on the clock of the wall; `otherwise` if that is not known or over.
fn waits(until: &Value, otherwise: &str, now: Timestamp) -> String {
    let until = until.as_str().and_then(|time| time.parse::<Timestamp>().ok()).filter(|until| *until > now);
    let Some(until) = until else { return otherwise.to_owned() };
    let zone = TimeZone::system();
    let (until, now) = (until.to_zoned(zone.clone()), now.to_zoned(zone));
    let form = match (until.date() == now.date(), until.year() == now.year()) {
        (true, _) => "%H:%M",
        (false, true) => "%-d %b %H:%M",
        (false, false) => "%-d %b %Y %H:%M",
    };
    format!("waits until {}", until.strftime(form))
}
