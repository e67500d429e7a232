//! What all commands have in common that ask the running daemon for something.

use std::io::{stderr, stdout};
use std::process::ExitCode;

use serde::Serialize;

use super::client::Client;
use super::terminal::{Screen, harmless};
use super::{Failure, ask, close, follow, interrupt, output, requests, resume_queue, runtime, sessions};
use crate::cli::Errand;
use crate::config::settings::{AUTH_TOKEN_FILE, LOCAL_API_BASE};
use crate::config::{Config, Settings};

/// Whom a command works for, and whom it asks.
pub(crate) struct Caller {
    pub(crate) client: Client,
    /// Whether the answer is for a program.
    pub(crate) json: bool,
    pub(crate) stdout: Screen,
    pub(crate) stderr: Screen,
    /// The flags that another command needs to find the same daemon, each with a space before it.
    flags: String,
}

pub(crate) fn run(
    config: &Config,
    settings: &Settings,
    json: bool,
    errand: Errand,
) -> Result<ExitCode, Failure> {
    let caller = Caller {
        client: Client::new(config),
        json,
        stdout: Screen::of(&stdout(), config.no_colours),
        stderr: Screen::of(&stderr(), config.no_colours),
        flags: flags(settings),
    };
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        match errand {
            Errand::Ask(wanted) => ask::run(&caller, wanted).await,
            Errand::Sessions { all } => sessions::run(&caller, all).await,
            Errand::Follow { session, types, after } => follow::run(&caller, session, types, after).await,
            Errand::Requests { all } => requests::list(&caller, all).await,
            Errand::Answer { request, answer } => requests::answer(&caller, request, &answer).await,
            Errand::Interrupt { session } => interrupt::run(&caller, session).await,
            Errand::ResumeQueue { session } => resume_queue::run(&caller, &session).await,
            Errand::Close { session, interrupt } => close::run(&caller, &session, interrupt).await,
        }
    });
    // Nothing that still waits must keep the process.
    runtime.shutdown_background();
    outcome
}

impl Caller {
    /// Writes the answer: the document for a program, the text for people.
    pub(crate) fn say(&self, document: &impl Serialize, text: &str) -> Result<(), Failure> {
        if self.json { output::say_json(document) } else { output::say(text) }
    }

    /// Writes a sentence to stderr.
    pub(crate) fn note(&self, sentence: &str) {
        output::complain(&format!("codexd: {}", harmless(sentence)));
    }

    /// A command line that does this with the same daemon.
    pub(crate) fn command(&self, words: &str) -> String {
        format!("codexd {words}{}", self.flags)
    }
}

fn flags(settings: &Settings) -> String {
    let given = [&LOCAL_API_BASE, &AUTH_TOKEN_FILE].into_iter().flat_map(|setting| {
        settings.values(setting).iter().map(|value| format!(" --{} {}", setting.name, quoted(value)))
    });
    given.collect()
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~+/:@%=,".contains(c);
    let needs_none = !word.is_empty() && word.chars().all(is_plain);
    if needs_none { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_quoted_where_a_shell_would_read_something_else() {
        assert_eq!(quoted("http://127.0.0.1:4319"), "http://127.0.0.1:4319");
        assert_eq!(quoted("http://[::1]:4319"), "'http://[::1]:4319'");
        assert_eq!(quoted("/a b/it's"), "'/a b/it'\\''s'");
        assert_eq!(quoted(""), "''");
    }
}
