//! `codexd call`: calls a method of the app-server; and `compact`, `review`, `revert` and `goal`, which are such calls.

use std::io::{Read, stdin};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::api::{session_path, turn_path};
use super::failure::Failure;
use super::names::{current_or_named_directory, find_session};
use super::{markdown, output};
use crate::cli::{CallArguments, GoalArguments, RevertArguments, ReviewArguments};
use crate::codex::protocol::calls;
use crate::codex::protocol::values::{TURN_COMPLETED, TURN_IN_PROGRESS};
use crate::commands::context::CommandContext;

/// How long one request waits for the end of a turn, in seconds.
const WAIT_SECONDS: u64 = 50;

/// Calls a method and prints its result.
pub(crate) async fn run(context: &CommandContext, arguments: &CallArguments) -> Result<ExitCode, Failure> {
    let params = params(arguments.params.as_deref())?;
    let session_id = match &arguments.session {
        Some(session) => Some(find(context, session).await?),
        None => None,
    };
    let answer = call(context, &arguments.method, params, session_id.as_deref()).await?;
    output::print_json(if context.json { &answer } else { &answer["result"] })?;
    Ok(ExitCode::SUCCESS)
}

/// Compacts the history of a thread and waits until that is done.
pub(crate) async fn compact(context: &CommandContext, session: &str) -> Result<ExitCode, Failure> {
    let session_id = find(context, session).await?;
    let answer = call(context, calls::COMPACT, json!({}), Some(&session_id)).await?;
    finish(context, &session_id, &answer, "The history was compacted.").await
}

/// Starts a review, waits for it and prints it.
pub(crate) async fn review(
    context: &CommandContext,
    arguments: &ReviewArguments,
) -> Result<ExitCode, Failure> {
    let session_id = find(context, &arguments.session).await?;
    let words = (!arguments.words.is_empty()).then(|| arguments.words.join(" "));
    let params =
        calls::review_params(words.as_deref(), arguments.base.as_deref(), arguments.commit.as_deref());
    let answer = call(context, calls::REVIEW, params, Some(&session_id)).await?;
    finish(context, &session_id, &answer, "The review has no text.").await
}

/// Removes turns from a thread.
pub(crate) async fn revert(
    context: &CommandContext,
    arguments: &RevertArguments,
) -> Result<ExitCode, Failure> {
    let session_id = find(context, &arguments.session).await?;
    let first = match &arguments.turn {
        Some(turn_id) => turn_id.clone(),
        None => {
            let view = context.client.get(&session_path(&session_id)).await?;
            let last = view["session"]["lastTurnId"].as_str();
            last.ok_or_else(|| Failure::new(format!("Session {session_id} has no turn to remove.")))?
                .to_owned()
        }
    };
    let answer = call(context, calls::REVERT, json!({ "beforeTurnId": first }), Some(&session_id)).await?;
    let text = format!("Removed turn {first} and those after it from the thread; files stay as they are.");
    context.print(&answer, &context.stdout.line(&text))?;
    Ok(ExitCode::SUCCESS)
}

/// Shows, sets or removes the goal of a thread.
pub(crate) async fn goal(context: &CommandContext, arguments: &GoalArguments) -> Result<ExitCode, Failure> {
    let session_id = find(context, &arguments.session).await?;
    let (method, params) = match (arguments.clear, arguments.words.is_empty()) {
        (true, _) => (calls::GOAL_CLEAR, json!({})),
        (false, true) => (calls::GOAL_GET, json!({})),
        (false, false) => (calls::GOAL_SET, json!({ "objective": arguments.words.join(" ") })),
    };
    let answer = call(context, method, params, Some(&session_id)).await?;
    let goal = &answer["result"]["goal"];
    let text = match goal["objective"].as_str() {
        Some(objective) => format!("{} ({})", objective, goal["status"].as_str().unwrap_or("unknown")),
        None => "The thread has no goal.".to_owned(),
    };
    context.print(&answer, &context.stdout.line(&text))?;
    Ok(ExitCode::SUCCESS)
}

/// Calls a method; returns the response of the daemon.
pub(super) async fn call(
    context: &CommandContext,
    method: &str,
    params: Value,
    session_id: Option<&str>,
) -> Result<Value, Failure> {
    let mut body = json!({ "method": method, "params": params });
    if let Some(session_id) = session_id {
        body["sessionId"] = session_id.into();
    }
    let answer = context.client.post("/v1/codexd/app-server/call", &body).await;
    answer.map_err(|error| match (error.code(), session_id) {
        ("turn_in_progress", Some(session_id)) => Failure::new(format!(
            "Session {session_id} has a running turn; wait for it, or interrupt it: {}",
            context.command_line(&format!("interrupt {session_id}"))
        )),
        _ => error.into(),
    })
}

/// Waits for the end of the turn that a call began and prints its text, or `default`.
async fn finish(
    context: &CommandContext,
    session_id: &str,
    called: &Value,
    default: &str,
) -> Result<ExitCode, Failure> {
    let Some(turn_id) = called["turnId"].as_str() else {
        return Err(Failure::new("Codex accepted the call, and has not started a turn for it yet."));
    };
    let path = format!("{}?wait={WAIT_SECONDS}", turn_path(session_id, turn_id));
    let answer = loop {
        let answer = context.client.get(&path).await?;
        if answer["turn"]["status"] != TURN_IN_PROGRESS {
            break answer;
        }
    };
    let turn = &answer["turn"];
    match turn["status"].as_str() {
        Some(TURN_COMPLETED) => {
            let text = turn["text"].as_str().filter(|text| !text.is_empty()).unwrap_or(default);
            let is_terminal = context.stdout.is_terminal;
            let text = if is_terminal { markdown::render(&context.stdout, text) } else { text.to_owned() };
            context.print(&answer, text.trim_end())?;
            Ok(ExitCode::SUCCESS)
        }
        status => {
            let reason = turn["error"]["message"].as_str().map(|message| format!(": {message}"));
            let (status, reason) = (status.unwrap_or("unknown"), reason.unwrap_or_default());
            Err(Failure::new(format!("Turn {turn_id} is {status}{reason}.")))
        }
    }
}

async fn find(context: &CommandContext, session: &str) -> Result<String, Failure> {
    find_session(context, session, &current_or_named_directory(None)?).await
}

fn params(given: Option<&str>) -> Result<Value, Failure> {
    let text = match given {
        None => return Ok(json!({})),
        Some("-") => {
            let mut text = String::new();
            let read = stdin().read_to_string(&mut text);
            read.map_err(|error| {
                Failure::new(format!("Failed to read the parameters from stdin: {error}."))
            })?;
            text
        }
        Some(text) => text.to_owned(),
    };
    match serde_json::from_str(&text) {
        Ok(params @ Value::Object(_)) => Ok(params),
        Ok(_) => Err(Failure::usage("The parameters must be a JSON object.")),
        Err(error) => Err(Failure::usage(format!("The parameters are not JSON: {error}."))),
    }
}
