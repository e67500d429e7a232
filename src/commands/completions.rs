//! `codexd completions`, and what the shells ask when a person presses Tab.
//!
//! The script of a shell calls codexd with [`VARIABLE`], and codexd answers from its command line and from the running
//! daemon: sessions, requests and models. Without a daemon there are no such values, and no error.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::Shells;
use serde_json::Value;

use super::api::{REQUESTS_PATH, list, pending_requests};
use super::failure::Failure;
use super::names::LAST;
use super::output;
use super::runtime::runtime;
use crate::cli::{self, Command, Shell};
use crate::commands::context::CommandContext;
use crate::commands::format;

/// The environment variable with which the script of a shell calls codexd.
const VARIABLE: &str = "CODEXD_COMPLETE";
/// How long Tab waits for the daemon.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Answers a shell; `None` if none asks.
pub(super) fn answer() -> Option<ExitCode> {
    let completion = CompleteEnv::with_factory(command).var(VARIABLE).bin("codexd");
    match completion.try_complete(std::env::args_os(), None) {
        Ok(false) => None,
        Ok(true) => Some(ExitCode::SUCCESS),
        Err(_) => Some(ExitCode::FAILURE),
    }
}

/// Prints the script for a shell.
pub(super) fn run(shell: Shell) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    let written = match Shells::builtins().completer(&shell.to_string()) {
        Some(completer) => completer.write_registration(VARIABLE, "codexd", "codexd", "codexd", &mut script),
        None => Err(io::ErrorKind::Unsupported.into()),
    };
    written.map_err(|error| Failure::new(format!("Failed to write the script for {shell}: {error}.")))?;
    output::print(String::from_utf8_lossy(&script).trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// The visible commands, with the values that the daemon knows.
fn command() -> clap::Command {
    cli::visible_commands().mut_subcommands(|command| {
        let name = command.get_name().to_owned();
        command.mut_args(|argument| match (argument.get_id().as_str(), name.as_str()) {
            ("session", _) => argument.add(ArgValueCandidates::new(sessions)),
            ("request", _) => argument.add(ArgValueCandidates::new(requests)),
            ("model", _) => argument.add(ArgValueCandidates::new(models)),
            ("types", "follow") | ("on", "hooks") => argument.add(ArgValueCandidates::new(event_types)),
            _ => argument,
        })
    })
}

fn sessions() -> Vec<CompletionCandidate> {
    let answer = read("/v1/codexd/sessions?order=newest&status=active");
    let sessions = list(&answer, "sessions").iter().filter_map(|session| {
        let title = session["title"].as_str().or(session["cwd"].as_str()).unwrap_or_default();
        Some(candidate(session["sessionId"].as_str()?, title))
    });
    let last = candidate(LAST, "the most recently used session in this directory");
    std::iter::once(last).chain(sessions).collect()
}

fn requests() -> Vec<CompletionCandidate> {
    let answer = read(REQUESTS_PATH);
    let requests = pending_requests(&answer).filter_map(|request| {
        Some(candidate(request["requestId"].as_str()?, &format::request_for_person(request)))
    });
    requests.collect()
}

fn models() -> Vec<CompletionCandidate> {
    let answer = read("/v1/codexd/models");
    let models = list(&answer, "models").iter().filter_map(|model| {
        Some(candidate(model["model"].as_str()?, model["description"].as_str().unwrap_or_default()))
    });
    models.collect()
}

fn event_types() -> Vec<CompletionCandidate> {
    crate::daemon::event_types().map(CompletionCandidate::new).collect()
}

fn candidate(value: &str, help: &str) -> CompletionCandidate {
    let help = super::terminal::sanitize_for_terminal(help);
    CompletionCandidate::new(value).help(Some(help.into()))
}

/// What the daemon of the environment answers; null if it does not.
fn read(path: &str) -> Value {
    let words = ["codexd", "models"].map(Into::into);
    let Ok(Command::Models(client)) = cli::parse(words.into_iter()) else { return Value::Null };
    let Ok(runtime) = runtime() else { return Value::Null };
    let context = CommandContext::new(&client);
    let answer = runtime.block_on(async { tokio::time::timeout(TIMEOUT, context.client.get(path)).await });
    runtime.shutdown_background();
    answer.ok().and_then(Result::ok).unwrap_or_default()
}
