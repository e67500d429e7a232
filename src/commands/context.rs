//! What the commands that talk to a running daemon share.

use std::io::{stderr, stdout};

use serde::Serialize;

use super::failure::Failure;
use super::output;
use super::terminal::OutputTarget;
use crate::client::DaemonClient;
use crate::config::settings::{AUTH_TOKEN_FILE, LOCAL_API_BASE};
use crate::config::{Config, Settings};

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
    pub(crate) fn new(config: &Config, settings: &Settings, json: bool) -> Self {
        Self {
            client: DaemonClient::new(config, output::print_warning),
            json,
            stdout: OutputTarget::of(&stdout(), config.no_color),
            stderr: OutputTarget::of(&stderr(), config.no_color),
            flags: flags(settings),
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

fn flags(settings: &Settings) -> String {
    let given = [&LOCAL_API_BASE, &AUTH_TOKEN_FILE].into_iter().flat_map(|setting| {
        settings.values(setting).iter().map(|value| format!(" --{} {}", setting.name, quoted(value)))
    });
    given.collect()
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
