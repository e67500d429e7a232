//! The command line: subcommands and flags.
//!
//! [`parse`] turns arguments into an [`Invocation`] or a [`CliExit`]. The flags of settings come from the table in
//! `config`, which also parses their values; this layer treats them as text.

mod arguments;
mod client;
mod exit;
mod flags;
mod help;
mod invocation;
#[cfg(test)]
mod tests;

use std::ffi::OsString;

use clap::Parser;

use arguments::{BackupArguments, Command, CommandLine, ServiceArguments, StartArguments, TokenArguments};
use exit::{exit_of, usage};
use flags::{flag_of, merge};

pub use clap_complete::Shell;
pub use exit::CliExit;
pub use help::completions;
pub use invocation::{Answer, AskOptions, ClientCommand, Invocation, ServiceAction};

/// Parses a command line as `std::env::args_os` returns it, including the program's name.
///
/// Flags may come before or after the subcommand; without a subcommand they are those of `start`.
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Invocation, CliExit> {
    let args: Vec<OsString> = args.collect();
    if let Some(help) = help::in_json(&args) {
        return Err(help);
    }
    let CommandLine { before, command } = CommandLine::try_parse_from(args).map_err(exit_of)?;
    let StartArguments { settings, json, run_once } = before;
    let refuse = |flag: &str, command: &str| Err(usage(&format!("{flag} does not apply to \"{command}\"")));
    // Flags before a command that has no flags.
    let stray = settings.first().map(flag_of);
    let stray = stray.or(json.then(|| "--json".to_owned())).or(run_once.then(|| "--run-once".to_owned()));
    Ok(match command {
        None => Invocation::Start { settings, json, run_once },
        Some(Command::Client(command)) => {
            return client::invocation(settings, json, run_once, command);
        }
        Some(Command::Start(after)) => Invocation::Start {
            settings: merge(settings, after.settings)?,
            json: json || after.json,
            run_once: run_once || after.run_once,
        },
        Some(Command::Service(_)) if run_once => return refuse("--run-once", "service"),
        Some(Command::Doctor(_)) if run_once => return refuse("--run-once", "doctor"),
        Some(Command::Doctor(after)) => {
            Invocation::Doctor { settings: merge(settings, after.settings)?, json: json || after.json }
        }
        Some(Command::Service(ServiceArguments { action, common: after })) => Invocation::Service {
            action,
            settings: merge(settings, after.settings)?,
            json: json || after.json,
        },
        Some(Command::Status(_)) if run_once => return refuse("--run-once", "status"),
        Some(Command::Config(_)) if run_once => return refuse("--run-once", "config"),
        Some(Command::Smoke(_)) if run_once => return refuse("--run-once", "smoke"),
        Some(Command::Token(_)) if run_once => return refuse("--run-once", "token"),
        Some(Command::Backup(_)) if run_once => return refuse("--run-once", "backup"),
        Some(Command::Backup(BackupArguments { directory, common: after })) => Invocation::Backup {
            settings: merge(settings, after.settings)?,
            json: json || after.json,
            directory,
        },
        Some(Command::Status(after)) => {
            Invocation::Status { settings: merge(settings, after.settings)?, json: json || after.json }
        }
        Some(Command::Config(after)) => {
            Invocation::Config { settings: merge(settings, after.settings)?, json: json || after.json }
        }
        Some(Command::Token(TokenArguments { common: after, replace })) => Invocation::Token {
            settings: merge(settings, after.settings)?,
            json: json || after.json,
            replace,
        },
        Some(Command::Smoke(after)) => {
            Invocation::Smoke { settings: merge(settings, after.settings)?, json: json || after.json }
        }
        Some(Command::EmbeddedAppServer { .. } | Command::Guard { .. }) if stray.is_some() => {
            let name =
                if matches!(command, Some(Command::Guard { .. })) { "guard" } else { "embedded-app-server" };
            return refuse(&stray.unwrap_or_default(), name);
        }
        Some(Command::EmbeddedAppServer { store, startup }) => {
            Invocation::EmbeddedAppServer { store, startup }
        }
        Some(Command::Guard { instance }) => Invocation::Guard { instance },
    })
}
