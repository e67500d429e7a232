//! How a command fails: an exit code and a sentence for stderr.
//!
//! `docs/operations.md` has the table of exit codes.

use super::terminal::sanitize_for_terminal;
use crate::client::ClientError;
use crate::config::ConfigError;

/// Exit code: no daemon answers.
pub(crate) const EXIT_NO_DAEMON: u8 = 3;
/// Exit code: the turn was interrupted.
pub(crate) const EXIT_INTERRUPTED: u8 = 4;
/// Exit code after a second Ctrl-C: 128 plus the number of SIGINT, as in a shell.
pub(crate) const EXIT_SIGINT: u8 = 130;

/// A failure that ends a command: the exit code and a sentence for stderr.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) message: String,
}

impl Failure {
    /// The command did not succeed: exit code 1.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into() }
    }

    /// The settings or arguments are invalid: exit code 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: 2, message: message.into() }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let sentence = sanitize_for_terminal(&error.to_string());
        match error {
            ClientError::Unreachable { .. } | ClientError::NotCodexd { .. } => Self {
                code: EXIT_NO_DAEMON,
                message: format!("No codexd answers, {sentence}; start it with \"codexd start\"."),
            },
            ClientError::Token(_) => Self::new(format!("{}.", capital(&sentence))),
            ClientError::Refused { .. } => Self::new(sentence),
        }
    }
}

fn capital(sentence: &str) -> String {
    let mut rest = sentence.chars();
    rest.next().map_or_else(String::new, |first| first.to_uppercase().chain(rest).collect())
}
