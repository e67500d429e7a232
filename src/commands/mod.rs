//! The subcommands, one file or directory each.
//!
//! [`run`] dispatches. The commands that talk to a running daemon share [`CommandContext`]; they know of the daemon
//! what any client knows. Invariant: text from Codex or the daemon passes `sanitize_for_terminal` before it reaches a
//! terminal. `failure.rs` has the exit codes, `docs/operations.md` explains them.

mod account;
mod api;
mod app_server;
mod ask;
mod backup;
mod call;
mod close;
mod completions;
mod config;
mod context;
mod conversation;
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
#[expect(
    clippy::disallowed_methods,
    reason = "a command is a separate process; a blocking call delays only the command"
)]
mod hooks;
mod interrupt;
mod items;
mod logging;
mod login;
mod markdown;
mod mcp;
mod models;
#[expect(
    clippy::disallowed_methods,
    reason = "a command is a separate process; a blocking call delays only the command"
)]
mod names;
mod open;
mod or_demo;
mod output;
mod patch;
#[expect(
    clippy::disallowed_methods,
    reason = "a command is a separate process; a blocking call delays only the command"
)]
mod programs;
mod questions;
mod requests;
mod resume_queue;
mod runtime;
#[expect(
    clippy::disallowed_methods,
    reason = "a command is a separate process; a blocking call delays only the command"
)]
mod service;
mod sessions;
mod show;
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
#[expect(
    clippy::disallowed_methods,
    reason = "a command is a separate process; a blocking call delays only the command"
)]
mod stop;
mod terminal;
mod threads;
#[expect(
    clippy::disallowed_methods,
    reason = "a command is a separate process; a blocking call delays only the command"
)]
mod token;
mod update;
mod upgrade;
#[expect(clippy::disallowed_methods, reason = "the watchdog is a separate thread")]
mod watchdog;
mod wrap;

use std::process::ExitCode;

use crate::cli::{self, CliExit, ClientArguments, Command, StartArguments};
use crate::codex;
use context::CommandContext;
use failure::Failure;
use runtime::runtime;

/// Answers a shell that asks how to complete a command line; `None` if none asks.
pub fn complete() -> Option<ExitCode> {
    completions::answer()
}

/// Runs a subcommand.
pub fn run(command: Command) -> ExitCode {
    let outcome = match command {
        Command::Start(arguments) => {
            let StartArguments { daemon, run_once, verbose, demo, or_demo } = arguments;
            let config = service::enter_environment().and_then(|()| match (demo, or_demo) {
                (true, _) => demo::config(daemon.settings),
                (false, true) => or_demo::config(daemon.settings),
                (false, false) => config::resolve(daemon.settings),
            });
            config.and_then(|config| start::run(config, daemon.json, run_once, verbose))
        }
        Command::Status(arguments) => {
            config::resolve(arguments.settings).and_then(|config| status::run(&config, arguments.json))
        }
        Command::Config(arguments) => {
            config::resolve(arguments.settings).and_then(|config| config::run(&config, arguments.json))
        }
        Command::Backup(arguments) => backup::back_up(&arguments),
        Command::Restore(arguments) => backup::restore(&arguments),
        Command::Token(arguments) => token::run(&arguments),
        Command::Stop(arguments) => stop::run(&arguments),
        Command::Logs(arguments) => stop::logs(&arguments),
        Command::Service(arguments) => service::run(arguments),
        Command::Upgrade(arguments) => config::resolve(arguments.daemon.settings)
            .and_then(|config| upgrade::run(&config, arguments.check, arguments.daemon.json)),
        Command::Doctor(arguments) => {
            config::resolve(arguments.settings).and_then(|config| doctor::run(config, arguments.json))
        }
        Command::Smoke(arguments) => smoke::run(arguments.settings, arguments.json),
        Command::Ask(arguments) => {
            let client = arguments.client.clone();
            run_client_command(&client, async |context| ask::run(context, arguments).await)
        }
        Command::Exec(mut arguments) => {
            arguments.jsonl |= std::mem::take(&mut arguments.client.json);
            let client = arguments.client.clone();
            run_client_command(&client, async |context| ask::run(context, arguments).await)
        }
        Command::Sessions(arguments) => {
            run_client_command(&arguments.client, async |context| sessions::run(context, arguments.all).await)
        }
        Command::Show(arguments) => {
            run_client_command(&arguments.client, async |context| show::run(context, &arguments).await)
        }
        Command::Resume(arguments) => run_client_command(&arguments.client, async |context| {
            open::resume(context, &arguments.session).await
        }),
        Command::Fork(arguments) => run_client_command(&arguments.client, async |context| {
            threads::fork(context, &arguments.session).await
        }),
        Command::Open(arguments) => run_client_command(&arguments.client, async |context| {
            open::page(context, arguments.session.as_deref()).await
        }),
        Command::Models(client) => run_client_command(&client, async |context| models::run(context).await),
        Command::Threads(arguments) => {
            run_client_command(&arguments.client, async |context| threads::run(context, &arguments).await)
        }
        Command::Follow(arguments) => {
            let client = arguments.client.clone();
            run_client_command(&client, async |context| follow::run(context, arguments).await)
        }
        Command::Requests(arguments) => run_client_command(&arguments.client, async |context| {
            requests::list(context, arguments.all).await
        }),
        Command::Approve(arguments) => {
            let client = arguments.client.clone();
            run_client_command(&client, async |context| requests::approve(context, arguments).await)
        }
        Command::Decline(arguments) => {
            let client = arguments.client.clone();
            run_client_command(&client, async |context| requests::decline(context, arguments).await)
        }
        Command::Interrupt(arguments) => run_client_command(&arguments.client, async |context| {
            interrupt::run(context, arguments.session.clone()).await
        }),
        Command::ResumeQueue(arguments) => run_client_command(&arguments.client, async |context| {
            resume_queue::run(context, &arguments.session, arguments.turn.as_deref()).await
        }),
        Command::AppServer(arguments) => {
            let client = arguments.client.clone();
            run_client_command(&client, async |context| app_server::run(context, &arguments).await)
        }
        Command::Close(arguments) => {
            run_client_command(&arguments.client, async |context| close::run(context, &arguments).await)
        }
        Command::Hooks(arguments) => {
            run_client_command(&arguments.client, async |context| hooks::run(context, &arguments).await)
        }
        Command::Call(arguments) => {
            run_client_command(&arguments.client, async |context| call::run(context, &arguments).await)
        }
        Command::Rename(arguments) => run_client_command(&arguments.client, async |context| {
            update::rename(context, &arguments.session, &arguments.words.join(" ")).await
        }),
        Command::Archive(arguments) => run_client_command(&arguments.client, async |context| {
            update::archive(context, &arguments.session, true).await
        }),
        Command::Unarchive(arguments) => run_client_command(&arguments.client, async |context| {
            update::archive(context, &arguments.session, false).await
        }),
        Command::Compact(arguments) => run_client_command(&arguments.client, async |context| {
            call::compact(context, &arguments.session).await
        }),
        Command::Review(arguments) => {
            run_client_command(&arguments.client, async |context| call::review(context, &arguments).await)
        }
        Command::Revert(arguments) => {
            run_client_command(&arguments.client, async |context| call::revert(context, &arguments).await)
        }
        Command::Goal(arguments) => {
            run_client_command(&arguments.client, async |context| call::goal(context, &arguments).await)
        }
        Command::Account(client) => run_client_command(&client, async |context| account::run(context).await),
        Command::Login(client) => run_client_command(&client, async |context| login::run(context).await),
        Command::Logout(client) => run_client_command(&client, async |context| login::log_out(context).await),
        Command::Mcp(client) => run_client_command(&client, async |context| mcp::run(context).await),
        Command::Completions { shell } => completions::run(shell),
        Command::Version => output::print(&cli::version()).map(|()| ExitCode::SUCCESS),
        Command::Guard { instance } => return codex::run_guard(&instance),
        Command::Detach { program, arguments } => {
            let error = codex::run_detached(&program, &arguments);
            output::print_error(&format!("Error: {} could not be started: {error}.", program.display()));
            return ExitCode::FAILURE;
        }
        Command::DemoAppServer { store } => return crate::demo::run(store),
    };
    outcome.unwrap_or_else(|failure| failed(&failure))
}

/// Runs a command that asks the running daemon for something.
fn run_client_command(
    arguments: &ClientArguments,
    run: impl AsyncFnOnce(&CommandContext) -> Result<ExitCode, Failure>,
) -> Result<ExitCode, Failure> {
    let context = CommandContext::new(arguments);
    let runtime = runtime()?;
    let outcome = runtime.block_on(run(&context));
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
