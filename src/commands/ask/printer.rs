//! Prints a turn: the answer to stdout, everything else to stderr.
//!
//! [`AnswerPrinter`] knows where the cursor of the terminal is, so that notes, answers, prompts and the line of progress
//! never share a line. On a terminal the Markdown of the answer is rendered; a pipe gets it as it is.

use std::io::ErrorKind;

use serde_json::Value;

use crate::commands::context::CommandContext;
use crate::commands::failure::Failure;
use crate::commands::markdown::MarkdownStream;
use crate::commands::output;
use crate::commands::terminal::{FAINT, display_width, sanitize_for_terminal, truncate_end};

/// What stdout gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::commands) enum AnswerFormat {
    /// The messages of the agent.
    Text,
    /// One JSON document at the end, which the caller prints.
    Document,
    /// One JSON document in a line for each thing that happens.
    JsonLines,
}

/// What a terminal shows last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Note,
    Answer,
}

/// The state of stdout and of the prompt.
pub(in crate::commands) struct AnswerPrinter<'a> {
    context: &'a CommandContext,
    format: AnswerFormat,
    /// The ID of the message that is being printed and the text printed so far.
    message: Option<(String, String)>,
    /// The message on a terminal.
    markdown: Option<MarkdownStream>,
    last: Last,
    /// Whether stdout is at the start of a line.
    at_line_start: bool,
    /// Whether stdout has a reader, as far as is known.
    has_reader: bool,
    /// Whether the last line of the terminal is a prompt at which the user types.
    has_prompt: bool,
    /// The width of the line of progress, if it is the last line of the terminal.
    progress_width: Option<usize>,
}

impl<'a> AnswerPrinter<'a> {
    pub(in crate::commands) fn new(context: &'a CommandContext, format: AnswerFormat) -> Self {
        Self {
            context,
            format,
            message: None,
            markdown: context.stdout.is_terminal.then(|| MarkdownStream::new(context.stdout)),
            last: Last::Note,
            at_line_start: true,
            has_reader: true,
            has_prompt: false,
            progress_width: None,
        }
    }

    /// Whether stderr is a terminal at which a person watches the turn.
    pub(in crate::commands) fn is_watched(&self) -> bool {
        self.context.stderr.is_terminal && self.format == AnswerFormat::Text
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
        if self.format != AnswerFormat::Text {
            return Ok(());
        }
        let is_same = self.message.as_ref().is_some_and(|(id, _)| id == message_id);
        if !is_same {
            self.end_message()?;
            if self.message.is_some() && self.last == Last::Answer {
                self.write("\n")?;
            }
            self.message = Some((message_id.to_owned(), String::new()));
        }
        if let Some((_, written)) = &mut self.message {
            written.push_str(text);
        }
        match &mut self.markdown {
            Some(stream) => {
                let lines = stream.push(text);
                self.write(&lines)
            }
            None => self.write(text),
        }
    }

    /// Prints the rest of a completed agent message.
    pub(in crate::commands) fn print_rest(&mut self, message_id: &str, text: &str) -> Result<(), Failure> {
        let rest = match &self.message {
            Some((id, written)) if id == message_id => text.strip_prefix(written.as_str()),
            _ => Some(text),
        };
        if let Some(rest) = rest.filter(|rest| !rest.is_empty()) {
            self.print_delta(message_id, rest)?;
        }
        if self.markdown.is_some() { self.end_message() } else { Ok(()) }
    }

    /// Prints a JSON document in a line.
    pub(in crate::commands) fn print_json_line(&mut self, document: &Value) -> Result<(), Failure> {
        let line = document.to_string();
        let is_terminal = self.context.stdout.is_terminal;
        let line = if is_terminal { sanitize_for_terminal(&line) } else { line };
        self.write(&format!("{line}\n"))
    }

    /// Prints a line on stderr that is not part of the answer.
    pub(in crate::commands) fn print_note(&mut self, line: &str) -> Result<(), Failure> {
        let screen = self.context.stderr;
        self.print_painted_note(&screen.paint(FAINT, &screen.line(line)))
    }

    /// The same for a line that is sanitized and painted.
    pub(in crate::commands) fn print_painted_note(&mut self, line: &str) -> Result<(), Failure> {
        self.start_stderr_line()?;
        output::print_error(line);
        Ok(())
    }

    /// Ensures that the next output on stderr starts on a new line, after the answer or a prompt.
    pub(in crate::commands) fn start_stderr_line(&mut self) -> Result<(), Failure> {
        self.clear_progress();
        self.end_prompt_line();
        if !self.context.stdout.is_terminal {
            return Ok(());
        }
        self.end_line()?;
        if self.last == Last::Answer && self.is_watched() {
            output::write_stderr("\n");
        }
        self.last = Last::Note;
        Ok(())
    }

    /// Prints what is left of the answer, and ends its line.
    pub(in crate::commands) fn finish(&mut self) -> Result<(), Failure> {
        self.clear_progress();
        self.end_prompt_line();
        self.end_message()
    }

    /// Shows what the turn does, in a line that the next output replaces.
    pub(in crate::commands) fn show_progress(&mut self, text: &str) {
        let Some(width) = self.context.stderr.width.filter(|_| self.is_watched() && !self.has_prompt) else {
            return;
        };
        let text = truncate_end(&sanitize_for_terminal(text), width.saturating_sub(1));
        let shown = display_width(&text);
        // Spaces instead of a control sequence, which not every terminal knows.
        let rest = " ".repeat(self.progress_width.unwrap_or(0).saturating_sub(shown));
        output::write_stderr(&format!("\r{}{rest}", self.context.stderr.paint(FAINT, &text)));
        self.progress_width = Some(shown + rest.len());
    }

    fn clear_progress(&mut self) {
        if let Some(width) = self.progress_width.take() {
            output::write_stderr(&format!("\r{}\r", " ".repeat(width)));
        }
    }

    fn end_message(&mut self) -> Result<(), Failure> {
        if let Some(lines) = self.markdown.as_mut().map(MarkdownStream::finish) {
            self.write(&lines)?;
        }
        self.end_line()
    }

    /// Ends the current line of the answer, if it is not empty.
    fn end_line(&mut self) -> Result<(), Failure> {
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
        let mut gap = "";
        if self.context.stdout.is_terminal {
            self.clear_progress();
            self.end_prompt_line();
            let is_after_note = std::mem::replace(&mut self.last, Last::Answer) == Last::Note;
            gap = if is_after_note && self.is_watched() { "\n" } else { "" };
        }
        self.at_line_start = text.ends_with('\n');
        match output::write_stdout(&format!("{gap}{text}")) {
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
