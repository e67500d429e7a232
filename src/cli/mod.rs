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

use crate::config::{Settings, settings};

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
    let StartArguments { settings, json, run_once, demo } = before;
    let refuse_flag =
        |flag: &str, command: &str| Err(usage(&format!("{flag} does not apply to \"{command}\"")));
    // Flags before a command that has no flags.
    let stray = settings.first().map(flag_of);
    let stray = stray.or(json.then(|| "--json".to_owned())).or(run_once.then(|| "--run-once".to_owned()));
    let stray = stray.or(demo.then(|| "--demo".to_owned()));
    let only_start = if run_once { Some("--run-once") } else { demo.then_some("--demo") };
    let refuse = |command: &str| refuse_flag(only_start.unwrap_or_default(), command);
    Ok(match command {
        None => start(settings, json, run_once, demo)?,
        Some(Command::Client(command)) => {
            return client::invocation(settings, json, only_start, command);
        }
        Some(Command::Start(after)) => {
            let settings = merge(settings, after.settings)?;
            start(settings, json || after.json, run_once || after.run_once, demo || after.demo)?
        }
        Some(Command::Service(_)) if only_start.is_some() => return refuse("service"),
        Some(Command::Doctor(_)) if only_start.is_some() => return refuse("doctor"),
        Some(Command::Doctor(after)) => {
            Invocation::Doctor { settings: merge(settings, after.settings)?, json: json || after.json }
        }
        Some(Command::Service(ServiceArguments { action, common: after })) => Invocation::Service {
            action,
            settings: merge(settings, after.settings)?,
            json: json || after.json,
        },
        Some(Command::Status(_)) if only_start.is_some() => return refuse("status"),
        Some(Command::Config(_)) if only_start.is_some() => return refuse("config"),
        Some(Command::Smoke(_)) if only_start.is_some() => return refuse("smoke"),
        Some(Command::Token(_)) if only_start.is_some() => return refuse("token"),
        Some(Command::Backup(_)) if only_start.is_some() => return refuse("backup"),
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
        Some(Command::DemoAppServer { .. } | Command::Guard { .. }) if stray.is_some() => {
            let name =
                if matches!(command, Some(Command::Guard { .. })) { "guard" } else { "demo-app-server" };
            return refuse_flag(&stray.unwrap_or_default(), name);
        }
        Some(Command::DemoAppServer { store }) => Invocation::DemoAppServer { store },
        Some(Command::Guard { instance }) => Invocation::Guard { instance },
    })
}

/// The invocation for `start`; `--demo` excludes the flags that choose an app-server.
fn start(settings: Settings, json: bool, run_once: bool, demo: bool) -> Result<Invocation, CliExit> {
    let choices = [
        &settings::SERVER_STRATEGY,
        &settings::SERVER_ENDPOINT,
        &settings::SERVER_COMMAND,
        &settings::SERVER_ARGS,
    ];
    match choices.into_iter().find(|setting| demo && !settings.values(setting).is_empty()) {
        Some(setting) => Err(usage(&format!("--demo cannot be used with {}", flag_of(setting)))),
        None => Ok(Invocation::Start { settings, json, run_once, demo }),
    }
}
