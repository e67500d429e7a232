//! `codexd help --json`: the help as JSON; and the completion scripts.

use std::ffi::OsString;

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use serde_json::{Value, json};

use super::arguments::CommandLine;
use super::exit::{CliExit, usage};
use crate::config::settings::{self, Setting};
use crate::config::{LONG_VERSION, Settings};

/// Returns the help if the command line asks for it in JSON; the first element of `args` is the program's name.
///
/// A command name after `help` selects the help of that command, as in `codexd help ask --json`.
pub(super) fn in_json(args: &[OsString]) -> Option<CliExit> {
    let arguments: Vec<&str> =
        args.iter().skip(1).map(|argument| argument.to_str()).collect::<Option<_>>()?;
    let is_help = |argument: &&str| ["help", "--help", "-h"].contains(argument);
    let (first, rest) = match arguments.as_slice() {
        ["--json", first, rest @ ..] => (first, rest),
        [first, rest @ ..] if rest.contains(&"--json") => (first, rest),
        _ => return None,
    };
    let names: Vec<&str> =
        rest.iter().copied().filter(|argument| *argument != "--json" && !is_help(argument)).collect();
    if !is_help(first) || names.len() > 1 || names.iter().any(|name| name.starts_with('-')) {
        return None;
    }
    let program = CommandLine::command();
    let visible = |command: &&clap::Command| !command.is_hide_set();
    Some(match names.first() {
        None => {
            let commands: Vec<Value> = program.get_subcommands().filter(visible).map(command).collect();
            text(&json!({
                "name": program.get_name(),
                "version": LONG_VERSION,
                "description": about(&program),
                "commands": commands,
                "settings": settings::ALL.iter().map(|setting| view(setting)).collect::<Vec<_>>(),
            }))
        }
        Some(name) => match program.get_subcommands().filter(visible).find(|found| found.get_name() == *name)
        {
            Some(found) => text(&command(found)),
            None => usage(&format!("unknown command '{name}'")),
        },
    })
}

fn text(document: &Value) -> CliExit {
    CliExit::Text(format!("{document:#}\n"))
}

/// A command with its arguments, without the settings.
fn command(command: &clap::Command) -> Value {
    let is_setting = |id: &str| settings::ALL.iter().any(|setting| setting.name == id);
    let arguments: Vec<Value> = command
        .get_arguments()
        .filter(|argument| !argument.is_hide_set() && !is_setting(argument.get_id().as_str()))
        .map(|argument| {
            json!({
                "flag": argument.get_long().map(|name| format!("--{name}")),
                "value": argument.get_action().takes_values().then(|| value_of(argument)),
                "required": argument.is_required_set(),
                "description": argument.get_help().map(ToString::to_string),
            })
        })
        .collect();
    json!({ "name": command.get_name(), "description": about(command), "arguments": arguments })
}

fn value_of(argument: &clap::Arg) -> String {
    let names = argument.get_value_names().unwrap_or_default();
    names.first().map_or_else(|| argument.get_id().to_string(), ToString::to_string)
}

fn about(command: &clap::Command) -> Option<String> {
    command.get_about().map(ToString::to_string)
}

fn view(setting: &Setting) -> Value {
    json!({
        "name": setting.name,
        "flag": setting.has_flag.then(|| format!("--{}", setting.name)),
        "variable": setting.variable,
        "value": setting.placeholder,
        "default": setting.default.description(),
        "repeatable": setting.repeatable,
        "description": setting.purpose,
    })
}

/// The completion script for a shell.
pub fn completions(shell: Shell) -> Vec<u8> {
    let whole = CommandLine::command();
    // Hidden commands are internal, but clap would complete them too.
    let shown = whole.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let shown = clap::Command::default().args(whole.get_arguments().cloned()).subcommands(shown);
    // These flags are added only when a command is parsed.
    let shown = Settings::augment_args(shown);
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut shown.name("codexd"), "codexd", &mut script);
    script
}
