//! The command line: subcommands and flags.
//!
//! [`parse`] turns arguments into a [`Command`] or a [`CliExit`]. The flags of settings are declared in `config`, with
//! the parsers of their values.

mod arguments;
mod client;
mod exit;
mod help;
#[cfg(test)]
mod tests;

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{ArgMatches, CommandFactory, FromArgMatches};

use arguments::{AFTER_HIDDEN_SETTINGS, APP_SERVER_FLAGS, CommandLine};
use exit::exit_of;

use crate::config::{has_blank_variable, ignore_variables};

pub use arguments::{
    BackupArguments, Command, FileArguments, LogsArguments, ServiceAction, ServiceArguments, StartArguments,
    TokenArguments,
};
pub use clap_complete::Shell;
pub use client::{
    AppServerAction, AppServerArguments, ApproveArguments, AskArguments, CallArguments, ClientArguments,
    CloseArguments, DeclineArguments, FollowArguments, GoalArguments, HookAction, HooksArguments,
    RevertArguments, ReviewArguments, ShowArguments, ThreadsArguments,
};
pub use exit::CliExit;
pub use help::{version, visible_commands};

/// Commands that codexd starts itself and that have no settings: they skip what settings need, because a guard keeps the
/// memory of its command line.
const INTERNAL_COMMANDS: [&str; 2] = ["guard", "detach"];

/// Commands that take all settings of a daemon, so that they can be called with those of the daemon, and whose help would be
/// about nothing else.
const COMMANDS_WITHOUT_SETTINGS_IN_HELP: [&str; 6] =
    ["status", "config", "smoke", "service", "upgrade", "doctor"];

/// Parses a command line as `std::env::args_os` returns it, including the program's name.
///
/// Flags may come before or after the subcommand; without a subcommand they are those of `start`. Flags override
/// environment variables; a blank variable counts as unset.
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Command, CliExit> {
    let args: Vec<_> = args.collect();
    if args.get(1).is_some_and(|word| INTERNAL_COMMANDS.iter().any(|name| word == name)) {
        return read(CommandLine::command().try_get_matches_from(&args), &args);
    }
    parse_with(args, &has_blank_variable)
}

/// [`parse`] without the environment variables of the arguments for which `is_ignored` is true.
fn parse_with(args: Vec<OsString>, is_ignored: &dyn Fn(&clap::Arg) -> bool) -> Result<Command, CliExit> {
    let args = with_command_first(args);
    if let Some(help) = help::in_json(&args) {
        return Err(help);
    }
    let has = |flag: &str| args.iter().any(|word| word == flag);
    let is_brief = has("-h");
    let declared = CommandLine::command().mut_subcommands(|command| {
        let name = command.get_name().to_owned();
        let hides_settings = COMMANDS_WITHOUT_SETTINGS_IN_HELP.contains(&name.as_str());
        let command = command.mut_args(|argument| {
            let is_unused = name == "smoke" && is_unused_by_smoke(&argument);
            let is_hidden = is_unused || hides_settings && !finds_daemon(&argument) || argument.is_hide_set();
            argument.hide_env(is_brief).hide_env_values(true).hide(is_hidden)
        });
        if hides_settings { command.after_help(AFTER_HIDDEN_SETTINGS) } else { command }
    });
    let matches_of = |is_demo: bool| {
        let command = declared.clone().mut_subcommands(|command| {
            let name = command.get_name().to_owned();
            ignore_variables(command, &|argument| {
                is_ignored(argument)
                    || name == "smoke" && is_unused_by_smoke(argument)
                    || is_demo && APP_SERVER_FLAGS.contains(&argument.get_id().as_str())
            })
        });
        command.try_get_matches_from(&args).or_else(|error| match error.kind() {
            // The help names every variable.
            ErrorKind::DisplayHelp => declared.clone().try_get_matches_from(&args),
            _ => Err(error),
        })
    };
    let starts_demo = |matches: &ArgMatches| {
        matches.subcommand_matches("start").is_some_and(|start| start.get_flag("demo"))
    };
    let matches = match matches_of(has("--demo")) {
        // The word was the value of another flag.
        Ok(matches) if has("--demo") && !starts_demo(&matches) => matches_of(false),
        matches => matches,
    };
    read(matches, &args)
}

/// The command of a line that clap has accepted.
fn read(matches: Result<ArgMatches, clap::Error>, args: &[OsString]) -> Result<Command, CliExit> {
    let line = matches.and_then(|matches| CommandLine::from_arg_matches(&matches));
    line.map(|line| line.command).map_err(|error| exit_of(&error, args))
}

/// Whether an argument is not a setting, or one that says where the daemon and its files are.
fn finds_daemon(argument: &clap::Arg) -> bool {
    argument.get_env().is_none()
        || argument.get_help_heading() == Some("Paths")
        || ["local_api_base", "auth_token_file"].contains(&argument.get_id().as_str())
}

/// Whether `codexd smoke` accepts a setting, so that a script can pass the same flags to all commands, but replaces it.
fn is_unused_by_smoke(argument: &clap::Arg) -> bool {
    matches!(argument.get_help_heading(), Some("Paths" | "App-server"))
        || ["local_api_base", "auth_token_file"].contains(&argument.get_id().as_str())
}

/// The arguments with the flags before the subcommand moved behind it, and with `start` if there is no subcommand.
fn with_command_first(mut args: Vec<OsString>) -> Vec<OsString> {
    let program = CommandLine::command();
    let start = program.find_subcommand("start");
    let flag = |name: &str| start?.get_arguments().find(|argument| argument.get_long() == Some(name));
    let mut at = 1;
    while let Some(word) = args.get(at) {
        let word = word.to_string_lossy();
        let Some(name) = word.strip_prefix("--").filter(|name| !["help", "version"].contains(name)) else {
            args[1..=at].rotate_right(1);
            return args;
        };
        let (name, is_whole) = name.split_once('=').map_or((name, false), |(name, _)| (name, true));
        let Some(argument) = flag(name) else { break };
        at += if argument.get_action().takes_values() && !is_whole { 2 } else { 1 };
    }
    args.insert(args.len().min(1), "start".into());
    args
}
