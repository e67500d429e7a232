//! `codexd help --json`: the help as JSON; and the commands that can be completed.

use std::ffi::OsString;

use clap::{ArgAction, CommandFactory};
use serde_json::{Value, json};

use super::arguments::CommandLine;
use super::exit::{CliExit, usage};
use crate::config::LONG_VERSION;
use crate::config::settings::LOG_FILTER;

/// Returns the help if the command line asks for it in JSON; the first element of `args` is the program's name.
///
/// A command name after `help` selects the help of that command, as in `codexd help ask --json`.
pub(super) fn in_json(args: &[OsString]) -> Option<CliExit> {
    let words: Vec<&str> = args.iter().skip(1).map(|word| word.to_str()).collect::<Option<_>>()?;
    let is_help = |word: &&str| ["help", "--help", "-h"].contains(word);
    let (first, rest) = words.split_first().filter(|(_, rest)| rest.contains(&"--json"))?;
    let names: Vec<&str> = rest.iter().copied().filter(|word| *word != "--json" && !is_help(word)).collect();
    if !is_help(first) || names.len() > 1 || names.iter().any(|name| name.starts_with('-')) {
        return None;
    }
    let program = CommandLine::command();
    let visible = |command: &&clap::Command| !command.is_hide_set();
    let document = match names.first() {
        None => json!({
            "name": program.get_name(),
            "version": LONG_VERSION,
            "description": about(&program),
            "commands": program.get_subcommands().filter(visible).map(command).collect::<Vec<_>>(),
            "settings": settings(&program),
        }),
        Some(name) => match program.find_subcommand(name).filter(visible) {
            Some(found) => command(found),
            None => return Some(usage(&format!("unrecognized subcommand '{name}'"), None)),
        },
    };
    Some(CliExit::Text(format!("{document:#}\n")))
}

/// A command with its arguments, without the settings.
fn command(command: &clap::Command) -> Value {
    let arguments: Vec<Value> = command
        .get_arguments()
        .filter(|argument| !argument.is_hide_set() && argument.get_env().is_none())
        .map(|argument| {
            json!({
                "flag": argument.get_long().map(|name| format!("--{name}")),
                "value": argument.get_action().takes_values().then(|| value_of(argument)),
                "required": argument.is_required_set(),
                "description": description(argument),
            })
        })
        .collect();
    json!({ "name": command.get_name(), "description": about(command), "arguments": arguments })
}

/// The whole help text on one line, without a described default.
fn description(argument: &clap::Arg) -> Option<String> {
    let help = argument.get_long_help().or(argument.get_help())?.to_string();
    let paragraphs = help.split("\n\n").filter(|paragraph| !paragraph.starts_with("[default: "));
    Some(paragraphs.collect::<Vec<_>>().join(". "))
}

fn value_of(argument: &clap::Arg) -> String {
    let names = argument.get_value_names().unwrap_or_default();
    names.first().map_or_else(|| argument.get_id().as_str().to_uppercase(), ToString::to_string)
}

fn about(command: &clap::Command) -> Option<String> {
    command.get_about().map(ToString::to_string)
}

/// All settings, from the flags of `codexd config`, and the one that has no flag.
fn settings(program: &clap::Command) -> Vec<Value> {
    let arguments = program.find_subcommand("config").into_iter().flat_map(clap::Command::get_arguments);
    let mut settings: Vec<_> = arguments.filter_map(setting).collect();
    settings.push(json!({
        "name": "log-filter",
        "flag": null,
        "variable": LOG_FILTER,
        "value": "FILTER",
        "default": "info",
        "repeatable": false,
        "description": "Filter of codexd's log on stderr",
    }));
    settings
}

fn setting(argument: &clap::Arg) -> Option<Value> {
    let (name, variable) = (argument.get_long()?, argument.get_env()?.to_str()?);
    let default = argument.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
    // A default that depends on the machine is described in the last paragraph of the help.
    let described = || {
        let help = argument.get_long_help()?.to_string();
        Some(help.rsplit_once("[default: ")?.1.trim_end_matches(']').to_owned())
    };
    Some(json!({
        "name": name,
        "flag": format!("--{name}"),
        "variable": variable,
        "value": value_of(argument),
        "default": default.or_else(described),
        "repeatable": matches!(argument.get_action(), ArgAction::Append),
        "description": description(argument),
    }))
}

/// What `codexd --version` prints.
pub fn version() -> String {
    format!("codexd {LONG_VERSION}")
}

/// The program with the commands that a person may type; the hidden ones are internal.
pub fn visible_commands() -> clap::Command {
    let whole = CommandLine::command();
    let shown = whole.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let start = whole.find_subcommand("start").into_iter().flat_map(clap::Command::get_arguments);
    clap::Command::default().name("codexd").args(start.cloned()).subcommands(shown)
}
