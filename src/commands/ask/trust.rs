//! Asks whether to trust the directory of a new session, once per directory and only at a terminal.

use serde_json::{Map, Value};
use tokio::sync::watch;

use super::terminal_input::TerminalInput;
use crate::client::ClientError;
use crate::commands::context::CommandContext;
use crate::commands::failure::Failure;
use crate::commands::output;
use crate::commands::terminal::{STRONG, WAITING, sanitize_for_terminal};

const SESSIONS: &str = "/v1/codexd/sessions";

/// Creates a session from `body`, after the trust question if it has to be asked.
///
/// Returns the daemon's response, with the terminal input if it was opened; `None` if Ctrl-C was typed at the question.
/// No session exists until the question is answered. Without a terminal nothing is asked, and an earlier answer does
/// not count, so that the command line alone determines what a script does.
pub(super) async fn create(
    context: &CommandContext,
    mut body: Map<String, Value>,
    interrupts: &mut watch::Receiver<bool>,
) -> Result<Option<(Value, Option<TerminalInput>)>, Failure> {
    let has_terminal = context.stderr.is_terminal && TerminalInput::is_available();
    if body.contains_key("trust") || !has_terminal {
        return Ok(Some((context.client.post(SESSIONS, &body.into()).await?, None)));
    }
    body.insert("trust".to_owned(), "ask".into());
    let details = match context.client.post(SESSIONS, &body.clone().into()).await {
        Ok(created) => return Ok(Some((created, None))),
        Err(ClientError::Refused { code, details, .. }) if code == "trust_undecided" => details,
        Err(error) => return Err(error.into()),
    };
    let mut input = TerminalInput::open();
    let answer = match &mut input {
        Some(input) => tokio::select! {
            answer = ask(context, input, &details) => answer,
            _ = interrupts.wait_for(|is_interrupted| *is_interrupted) => {
                output::write_stderr("\n");
                return Ok(None);
            }
        },
        None => None,
    };
    match answer {
        Some(answer) => drop(body.insert("trust".to_owned(), answer.into())),
        // No answer: the directory is not trusted for this session, and the question is asked again next time.
        None => {
            body.remove("trust");
            input = None;
        }
    }
    Ok(Some((context.client.post(SESSIONS, &body.into()).await?, input)))
}

/// Asks until the answer is yes or no (an empty line is no); `None` at end of file.
async fn ask(context: &CommandContext, input: &mut TerminalInput, details: &Value) -> Option<bool> {
    let screen = &context.stderr;
    let left_out = details["leftOut"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let left_out = sanitize_for_terminal(&left_out.collect::<Vec<_>>().join(", "));
    let asked = format!("This directory has its own Codex configuration ({left_out}). Trust it? [y/N] ");
    let text = format!(
        "If it is trusted, its MCP servers and hooks run commands as you, outside of the sandbox.\n\
         The answer is kept for this directory; --trust and --trust=false change it.\n{}",
        screen.paint(WAITING, &asked)
    );
    // What was typed before the question appeared is no answer to it.
    input.discard_pending();
    output::write_stderr(&text);
    loop {
        let Some(line) = input.next_line().await else {
            output::write_stderr("\n");
            return None;
        };
        match line.trim().to_lowercase().as_str() {
            "y" | "yes" => return Some(true),
            "" | "n" | "no" => return Some(false),
            _ => output::write_stderr(&screen.paint(STRONG, "y or n: ")),
        }
    }
}
