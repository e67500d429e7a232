//! `codexd ask`: submits one turn and follows it to its end.
//!
//! The entry point reads the prompt, finds or creates the session, submits the turn, and maps its [`TurnOutcome`] to an
//! exit code. [`TurnFollower`] handles everything in between.

mod activity;
mod approvals;
#[expect(
    clippy::disallowed_methods,
    reason = "a command is a separate process; a blocking call delays only the command"
)]
mod files;
#[expect(
    clippy::disallowed_methods,
    reason = "a command is a separate process; a blocking call delays only the command"
)]
mod images;
mod json_lines;
mod network;
mod outcome;
mod printer;
mod protected;
#[expect(
    clippy::disallowed_methods,
    reason = "a command is a separate process; a blocking call delays only the command"
)]
mod terminal_input;
mod trust;
mod turn_follower;

use std::io::{IsTerminal, Read, stdin};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::api::{list, session_path, turn_path};
use super::failure::{EXIT_INTERRUPTED, EXIT_SIGINT, Failure};
use super::names::{LAST, current_or_named_directory, find_session};
use super::output;
use super::status::codex_status_text;
use super::terminal::FAINT;
use crate::cli::AskArguments;
use crate::client::{ClientError, newest_cursor};
use crate::codex::protocol::values::INPUT_TEXT;
use crate::commands::context::CommandContext;
use outcome::{TurnOutcome, TurnState};
use printer::AnswerFormat;
use terminal_input::TerminalInput;
use turn_follower::TurnFollower;

pub(crate) async fn run(context: &CommandContext, mut options: AskArguments) -> Result<ExitCode, Failure> {
    if options.continues {
        options.session = Some(LAST.to_owned());
    }
    let format = match (context.json, options.jsonl) {
        (true, _) => AnswerFormat::Document,
        (_, true) => AnswerFormat::JsonLines,
        _ => AnswerFormat::Text,
    };
    let input = input(&options)?;
    let schema = options.output_schema.as_deref().map(files::output_schema).transpose()?;
    let answer_file = options.output_last_message.as_deref().map(files::AnswerFile::create).transpose()?;
    let mut interrupts = interrupts()?;
    if options.session.is_none() {
        check_account(context).await?;
    }
    let Some((session_id, terminal)) = session(context, &options, &mut interrupts).await? else {
        context.print_note("Interrupted; nothing was started.");
        return Ok(ExitCode::from(EXIT_SIGINT));
    };
    // Every event of the turn comes after this cursor.
    let cursor = newest_cursor(&context.client).await?;
    if *interrupts.borrow() {
        return Ok(cancel_before_turn(context, &options, &session_id).await);
    }
    let body = turn_body(&options, &session_id, &input, schema)?;
    let turn = match submit_or_interrupt(context, &options, &session_id, &body, interrupts.clone()).await {
        Ok(Some(turn)) => turn,
        Ok(None) => return Ok(cancel_before_turn(context, &options, &session_id).await),
        Err(failure) => {
            // Its session has no turn, and would be the last one of the directory. If the turn runs after all, this fails.
            if options.session.is_none() {
                let _ = context.client.delete(&session_path(&session_id)).await;
            }
            return Err(failure);
        }
    };
    // If the daemon is gone, the stream of events waits for it.
    let mut view = context.client.get(&session_path(&session_id)).await.unwrap_or_default();
    view["session"]["sessionId"] = session_id.as_str().into();
    let session = &view["session"];
    match format {
        AnswerFormat::Text => print_head(context, session),
        AnswerFormat::JsonLines => output::print(&json_lines::thread_started(session).to_string())?,
        AnswerFormat::Document => {}
    }
    if options.detach {
        return detach(context, &session_id, &turn);
    }
    if let (TurnState::Queued(_), Some(time)) = (&turn, &options.not_before) {
        context.print_note(&format!("The turn is queued and starts at {time} at the earliest."));
    }
    let mut follower = TurnFollower::new(context, format, session, turn, cursor, terminal);
    follower.set_network_timeout(options.network_timeout);
    follower.report_failed_mcp_servers(&view)?;
    if options.when_busy.as_deref() == Some("steer") {
        follower.sync_requests().await?;
    }
    follower.report_queue().await?;
    let outcome = follower.run(interrupts).await?;
    follower.print_end(&outcome)?;
    if let Some(file) = answer_file {
        file.write(follower.answer())?;
    }
    if context.json {
        print_result(context, &session_id, follower.turn_id()).await?;
    }
    Ok(match outcome {
        TurnOutcome::Completed => ExitCode::SUCCESS,
        TurnOutcome::Interrupted => {
            context.print_note("The turn was interrupted.");
            ExitCode::from(EXIT_INTERRUPTED)
        }
        TurnOutcome::Withdrawn => {
            context.print_note("The queued turn was withdrawn; it never started.");
            ExitCode::from(EXIT_INTERRUPTED)
        }
        TurnOutcome::Failed(reason) => {
            let view = context.client.get(&session_path(&session_id)).await.unwrap_or_default();
            let continues = list(&view, "queuedTurns").iter().any(|turn| turn["continues"].is_string());
            context.print_note(&match reason {
                Some(reason) => format!("The turn failed: {reason}"),
                None => "The turn failed.".to_owned(),
            });
            if continues {
                context.print_note("A new turn continues it when the usage limit has ended; codexd show has its answer then.");
            }
            if let Some(codex) = codex(context).await.filter(|codex| codex["state"] != "ready") {
                context.print_note(&codex_status_text(&codex));
            }
            ExitCode::FAILURE
        }
    })
}

/// Prints which session it is, and on a terminal what it uses.
fn print_head(context: &CommandContext, session: &Value) {
    let session_id = session["sessionId"].as_str().unwrap_or_default();
    let mut head = format!("session {session_id}");
    if context.stderr.is_terminal {
        let used = ["model", "reasoningEffort"].into_iter().filter_map(|name| session[name].as_str());
        head.extend(used.map(|name| format!(" · {name}")));
    }
    output::print_error(&context.stderr.paint(FAINT, &context.stderr.line(&head)));
}

/// How long to wait for a new login to become known to the daemon.
const ACCOUNT_WAIT: Duration = Duration::from_secs(3);
/// How often the account is checked during that time.
const ACCOUNT_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The state of Codex as the daemon reports it; `None` if it does not.
async fn codex(context: &CommandContext) -> Option<Value> {
    let answer = context.client.get("/healthz").await;
    answer.ok().map(|mut health| health["service"]["codex"].take()).filter(Value::is_object)
}

/// Fails if Codex has no account, before the command starts anything.
///
/// An existing session may use another model than the one in the configuration, so this check is for new sessions only.
async fn check_account(context: &CommandContext) -> Result<(), Failure> {
    let end = Instant::now() + ACCOUNT_WAIT;
    while let Some(codex) = codex(context).await.filter(|codex| codex["state"] == "noAccount") {
        if Instant::now() >= end {
            return Err(Failure::new(codex_status_text(&codex)));
        }
        tokio::time::sleep(ACCOUNT_POLL_INTERVAL).await;
    }
    Ok(())
}

/// The input of the turn: the prompt, after its images if there are any.
fn input(options: &AskArguments) -> Result<Value, Failure> {
    // The images first: the prompt may be read from a program that takes long.
    let mut items = images::items(&options.image)?;
    let text = text(&options.words)?;
    if items.is_empty() {
        return Ok(text.into());
    }
    items.push(json!({ "type": INPUT_TEXT, "text": text, "text_elements": [] }));
    Ok(items.into())
}

/// The prompt. `-` is replaced by stdin; without arguments the prompt is read from stdin.
fn text(parts: &[String]) -> Result<String, Failure> {
    if parts.is_empty() && stdin().is_terminal() {
        return Err(Failure::usage("No prompt given; run codexd ask \"…\", or pipe the prompt in."));
    }
    let mut text = String::new();
    for part in parts {
        if part != "-" {
            // Text from stdin is a separate paragraph.
            text.push_str(if text.is_empty() || text.ends_with('\n') { "" } else { " " });
            text.push_str(part);
        } else {
            text.push_str(if text.is_empty() { "" } else { "\n\n" });
            text.push_str(&read_stdin()?);
            text.push_str("\n\n");
        }
    }
    if parts.is_empty() {
        text = read_stdin()?;
    }
    match text.trim() {
        "" => Err(Failure::usage("The prompt is empty.")),
        text => Ok(text.to_owned()),
    }
}

fn read_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    let read = stdin().read_to_string(&mut text);
    read.map_err(|error| Failure::usage(format!("Failed to read the prompt from stdin: {error}.")))?;
    Ok(text.trim().to_owned())
}

/// Becomes `true` at the first Ctrl-C. The second one ends the process at once.
fn interrupts() -> Result<watch::Receiver<bool>, Failure> {
    let mut signals = signal(SignalKind::interrupt())
        .map_err(|error| Failure::new(format!("Failed to handle SIGINT: {error}.")))?;
    let (first, reported) = watch::channel(false);
    tokio::spawn(async move {
        signals.recv().await;
        first.send_replace(true);
        signals.recv().await;
        terminal_input::restore_echo();
        output::print_error("\ncodexd: Exiting; a running turn continues in codexd.");
        std::process::exit(EXIT_SIGINT.into());
    });
    Ok(reported)
}

/// Returns the session named on the command line, or a new one in the current directory, with the terminal input if a
/// question was asked on it. `None` if Ctrl-C was typed first.
async fn session(
    context: &CommandContext,
    options: &AskArguments,
    interrupts: &mut watch::Receiver<bool>,
) -> Result<Option<(String, Option<TerminalInput>)>, Failure> {
    let directory = current_or_named_directory(options.cwd.as_deref())?;
    if let Some(session) = &options.session {
        return Ok(Some((find_session(context, session, &directory).await?, None)));
    }
    let mut body = settings(options);
    body.insert("cwd".to_owned(), path_to_json(&directory)?);
    if let Some(sandbox) = &options.sandbox {
        body.insert("sandbox".to_owned(), sandbox.as_str().into());
    }
    if let Some(trust) = options.trust {
        body.insert("trust".to_owned(), trust.into());
    }
    let overrides = files::config_overrides(options.profile.as_deref(), &options.config)?;
    if !overrides.is_empty() {
        body.insert("config".to_owned(), overrides.into());
    }
    if options.ephemeral {
        body.insert("ephemeral".to_owned(), true.into());
    }
    let Some((created, input)) = trust::create(context, body, interrupts).await? else { return Ok(None) };
    let session_id = created["session"]["sessionId"].as_str().unwrap_or_default().to_owned();
    if created["session"]["trust"] == "untrusted" {
        report_ignored_configuration(context, &session_id).await?;
    }
    Ok(Some((session_id, input)))
}

/// Reports which `.codex` directories Codex ignores, if any.
async fn report_ignored_configuration(context: &CommandContext, session_id: &str) -> Result<(), Failure> {
    let view = context.client.get(&session_path(session_id)).await?;
    let events = view["recentEvents"].as_array().into_iter().flatten();
    let reported = events.rev().find(|event| event["type"] == "session.trust");
    let left_out = reported.and_then(|event| event["detail"]["leftOut"].as_array()).into_iter().flatten();
    let left_out: Vec<_> = left_out.filter_map(Value::as_str).collect();
    if !left_out.is_empty() {
        context.print_note(&format!(
            "Ignored, because the directory is not trusted: {}; --trust enables it.",
            left_out.join(", ")
        ));
    }
    Ok(())
}

/// The path as a JSON string, byte for byte.
fn path_to_json(path: &Path) -> Result<Value, Failure> {
    path.to_str().map(Value::from).ok_or_else(|| {
        Failure::usage(format!(
            "The path of the directory {} is not UTF-8, so it cannot be sent to codexd; rename the directory, or use \
             another one.",
            path.display()
        ))
    })
}

/// The settings that sessions and turns have in common.
fn settings(options: &AskArguments) -> Map<String, Value> {
    let all = [("model", &options.model), ("approvalPolicy", &options.approval_policy)];
    let given = all.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
    given.map(|(name, value)| (name.to_owned(), value.into())).collect()
}

/// Handles Ctrl-C before the turn exists: closes the session that was created for it, because no other client knows it.
async fn cancel_before_turn(context: &CommandContext, options: &AskArguments, session_id: &str) -> ExitCode {
    if options.session.is_none() {
        // If this fails, an idle session stays, which does no harm.
        let _ = context.client.delete(&session_path(session_id)).await;
    }
    context.print_note("Interrupted before the turn began.");
    ExitCode::from(EXIT_INTERRUPTED)
}

/// Submits the turn; `None` if it was interrupted before it started.
///
/// In a session created by this command, Ctrl-C is passed on while the response is outstanding, because that may take
/// long. In a session that other clients may use it could interrupt their turn, so there it waits until the turn has an
/// ID.
async fn submit_or_interrupt(
    context: &CommandContext,
    options: &AskArguments,
    session_id: &str,
    turn: &Value,
    mut interrupts: watch::Receiver<bool>,
) -> Result<Option<TurnState>, Failure> {
    let submitted = submit(context, session_id, turn);
    tokio::pin!(submitted);
    tokio::select! {
        submitted = &mut submitted => return submitted,
        Ok(_) = interrupts.wait_for(|is_wanted| *is_wanted), if options.session.is_none() => {}
    }
    let (client, body) = (context.client.clone(), json!({ "sessionId": session_id }));
    // The response to the turn, or its events, report the result.
    tokio::spawn(async move { client.post("/v1/codexd/turn/interrupt", &body).await });
    submitted.await
}

/// The body of the request that submits the turn.
fn turn_body(
    options: &AskArguments,
    session_id: &str,
    input: &Value,
    schema: Option<Value>,
) -> Result<Value, Failure> {
    let mut body = Map::new();
    if options.session.is_some() {
        body = settings(options);
        // An existing session keeps its directory unless another one is given.
        if options.cwd.is_some() {
            body.insert(
                "cwd".to_owned(),
                path_to_json(&current_or_named_directory(options.cwd.as_deref())?)?,
            );
        }
        if let Some(how) = &options.when_busy {
            body.insert("whenBusy".to_owned(), how.as_str().into());
        }
    }
    if let Some(what) = &options.on_usage_limit {
        body.insert("onUsageLimit".to_owned(), what.as_str().into());
    }
    if let Some(time) = &options.not_before {
        body.insert("notBefore".to_owned(), time.as_str().into());
    }
    body.insert("sessionId".to_owned(), session_id.into());
    body.insert("input".to_owned(), input.clone());
    if let Some(schema) = schema {
        body.insert("outputSchema".to_owned(), schema);
    }
    Ok(body.into())
}

async fn submit(
    context: &CommandContext,
    session_id: &str,
    turn: &Value,
) -> Result<Option<TurnState>, Failure> {
    let submitted = context.client.post("/v1/codexd/turn", turn).await;
    if submitted.as_ref().is_err_and(|error| error.code() == "turn_interrupted") {
        return Ok(None);
    }
    let accepted = submitted.map_err(|error: ClientError| match error.code() {
        "turn_in_progress" => Failure::new(format!(
            "Session {session_id} has a running turn; wait for it, or use --when-busy steer or --when-busy queue."
        )),
        _ => error.into(),
    })?;
    let text = |name: &str| accepted[name].as_str().map(str::to_owned);
    match (text("turnId"), text("queueId")) {
        (Some(turn_id), _) => Ok(Some(TurnState::Started(turn_id))),
        (None, Some(queue_id)) => Ok(Some(TurnState::Queued(queue_id))),
        (None, None) => Err(Failure::new("codexd accepted the turn but returned no turn ID.")),
    }
}

/// Prints what became of the turn so far; it goes on in codexd.
fn detach(context: &CommandContext, session_id: &str, turn: &TurnState) -> Result<ExitCode, Failure> {
    let (turn_id, queue_id, text) = match turn {
        TurnState::Started(turn_id) => (Some(turn_id), None, format!("Turn {turn_id} has started.")),
        TurnState::Queued(queue_id) => (None, Some(queue_id), format!("Turn {queue_id} is queued.")),
    };
    let accepted = json!({ "sessionId": session_id, "turnId": turn_id, "queueId": queue_id });
    context.print(&accepted, &context.stdout.line(&text))?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the final session and turn as JSON.
async fn print_result(
    context: &CommandContext,
    session_id: &str,
    turn_id: Option<&str>,
) -> Result<(), Failure> {
    let session = context.client.get(&session_path(session_id)).await?["session"].take();
    let turn = match turn_id {
        Some(turn_id) => context.client.get(&turn_path(session_id, turn_id)).await?["turn"].take(),
        None => Value::Null,
    };
    context.print(&json!({ "session": session, "turn": turn }), "")
}
