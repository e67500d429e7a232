//! Help, version and usage errors, made from the errors of clap.

use std::error::Error;
use std::ffi::OsString;

use clap::CommandFactory;
use clap::error::{ContextKind, ErrorKind};

use super::arguments::CommandLine;
use crate::config::variable_of;

/// Why there is nothing to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CliExit {
    /// Help or version, with its final line break: for stdout, exit code 0.
    Text(String),
    /// A usage error as one sentence, without a line break: for stderr, exit code 2.
    Usage(String),
}

/// The exit for an error of clap; `args` are those that it parsed.
pub(super) fn exit_of(error: &clap::Error, args: &[OsString]) -> CliExit {
    let program = CommandLine::command();
    let command = args.get(1).and_then(|name| program.find_subcommand(name));
    let arguments = || command.into_iter().flat_map(clap::Command::get_arguments);
    let variable = |argument: &clap::Arg| argument.get_env().map(|name| name.to_string_lossy().into_owned());
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => CliExit::Text(error.render().to_string()),
        // The error of one of our parsers is a sentence, which never shows a secret; clap would quote the value.
        ErrorKind::ValueValidation => {
            let named = error.get(ContextKind::InvalidArg).map(ToString::to_string).unwrap_or_default();
            let flag = named.split(' ').next().unwrap_or_default();
            let is_given = args.iter().any(|word| word.to_string_lossy().split('=').next() == Some(flag));
            let argument = arguments().find(|argument| argument.get_long() == flag.strip_prefix("--"));
            let origin = argument.and_then(variable).filter(|_| !is_given).unwrap_or(flag.to_owned());
            let problem = error.source().map(ToString::to_string).unwrap_or_default();
            CliExit::Usage(on_one_line(&format!("codexd: {origin}: {problem}")))
        }
        ErrorKind::InvalidUtf8 if args.iter().all(|word| word.to_str().is_some()) => {
            let mut broken = arguments()
                .filter(|argument| variable_of(argument).is_some_and(|value| value.to_str().is_none()));
            let variable = broken.find_map(variable).unwrap_or_default();
            let problem = "the value is not valid UTF-8; set it to plain text or unset it.";
            CliExit::Usage(format!("codexd: {variable}: {problem}"))
        }
        // Before the usage clap prints the problem, the possible values and what may have been meant.
        _ => {
            let rendered = error.render().to_string();
            let is_end =
                |line: &&str| line.starts_with("Usage: ") || line.starts_with("For more information");
            let lines = rendered.lines().take_while(|line| !is_end(line));
            let lines: Vec<_> = lines.map(str::trim).filter(|line| !line.is_empty()).collect();
            let problem = lines.join(" ").replace(" tip: ", "; ");
            usage(problem.trim_start_matches("error: "), command.map(clap::Command::get_name))
        }
    }
}

/// A usage error, with the command whose help explains what is right.
pub(super) fn usage(problem: &str, command: Option<&str>) -> CliExit {
    let command = command.map(|command| format!("{command} ")).unwrap_or_default();
    let problem = on_one_line(problem);
    CliExit::Usage(format!("codexd: {problem}. For more information, try 'codexd {command}--help'."))
}

/// A line break in an argument must not look like a second message.
fn on_one_line(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}
