//! The subcommands, one file or directory each.
//!
//! [`run`] dispatches. The commands that talk to a running daemon share [`CommandContext`]; they know of the daemon
//! what any client knows. Invariant: text from Codex or the daemon passes `sanitize_for_terminal` before it reaches a
//! terminal. `failure.rs` has the exit codes, `docs/operations.md` explains them.

mod api;
mod ask;
mod backup;
mod close;
mod config;
mod context;
#[expect(
    clippy::disallowed_methods,
    reason = "the path of the program is read before the daemon serves requests"
)]
mod demo;
#[expect(
    clippy::disallowed_methods,
    reason = "a command is a separate process; a blocking call delays only the command"
)]
mod doctor;
mod failure;
mod follow;
mod format;
mod interrupt;
mod logging;
mod output;
mod questions;
mod requests;
mod resume_queue;
mod runtime;
mod service;
#[expect(
    clippy::disallowed_methods,
    reason = "a command is a separate process; a blocking call delays only the command"
)]
mod sessions;
#[expect(
    clippy::disallowed_methods,
    reason = "a command is a separate process; a blocking call delays only the command"
)]
mod smoke;
mod start;
#[expect(
    clippy::disallowed_methods,
    reason = "a command is a separate process; a blocking call delays only the command"
)]
mod status;
mod terminal;
#[expect(
    clippy::disallowed_methods,
    reason = "a command is a separate process; a blocking call delays only the command"
)]
mod token;
#[expect(clippy::disallowed_methods, reason = "the watchdog is a separate thread")]
mod watchdog;

use std::process::ExitCode;

use crate::cli::{self, CliExit, ClientCommand, Invocation};
use crate::codex;
use crate::config::{Config, Settings};
use context::CommandContext;
use failure::Failure;
use runtime::runtime;

/// Runs the command of a parsed command line.
pub fn run(invocation: Invocation) -> ExitCode {
    let outcome = match invocation {
        Invocation::Start { settings, json, run_once, demo } => {
            let config = if demo { demo::config(&settings) } else { config::resolve(&settings) };
            config.and_then(|config| start::run(config, json, run_once))
        }
        Invocation::Status { settings, json } => {
            config::resolve(&settings).and_then(|config| status::run(&config, json))
        }
        Invocation::Config { settings, json } => {
            config::resolve(&settings).and_then(|config| config::run(&config, json))
        }
        Invocation::Backup { settings, json, directory } => {
            config::resolve(&settings).and_then(|config| backup::run(&config, json, &directory))
        }
        Invocation::Token { settings, json, replace } => {
            config::resolve(&settings).and_then(|config| token::run(&config, json, replace))
        }
        Invocation::Service { action, settings, json } => {
            config::resolve(&settings).and_then(|config| service::run(&config, action, json))
        }
        Invocation::Doctor { settings, json } => {
            config::resolve(&settings).and_then(|config| doctor::run(config, json))
        }
        Invocation::Smoke { settings, json } => smoke::run(&settings, json),
        Invocation::Client { settings, json, command } => config::resolve(&settings)
            .and_then(|config| run_client_command(&config, &settings, json, command)),
        Invocation::Completions { shell } => {
            let script = cli::completions(shell);
            output::print(String::from_utf8_lossy(&script).trim_end()).map(|()| ExitCode::SUCCESS)
        }
        Invocation::Guard { instance } => return codex::run_guard(&instance),
        Invocation::DemoAppServer { store } => return crate::demo::run(store),
    };
    outcome.unwrap_or_else(|failure| failed(&failure))
}

/// Runs a command that asks the running daemon for something.
fn run_client_command(
    config: &Config,
    settings: &Settings,
    json: bool,
    command: ClientCommand,
) -> Result<ExitCode, Failure> {
    let context = CommandContext::new(config, settings, json);
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        match command {
            ClientCommand::Ask(options) => ask::run(&context, options).await,
            ClientCommand::Sessions { all } => sessions::run(&context, all).await,
            ClientCommand::Follow { session, types, after } => {
                follow::run(&context, session, types, after).await
            }
            ClientCommand::Requests { all } => requests::list(&context, all).await,
            ClientCommand::Answer { request, answer } => requests::answer(&context, request, &answer).await,
            ClientCommand::Interrupt { session } => interrupt::run(&context, session).await,
            ClientCommand::ResumeQueue { session } => resume_queue::run(&context, &session).await,
            ClientCommand::Close { session, interrupt } => close::run(&context, &session, interrupt).await,
        }
    });
    // A blocked task must not keep the process.
    runtime.shutdown_background();
    outcome
}

fn failed(failure: &Failure) -> ExitCode {
    // The message may quote text that controls a terminal.
    output::print_error(&format!("codexd: {}", terminal::sanitize_lines_for_terminal(&failure.message)));
    ExitCode::from(failure.code)
}

/// Prints help, version or a usage error, and returns the exit code.
pub fn refuse(exit: CliExit) -> ExitCode {
    match exit {
        CliExit::Text(text) => match output::print(text.trim_end_matches('\n')) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => failed(&failure),
        },
        CliExit::Usage(sentence) => {
            output::print_error(&sentence);
            ExitCode::from(2)
        }
    }
}
