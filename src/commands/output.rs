//! Writing to stdout and stderr.
//!
//! A closed pipe is no failure, because its reader has read enough; any other write error is one.

use std::io::{ErrorKind, IsTerminal, Write};

use anstyle::Style;
use serde::Serialize;

use super::failure::Failure;
use super::terminal::{OutputTarget, sanitize_for_terminal, sanitize_lines_for_terminal};
use super::wrap::wrap_indented;

/// Writes a text and a newline to stdout.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    match write_stdout(&format!("{text}\n")) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("Failed to write to stdout: {error}.")))
        }
        _ => Ok(()),
    }
}

/// Writes a text to stdout unchanged; a closed pipe is an error here.
pub(crate) fn write_stdout(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Writes a text to stderr unchanged, such as a prompt.
pub(crate) fn write_stderr(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Writes a JSON document to stdout, indented by two spaces.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    match serde_json::to_string_pretty(value) {
        // JSON does not escape every character that controls a terminal.
        Ok(text) if std::io::stdout().is_terminal() => print(&sanitize_lines_for_terminal(&text)),
        Ok(text) => print(&text),
        Err(error) => Err(Failure::new(format!("Failed to encode the output as JSON: {error}."))),
    }
}

/// Writes a line to stderr.
pub(crate) fn print_error(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Formats rows of two columns; the first one is as wide as its widest cell. Values are sanitized.
pub(crate) fn table(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<_> =
        rows.iter().map(|(name, value)| format!("{name:width$}  {}", sanitize_for_terminal(value))).collect();
    lines.join("\n")
}

/// A row of facts: a name, perhaps a mark such as `ok`, and a value.
#[derive(Debug)]
pub(crate) struct Fact<'a> {
    pub(crate) name: &'a str,
    /// A word in a style; the marks of all rows have the same width.
    pub(crate) mark: Option<(&'static str, Style)>,
    pub(crate) value: String,
    pub(crate) style: Style,
}

impl<'a> Fact<'a> {
    /// A row without a mark and without a style.
    pub(crate) fn plain(name: &'a str, value: String) -> Self {
        Self { name, mark: None, value, style: Style::new() }
    }
}

/// Formats facts, one below the other. A terminal gets their values wrapped at words, with a hanging indent.
pub(crate) fn facts(screen: &OutputTarget, facts: &[Fact<'_>]) -> String {
    let names = facts.iter().map(|fact| fact.name.len()).max().unwrap_or(0);
    let lines = facts.iter().map(|fact| {
        let mark = fact.mark.map(|(mark, style)| format!("{}  ", screen.paint(style, mark)));
        let indent = names + 2 + fact.mark.map_or(0, |(mark, _)| mark.len() + 2);
        let value = wrap_indented(&sanitize_for_terminal(&fact.value), screen.width, indent);
        let value: Vec<String> = value.split('\n').map(|line| screen.paint(fact.style, line)).collect();
        format!("{:names$}  {}{}", fact.name, mark.unwrap_or_default(), value.join("\n"))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Writes one sentence to stderr, prefixed with the name of the program; nothing in it controls the terminal.
pub(crate) fn print_warning(sentence: &str) {
    print_error(&format!("codexd: {}", sanitize_for_terminal(sentence)));
}
