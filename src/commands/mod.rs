//! What the subcommands do; one file each.
//!
//! Exit codes: 0 as wanted, 1 not as wanted, 2 wrong settings or words, 3 no daemon answers, 4 the turn was interrupted,
//! 130 left by a second Ctrl-C; `docs/operations.md` has the whole table.

mod ask;
mod backup;
mod client;
mod close;
mod config;
mod context;
#[expect(
    clippy::disallowed_methods,
    reason = "a command is a process of its own, and what blocks it keeps only itself"
)]
mod doctor;
mod follow;
mod format;
mod interrupt;
mod logging;
mod output;
mod questions;
mod requests;
mod resume_queue;
mod service;
#[expect(
    clippy::disallowed_methods,
    reason = "a command is a process of its own, and what blocks it keeps only itself"
)]
mod sessions;
#[expect(
    clippy::disallowed_methods,
    reason = "a command is a process of its own, and what blocks it keeps only itself"
)]
mod smoke;
mod start;
#[expect(
    clippy::disallowed_methods,
    reason = "a command is a process of its own, and what blocks it keeps only itself"
)]
mod status;
mod terminal;
#[expect(
    clippy::disallowed_methods,
    reason = "a command is a process of its own, and what blocks it keeps only itself"
)]
mod token;
#[expect(clippy::disallowed_methods, reason = "the watchdog is a thread of its own")]
mod watchdog;

use std::process::ExitCode;

use crate::cli::{self, CliExit, Request};
use crate::codex;
use crate::config::{Config, Settings};
use crate::embedded;

/// No daemon answers.
const NOBODY: u8 = 3;
/// The turn was interrupted.
const INTERRUPTED: u8 = 4;
/// A second Ctrl-C: 128 and the number of SIGINT, as shells say it.
const LEFT: u8 = 130;

/// A failure that ends a command: the exit code, and a sentence for stderr.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// It did not work.
    fn new(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into() }
    }

    /// The settings are wrong.
    fn settings(message: impl Into<String>) -> Self {
        Self { code: 2, message: message.into() }
    }
}

/// Carries out what the command line asks for.
pub fn run(request: Request) -> ExitCode {
    let outcome = match request {
        Request::Start { settings, json, run_once } => {
            resolve(&settings).and_then(|config| start::run(config, json, run_once))
        }
        Request::Status { settings, json } => {
            resolve(&settings).and_then(|config| status::run(&config, json))
        }
        Request::Config { settings, json } => {
            resolve(&settings).and_then(|config| config::run(&config, json))
        }
        Request::Backup { settings, json, directory } => {
            resolve(&settings).and_then(|config| backup::run(&config, json, &directory))
        }
        Request::Token { settings, json, replace } => {
            resolve(&settings).and_then(|config| token::run(&config, json, replace))
        }
        Request::Service { action, settings, json } => {
            resolve(&settings).and_then(|config| service::run(&config, action, json))
        }
        Request::Doctor { settings, json } => resolve(&settings).and_then(|config| doctor::run(config, json)),
        Request::Smoke { settings, json } => smoke::run(&settings, json),
        Request::Errand { settings, json, errand } => {
            resolve(&settings).and_then(|config| context::run(&config, &settings, json, errand))
        }
        Request::Completions { shell } => {
            let said = output::say(String::from_utf8_lossy(&cli::completions(shell)).trim_end());
            said.map(|()| ExitCode::SUCCESS)
        }
        Request::Guard { instance } => return codex::run_guard(&instance),
        Request::EmbeddedAppServer { store, startup } => {
            return embedded::run(embedded::Options { store, startup });
        }
    };
    outcome.unwrap_or_else(|failure| failed(&failure))
}

fn failed(failure: &Failure) -> ExitCode {
    // A refusal may quote what a terminal would obey.
    output::complain(&format!("codexd: {}", terminal::harmless_lines(&failure.message)));
    ExitCode::from(failure.code)
}

/// Answers a command line that asks for nothing to be done.
pub fn refuse(exit: CliExit) -> ExitCode {
    match exit {
        CliExit::Text(text) => match output::say(text.trim_end_matches('\n')) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => failed(&failure),
        },
        CliExit::Usage(sentence) => {
            output::complain(&sentence);
            ExitCode::from(2)
        }
    }
}

fn resolve(settings: &Settings) -> Result<Config, Failure> {
    Config::from_process(settings).map_err(|error| Failure::settings(error.to_string()))
}

/// A runtime for a command.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        // Two are enough to read while something is sent, and each further one costs memory.
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("The runtime could not be started: {error}.")))
}
