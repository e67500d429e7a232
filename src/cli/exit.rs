//! Help, version and usage errors, made from the errors of clap.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Why there is nothing to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CliExit {
    /// Help or version, with its final line break: for stdout, exit code 0.
    Text(String),
    /// A usage error as one sentence, without a line break: for stderr, exit code 2.
    Usage(String),
}

pub(super) fn exit_of(error: clap::Error) -> CliExit {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        // clap lists the closest suggestion last.
        Some(ContextValue::Strings(texts)) => texts.last().map(String::as_str),
        _ => None,
    };
    let with_suggestion = |problem: String, suggestion: Option<&str>| match suggestion {
        Some(suggestion) => format!("{problem}, did you mean '{suggestion}'?"),
        None => problem,
    };
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => CliExit::Text(error.render().to_string()),
        ErrorKind::UnknownArgument => usage(&with_suggestion(
            format!("unexpected argument '{}'", text(ContextKind::InvalidArg).unwrap_or_default()),
            text(ContextKind::SuggestedArg),
        )),
        ErrorKind::InvalidSubcommand => usage(&with_suggestion(
            format!("unknown command '{}'", text(ContextKind::InvalidSubcommand).unwrap_or_default()),
            text(ContextKind::SuggestedSubcommand),
        )),
        // The first line does not name the argument, as it does for other errors.
        ErrorKind::MissingRequiredArgument => {
            usage(&format!("{} is missing", text(ContextKind::InvalidArg).unwrap_or_default()))
        }
        // The first line names the argument and the problem; the others repeat the usage.
        _ => {
            let rendered = error.render().to_string();
            let first_line = rendered.lines().next().unwrap_or_default();
            usage(first_line.strip_prefix("error: ").unwrap_or(first_line))
        }
    }
}

/// One line in all cases: a line break in an argument must not look like a second message.
pub(super) fn usage(problem: &str) -> CliExit {
    let problem: String = problem
        .chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect();
    let separator = if problem.ends_with('?') { "" } else { ";" };
    CliExit::Usage(format!("codexd: {problem}{separator} run \"codexd help\" for usage."))
}
