//! Prints a turn: the answer to stdout, everything else to stderr.
//!
//! [`AnswerPrinter`] knows where the cursor of the terminal is, so that notes, answers and prompts never share a line.

use std::io::ErrorKind;

use crate::commands::context::CommandContext;
use crate::commands::failure::Failure;
use crate::commands::output;
use crate::commands::terminal::{FAINT, sanitize_lines_for_terminal};

/// The state of stdout and of the prompt.
pub(in crate::commands) struct AnswerPrinter<'a> {
    context: &'a CommandContext,
    /// The ID of the message that is being printed and the text printed so far.
    message: Option<(String, String)>,
    /// Whether stdout is at the start of a line.
    at_line_start: bool,
    /// Whether stdout has a reader, as far as is known.
    has_reader: bool,
    /// Whether the last line of the terminal is a prompt at which the user types.
    has_prompt: bool,
}

impl<'a> AnswerPrinter<'a> {
    pub(in crate::commands) fn new(context: &'a CommandContext) -> Self {
        Self { context, message: None, at_line_start: true, has_reader: true, has_prompt: false }
    }

    /// Whether the answer may still have a reader; without one it is dropped.
    pub(in crate::commands) fn has_reader(&self) -> bool {
        self.has_reader
    }

    /// Whether the prompt is still the last line of the terminal.
    pub(in crate::commands) fn has_prompt(&self) -> bool {
        self.has_prompt
    }

    /// Records whether a prompt is the last line.
    pub(in crate::commands) fn set_prompt(&mut self, is_there: bool) {
        self.has_prompt = is_there;
    }

    /// Prints a delta of an agent message.
    pub(in crate::commands) fn print_delta(&mut self, message_id: &str, text: &str) -> Result<(), Failure> {
        if self.context.json {
            return Ok(());
        }
        let is_same = self.message.as_ref().is_some_and(|(id, _)| id == message_id);
        if !is_same {
            self.end_line()?;
            if self.message.is_some() {
                self.write("\n")?;
            }
            self.message = Some((message_id.to_owned(), String::new()));
        }
        if let Some((_, written)) = &mut self.message {
            written.push_str(text);
        }
        self.write(text)
    }

    /// Prints the rest of a completed agent message.
    pub(in crate::commands) fn print_rest(&mut self, message_id: &str, text: &str) -> Result<(), Failure> {
        let rest = match &self.message {
            Some((id, written)) if id == message_id => text.strip_prefix(written.as_str()),
            _ => Some(text),
        };
        match rest {
            Some("") | None => Ok(()),
            Some(rest) => self.print_delta(message_id, rest),
        }
    }

    /// Prints a line on stderr that is not part of the answer.
    pub(in crate::commands) fn print_note(&mut self, line: &str) -> Result<(), Failure> {
        self.start_stderr_line()?;
        let screen = &self.context.stderr;
        output::print_error(&screen.paint(FAINT, &screen.line(line)));
        Ok(())
    }

    /// Ensures that the next output on stderr starts on a new line, after the answer or a prompt.
    pub(in crate::commands) fn start_stderr_line(&mut self) -> Result<(), Failure> {
        self.end_prompt_line();
        if self.context.stdout.is_terminal { self.end_line() } else { Ok(()) }
    }

    /// Ends the current line of the answer, if it is not empty.
    pub(in crate::commands) fn end_line(&mut self) -> Result<(), Failure> {
        if self.at_line_start { Ok(()) } else { self.write("\n") }
    }

    fn end_prompt_line(&mut self) {
        if std::mem::take(&mut self.has_prompt) {
            output::write_stderr("\n");
        }
    }

    fn write(&mut self, text: &str) -> Result<(), Failure> {
        if text.is_empty() || !self.has_reader {
            return Ok(());
        }
        if self.context.stdout.is_terminal {
            self.end_prompt_line();
        }
        self.at_line_start = text.ends_with('\n');
        let written = match self.context.stdout.is_terminal {
            true => output::write_stdout(&sanitize_lines_for_terminal(text)),
            false => output::write_stdout(text),
        };
        match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.has_reader = false;
                Ok(())
            }
            Err(error) => Err(Failure::new(format!(
                "Failed to write the answer: {error}; the turn continues in codexd."
            ))),
            Ok(()) => Ok(()),
        }
    }
}
