//! Starts programs for a person: the pager, the browser, and Codex in the terminal.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::failure::Failure;
use super::output;
use super::terminal::OutputTarget;
use crate::config::{has_display, pager};
use crate::service::SYSTEMD_UNIT;

/// Prints a text that ends with a line break: through the pager if it is longer than the terminal.
pub(crate) fn page(screen: &OutputTarget, text: &str) -> Result<(), Failure> {
    let is_long = screen.is_terminal && text.lines().count() >= screen.rows;
    let program = if is_long { shlex::split(&pager()).filter(|words| !words.is_empty()) } else { None };
    let child = program.and_then(|words| {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::piped());
        // The styles of the text are passed on.
        command.env("LESS", "-R").spawn().ok()
    });
    let Some(mut child) = child else { return output::print(text.trim_end_matches('\n')) };
    if let Some(mut input) = child.stdin.take() {
        // The person may leave the pager before its end.
        let _ = input.write_all(text.as_bytes());
    }
    let _ = child.wait();
    Ok(())
}

/// Opens an address in the browser; `false` if there is none.
pub(crate) fn open_in_browser(address: &str) -> bool {
    let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    if !has_display() {
        return false;
    }
    let mut command = Command::new(opener);
    command.arg(address).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Runs a program in the place of this one; returns only if that fails.
pub(crate) fn become_program(program: &str, arguments: &[&str]) -> Failure {
    let error = Command::new(program).args(arguments).exec();
    Failure::new(format!("Failed to start {program}: {error}."))
}

/// Becomes a program that prints the last lines of the journal of codexd's unit, and with `follows` those that come.
pub(crate) fn become_journal(lines: &str, follows: bool) -> Failure {
    let mut arguments = vec!["--user", "--unit", SYSTEMD_UNIT, "--no-pager", "--lines", lines];
    arguments.extend(follows.then_some("--follow"));
    become_program("journalctl", &arguments)
}
