//! `codexd requests`, `codexd approve` and `codexd decline`: lists and answers the requests of Codex.

use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::api::{REQUESTS_PATH, is_pending, list as list_in, pending_requests, request_path};
use super::failure::Failure;
use super::names::find_request;
use super::questions;
use super::terminal::{
    Column, OutputTarget, Overflow, sanitize_and_indent, sanitize_for_terminal, table, table_with_gap,
};
use crate::cli::{ApproveArguments, DeclineArguments};
use crate::client::percent_encode;
use crate::codex::protocol::decisions;
use crate::commands::context::CommandContext;
use crate::commands::format;

const COLUMNS: [Column; 5] = [
    Column { title: "REQUEST", overflow: Overflow::Keep },
    Column { title: "SESSION", overflow: Overflow::Keep },
    Column { title: "STATE", overflow: Overflow::Keep },
    Column { title: "AGE", overflow: Overflow::Keep },
    Column { title: "CODEX ASKS TO", overflow: Overflow::TruncateEnd },
];

/// Lists the pending requests, oldest first, or all of them.
pub(crate) async fn list(context: &CommandContext, all: bool) -> Result<ExitCode, Failure> {
    let mut answer = context.client.get(REQUESTS_PATH).await?;
    let is_wanted = |request: &Value| all || is_pending(request);
    if let Some(requests) = answer["requests"].as_array_mut() {
        requests.retain(is_wanted);
    }
    let now = Timestamp::now();
    let requests = list_in(&answer, "requests");
    let rows: Vec<Vec<String>> = requests.iter().map(|request| row(request, now)).collect();
    let text = match rows.is_empty() {
        true if all => "No requests.".to_owned(),
        true => "No pending requests.".to_owned(),
        false if context.stdout.is_terminal => listing(&context.stdout, requests, &rows),
        false => table(&context.stdout, &COLUMNS, &rows),
    };
    context.print(&answer, &text)?;
    Ok(ExitCode::SUCCESS)
}

/// The table with each request below its row, not truncated.
fn listing(screen: &OutputTarget, requests: &[Value], rows: &[Vec<String>]) -> String {
    let columns = &COLUMNS[..COLUMNS.len() - 1];
    // The IDs take nearly all of 80 columns.
    let heads = table_with_gap(1, screen, columns, rows);
    let asked = requests.iter().map(|request| {
        // The part that is cut off might be the part that matters.
        format!("\n  {}", sanitize_and_indent(&format::request(request)))
    });
    // The title line has no request.
    let below = std::iter::once(String::new()).chain(asked);
    let lines: Vec<String> = heads.lines().zip(below).map(|(head, asked)| format!("{head}{asked}")).collect();
    lines.join("\n")
}

fn row(request: &Value, now: Timestamp) -> Vec<String> {
    let text = |name: &str| request[name].as_str().unwrap_or("-").to_owned();
    let state = match request["status"].as_str() {
        Some("pending") => "open".to_owned(),
        _ if request["decision"].is_null() => text("resolvedBy"),
        _ => format::decision(&request["decision"]),
    };
    let age = format::age(&request["createdAt"], now);
    vec![text("requestId"), text("sessionId"), state, age, format::request(request)]
}

/// An answer to a request of Codex.
#[derive(Debug)]
enum Answer {
    /// One of the decisions offered: its name or its JSON text.
    Decision(String),
    /// One answer per question.
    Words(Vec<String>),
    /// The whole result in the format of the app-server, as JSON.
    Result(String),
}

pub(crate) async fn approve(
    context: &CommandContext,
    arguments: ApproveArguments,
) -> Result<ExitCode, Failure> {
    let given = match arguments.result {
        Some(result) => Answer::Result(result),
        None if !arguments.answers.is_empty() => Answer::Words(arguments.answers),
        None => Answer::Decision(arguments.decision),
    };
    answer(context, arguments.request, &given).await
}

pub(crate) async fn decline(
    context: &CommandContext,
    arguments: DeclineArguments,
) -> Result<ExitCode, Failure> {
    let decision = if arguments.cancel { decisions::CANCEL } else { decisions::DECLINE };
    answer(context, arguments.request, &Answer::Decision(decision.to_owned())).await
}

/// Answers a request, or the only pending one.
async fn answer(
    context: &CommandContext,
    request_id: Option<String>,
    answer: &Answer,
) -> Result<ExitCode, Failure> {
    let request = match request_id {
        Some(named) => {
            let id = find_request(context, &named).await?;
            context.client.get(&request_path(&id)).await?["request"].take()
        }
        None => only_pending_request(context).await?,
    };
    let id = request["requestId"].as_str().unwrap_or_default();
    let body = body(&request, answer)?;
    let answered = context.client.post(&request_path(id), &body).await?;
    let decided = match &answered["request"]["decision"] {
        Value::Null => "answered".to_owned(),
        decision => format::decision(decision),
    };
    let text = format!("{decided}: {} ({id})", format::request(&request));
    context.print(&answered, &context.stdout.line(&text))?;
    Ok(ExitCode::SUCCESS)
}

/// The pending requests of a session, oldest first.
pub(crate) async fn pending_in_session(
    context: &CommandContext,
    session_id: &str,
) -> Result<Vec<Value>, Failure> {
    let answer =
        context.client.get(&format!("{REQUESTS_PATH}?sessionId={}", percent_encode(session_id))).await?;
    Ok(pending_requests(&answer).cloned().collect())
}

async fn only_pending_request(context: &CommandContext) -> Result<Value, Failure> {
    let answer = context.client.get(REQUESTS_PATH).await?;
    let waiting: Vec<&Value> = pending_requests(&answer).collect();
    match waiting.as_slice() {
        [request] => Ok((*request).clone()),
        [] => Err(Failure::new("No pending requests.")),
        several => {
            let lines = several.iter().map(|request| {
                let id = request["requestId"].as_str().unwrap_or_default();
                format!("\n{id}  {}", sanitize_for_terminal(&format::request(request)))
            });
            let lines: String = lines.collect();
            Err(Failure::usage(format!("{} requests are pending; name one of them:{lines}", several.len())))
        }
    }
}

/// The body to send; a decision must be one of those offered.
fn body(request: &Value, answer: &Answer) -> Result<Value, Failure> {
    let name = match answer {
        Answer::Result(text) => {
            let result: Value = serde_json::from_str(text)
                .map_err(|error| Failure::usage(format!("--result is not JSON: {error}.")))?;
            return Ok(json!({ "result": result }));
        }
        Answer::Words(answers) => return answers_body(request, answers),
        Answer::Decision(name) => name,
    };
    let offered = format::decisions(request);
    find_decision(&offered, name).map(|decision| json!({ "decision": decision })).ok_or_else(|| {
        if !questions::of(request).is_empty() {
            return Failure::new(sanitize_for_terminal(&format!(
                "Codex asks to {}; give --answer once for each question.",
                format::request(request)
            )));
        }
        let names: Vec<String> = offered.iter().map(format::decision).collect();
        Failure::new(sanitize_for_terminal(&format!(
            "Codex does not offer {name:?}; choose one of {} with --decision, or give the complete answer with --result.",
            names.join(", ")
        )))
    })
}

/// The body to send if Codex asks questions.
fn answers_body(request: &Value, answers: &[String]) -> Result<Value, Failure> {
    let questions = questions::of(request);
    match questions.len() {
        0 => Err(Failure::new("This request needs a decision, not --answer; give it with --decision.")),
        count if count != answers.len() => {
            let lines =
                questions.iter().map(|question| format!("\n{}", sanitize_for_terminal(&question.text)));
            let lines: String = lines.collect();
            Err(Failure::new(format!("Codex asks {count} questions; give --answer once for each:{lines}")))
        }
        _ => {
            let answers = questions.iter().zip(answers).map(|(question, answer)| question.answer(answer));
            Ok(questions::result(&questions, &answers.collect::<Vec<_>>()))
        }
    }
}

/// The offered decision with this name, this JSON text, or a word that people use for it.
pub(crate) fn find_decision<'a>(offered: &'a [Value], name: &str) -> Option<&'a Value> {
    let parsed: Option<Value> = serde_json::from_str(name).ok();
    let is_named = |decision: &Value, name: &str| {
        decision.as_str() == Some(name)
            || decision.as_object().is_some_and(|object| object.len() == 1 && object.contains_key(name))
    };
    let meant: &[&str] = match name.to_lowercase().as_str() {
        "y" | "yes" | "ok" | "allow" | "approve" => &[decisions::ACCEPT],
        "a" | "always" => &[decisions::ACCEPT_FOR_SESSION, decisions::ACCEPT_WITH_POLICY],
        "n" | "no" | "deny" | "reject" => &[decisions::DECLINE, decisions::CANCEL],
        "c" | "stop" | "abort" => &[decisions::CANCEL],
        _ => &[],
    };
    let find = |name: &str| offered.iter().find(|decision| is_named(decision, name));
    let by_json = || offered.iter().find(|decision| Some(*decision) == parsed.as_ref());
    find(name).or_else(by_json).or_else(|| meant.iter().find_map(|name| find(name)))
}
