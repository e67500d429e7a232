//! What the commands that talk to a running daemon share.

use std::io::{stderr, stdout};

use serde::Serialize;

use super::failure::Failure;
use super::output;
use super::terminal::OutputTarget;
use crate::cli::ClientArguments;
use crate::client::DaemonClient;
use crate::config::no_color;

/// The client, the output format and the outputs of one command.
pub(crate) struct CommandContext {
    pub(crate) client: DaemonClient,
    /// Whether to print JSON.
    pub(crate) json: bool,
    pub(crate) stdout: OutputTarget,
    pub(crate) stderr: OutputTarget,
    /// The flags that select this daemon, for command lines shown to the user; each starts with a space.
    flags: String,
}

impl CommandContext {
    pub(crate) fn new(arguments: &ClientArguments) -> Self {
        let no_color = no_color();
        Self {
            client: DaemonClient::new(&arguments.service, output::print_warning),
            json: arguments.json,
            stdout: OutputTarget::of(&stdout(), no_color),
            stderr: OutputTarget::of(&stderr(), no_color),
            flags: flags(arguments),
        }
    }

    /// Prints the document if JSON was requested, the text otherwise.
    pub(crate) fn print(&self, document: &impl Serialize, text: &str) -> Result<(), Failure> {
        if self.json { output::print_json(document) } else { output::print(text) }
    }

    /// Prints a sentence to stderr.
    pub(crate) fn print_note(&self, sentence: &str) {
        output::print_warning(sentence);
    }

    /// A command line for the same daemon, to show to the user.
    pub(crate) fn command_line(&self, command: &str) -> String {
        format!("codexd {command}{}", self.flags)
    }
}

fn flags(arguments: &ClientArguments) -> String {
    let service = &arguments.service;
    let token_file = service.auth.auth_token_file.as_deref().map(|path| path.to_string_lossy().into_owned());
    [("local-api-base", Some(service.local_api_base.to_string())), ("auth-token-file", token_file)]
        .into_iter()
        .filter(|(name, _)| arguments.sources.has_flag(name))
        .filter_map(|(name, value)| Some(format!(" --{name} {}", quoted(&value?))))
        .collect()
}

/// Quotes an argument for the shell.
fn quoted(argument: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~+/:@%=,".contains(c);
    let needs_none = !argument.is_empty() && argument.chars().all(is_plain);
    if needs_none { argument.to_owned() } else { format!("'{}'", argument.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_escapes_shell_words() {
        assert_eq!(quoted("http://127.0.0.1:4319"), "http://127.0.0.1:4319");
        assert_eq!(quoted("http://[::1]:4319"), "'http://[::1]:4319'");
        assert_eq!(quoted("/a b/it's"), "'/a b/it'\\''s'");
        assert_eq!(quoted(""), "''");
    }
}
