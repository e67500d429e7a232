//! Requests of Codex during a turn: asked at the terminal, or reported with the commands that answer them.
//!
//! [`Approvals`] holds the open requests in order and asks one at a time. `turn_follower` feeds it events and lines
//! from the terminal. A request that was reported is not asked again.

use std::collections::{HashMap, VecDeque};

use serde_json::{Value, json};

use super::terminal_input::{TerminalInput, restore_echo};
use crate::client::ClientError;
use crate::codex::protocol::decisions::DECLINE;
use crate::commands::api::request_path;
use crate::commands::context::CommandContext;
use crate::commands::failure::Failure;
use crate::commands::patch::{FileChange, patch_lines, patch_totals};
use crate::commands::questions::{self, Question};
use crate::commands::requests::find_decision;
use crate::commands::terminal::{STRONG, WAITING, sanitize_and_indent, sanitize_for_terminal};
use crate::commands::wrap::wrap_indented;
use crate::commands::{format, output};

/// How far the words of a decision are indented.
const DECISION_INDENT: usize = 5;
/// A page of a question has at least this many lines, however low the terminal is.
const MIN_PAGE_LINES: usize = 5;

/// The open requests of a turn; one is asked at a time.
pub(super) struct Approvals<'a> {
    context: &'a CommandContext,
    /// Opened at the first request.
    input: Option<TerminalInput>,
    has_opened_terminal: bool,
    /// The IDs of requests that were reported because this command cannot ask.
    reported: Vec<Value>,
    /// The open requests; the first one is asked.
    waiting: VecDeque<Value>,
    is_asking: bool,
    /// The changes of patches in progress, by item ID.
    changes: HashMap<String, Vec<FileChange>>,
    /// The lines of the current question that are not shown yet.
    unshown: Vec<String>,
    /// Whether the answer to the first request could not be delivered; it waits for the daemon to come back.
    is_undelivered: bool,
    /// The working directory of the session.
    cwd: Option<String>,
    /// The answers so far to the questions of the current request.
    answers: Vec<String>,
}

impl<'a> Approvals<'a> {
    /// `input` is the terminal input if it is open already: two readers would each get some of the lines.
    pub(super) fn new(
        context: &'a CommandContext,
        cwd: Option<String>,
        input: Option<TerminalInput>,
    ) -> Self {
        Self {
            context,
            cwd,
            has_opened_terminal: input.is_some(),
            input,
            reported: Vec::new(),
            waiting: VecDeque::new(),
            is_asking: false,
            changes: HashMap::new(),
            unshown: Vec::new(),
            is_undelivered: false,
            answers: Vec::new(),
        }
    }

    /// Remembers the changes of a patch that was started, because a request may be about it.
    pub(super) fn add_patch(&mut self, item: &Value) {
        if let Some(id) = item["id"].as_str() {
            self.changes.insert(id.to_owned(), FileChange::all(&item["changes"]));
        }
    }

    /// Forgets a patch that has ended.
    pub(super) fn remove_patch(&mut self, item: &Value) {
        self.changes.remove(item["id"].as_str().unwrap_or_default());
    }

    /// The changes that a request is about.
    fn changes(&self, request: &Value) -> &[FileChange] {
        let id = request["params"]["itemId"].as_str().unwrap_or_default();
        self.changes.get(id).map(Vec::as_slice).unwrap_or_default()
    }

    /// Adds a request of Codex.
    pub(super) fn add_request(&mut self, request: &Value) {
        let id = &request["requestId"];
        if !self.reported.contains(id) && !self.waiting.iter().any(|known| known["requestId"] == *id) {
            self.waiting.push_back(request.clone());
        }
    }

    /// The IDs of requests here that are not in `pending`, the list of all pending ones.
    pub(super) fn no_longer_pending(&self, pending: &[Value]) -> Vec<Value> {
        let is_over = |id: &&Value| !pending.iter().any(|request| request["requestId"] == **id);
        self.waiting.iter().map(|request| &request["requestId"]).filter(is_over).cloned().collect()
    }

    /// Removes a request that was resolved. Returns a note if another client or the daemon resolved it while it was
    /// asked.
    pub(super) fn remove_request(&mut self, detail: &Value) -> Option<String> {
        let place = self.waiting.iter().position(|known| known["requestId"] == detail["requestId"])?;
        self.waiting.remove(place);
        self.is_undelivered &= place != 0;
        if place != 0 || !self.is_asking {
            return None;
        }
        self.asked();
        Some(match (&detail["decision"], detail["resolvedBy"].as_str()) {
            (Value::Null, Some("client")) => "answered by another client".to_owned(),
            (decision, Some("client")) => {
                format!("answered by another client: {}", format::decision(decision))
            }
            _ => match detail["reason"].as_str() {
                Some(reason) => format!("no longer pending: {reason}"),
                None => "no longer pending".to_owned(),
            },
        })
    }

    /// The daemon is reachable again; undelivered answers are asked for again.
    pub(super) fn on_reconnect(&mut self) {
        self.is_undelivered = false;
    }

    /// Whether a request waits that was not asked yet.
    pub(super) fn has_unasked(&self) -> bool {
        !self.is_asking && !self.is_undelivered && !self.waiting.is_empty()
    }

    /// Whether a question is open at the terminal.
    pub(super) fn is_asking(&self) -> bool {
        self.is_asking
    }

    /// Ends the current question.
    fn asked(&mut self) {
        restore_echo();
        self.is_asking = false;
        self.answers.clear();
    }

    /// Asks the next question, or reports how to answer the requests if there is no terminal.
    pub(super) fn ask_next(&mut self) {
        if !std::mem::replace(&mut self.has_opened_terminal, true) && self.context.stderr.is_terminal {
            self.input = TerminalInput::open();
        }
        let Some(input) = &mut self.input else { return self.report_all() };
        // What was typed before the question appeared is no answer to it.
        input.discard_pending();
        self.is_asking = true;
        self.show_prompt();
    }

    /// Reports all open requests on stderr, with the commands that answer them.
    fn report_all(&mut self) {
        for request in std::mem::take(&mut self.waiting) {
            let id = request["requestId"].as_str().unwrap_or_default();
            let questions = questions::of(&request);
            let answer = " --answer …".repeat(questions.len());
            self.context.print_note(&format!(
                "Codex asks to {}; answer with {} or {}, or it is declined at {}.",
                format::request(&request),
                self.context.command_line(&format!("approve {id}{answer}")),
                self.context.command_line(&format!("decline {id}")),
                request["expiresAt"].as_str().unwrap_or("some time"),
            ));
            for change in self.changes(&request) {
                output::print_error(&format!(
                    "  {}",
                    sanitize_for_terminal(&change.summary(self.cwd.as_deref()))
                ));
            }
            self.reported.push(request["requestId"].clone());
        }
    }

    /// Prints the current question.
    pub(super) fn show_prompt(&mut self) {
        let Some(request) = self.waiting.front() else { return };
        if let Some(question) = questions::of(request).get(self.answers.len()) {
            return self.show_question(question);
        }
        let screen = &self.context.stderr;
        // Not truncated: the part that is cut off might be the part that matters.
        let asked = sanitize_and_indent(&format::request_for_person(request));
        let cwd = request["params"]["cwd"].as_str().filter(|cwd| self.cwd.as_deref() != Some(*cwd));
        let changes = self.changes(request);
        let mut head = format!("Codex asks to {asked}");
        if !changes.is_empty() {
            head.push_str(&format!(": {}", patch_totals(changes)));
        }
        let mut lines: Vec<String> = head.lines().map(|line| screen.paint(WAITING, line)).collect();
        lines.extend(cwd.map(|cwd| format!("  in {}", sanitize_for_terminal(cwd))));
        let here = self.cwd.as_deref();
        if changes.len() > 1 {
            let files = changes.iter().map(|change| sanitize_for_terminal(&change.summary(here)));
            lines.extend(files.map(|line| format!("  {line}")));
        }
        lines.extend(patch_lines(changes, here, screen).into_iter().map(|line| format!("  {line}")));
        self.unshown = lines;
        self.show_page();
    }

    /// Prints the next lines of the question, as many as fit, and asks for the decision.
    fn show_page(&mut self) {
        let screen = &self.context.stderr;
        let Some(request) = self.waiting.front() else { return };
        let decisions = format::decisions(request);
        // With the decisions, the prompt and the line before them.
        let page = screen.rows.saturating_sub(decisions.len() + 3).max(MIN_PAGE_LINES);
        let shown: Vec<String> = self.unshown.drain(..page.min(self.unshown.len())).collect();
        let mut text: String = shown.iter().map(|line| format!("{line}\n")).collect();
        for (number, decision) in (1..).zip(&decisions) {
            let words = sanitize_for_terminal(&format::decision_in_words(decision));
            let words = wrap_indented(&words, screen.width, DECISION_INDENT);
            text.push_str(&format!("  {number}  {words}\n"));
        }
        let more = match self.unshown.len() {
            0 => String::new(),
            1 => ", Enter for 1 more line".to_owned(),
            count => format!(", Enter for {count} more lines"),
        };
        text.push_str(
            &screen.paint(STRONG, &format!("Your decision (y, n, 1 to {}{more}): ", decisions.len())),
        );
        output::write_stderr(&text);
    }

    fn show_question(&self, question: &Question) {
        let screen = &self.context.stderr;
        let asked = sanitize_and_indent(&question.text);
        let mut text = screen.paint(WAITING, &format!("Codex asks: {asked}")) + "\n";
        for (number, (label, description)) in (1..).zip(&question.options) {
            let description = if description.is_empty() { String::new() } else { format!(": {description}") };
            text.push_str(&format!(
                "  {number}  {}\n",
                sanitize_for_terminal(&format!("{label}{description}"))
            ));
        }
        let is_hidden = question.is_secret && self.input.as_ref().is_some_and(TerminalInput::disable_echo);
        let ask = match (question.options.len(), is_hidden) {
            (0, false) => "Your answer (empty to decline): ".to_owned(),
            (0, true) => "Your answer (hidden, empty to decline): ".to_owned(),
            (count, _) => format!("Your answer, 1 to {count} or any text (empty to decline): "),
        };
        text.push_str(&screen.paint(STRONG, &ask));
        output::write_stderr(&text);
    }

    /// The next line typed while a question is open, `None` at end of file. Never returns without an open question.
    pub(super) async fn next_line(&mut self) -> Option<String> {
        match &mut self.input {
            Some(input) if self.is_asking => input.next_line().await,
            _ => std::future::pending().await,
        }
    }

    /// Handles a typed line: the number or name of a decision, or the answer to a question.
    pub(super) async fn handle_line(&mut self, line: Option<String>) -> Result<(), Failure> {
        let Some(request) = self.waiting.front().cloned() else { return Ok(()) };
        let Some(line) = line else {
            output::write_stderr("\n");
            self.asked();
            self.input = None;
            self.report_all();
            return Ok(());
        };
        let questions = questions::of(&request);
        if let Some(question) = questions.get(self.answers.len()) {
            restore_echo();
            if line.trim().is_empty() {
                return self.answer(&json!({ "decision": DECLINE })).await;
            }
            self.answers.push(question.answer(line.trim()));
            if self.answers.len() == questions.len() {
                return self.answer(&questions::result(&questions, &self.answers)).await;
            }
            self.show_prompt();
            return Ok(());
        }
        let decisions = format::decisions(&request);
        let typed = line.trim();
        if typed.is_empty() && !self.unshown.is_empty() {
            self.show_page();
            return Ok(());
        }
        let by_number = questions::by_number(typed, &decisions);
        let Some(decision) = by_number.or_else(|| find_decision(&decisions, typed)) else {
            let ask = format!("y, n, a number from 1 to {}, or the name of a decision: ", decisions.len());
            output::write_stderr(&self.context.stderr.paint(STRONG, &ask));
            return Ok(());
        };
        self.answer(&json!({ "decision": decision })).await
    }

    /// Sends the answer. If it cannot be delivered, the question is asked again when the daemon is back.
    async fn answer(&mut self, body: &Value) -> Result<(), Failure> {
        self.asked();
        let Some(request) = self.waiting.front() else { return Ok(()) };
        let id = request["requestId"].as_str().unwrap_or_default();
        match self.context.client.post(&request_path(id), body).await {
            Ok(_) => {}
            Err(error) if error.code() == "already_resolved" => {
                self.context.print_note("Another client answered the request first.");
            }
            Err(error) if matches!(error, ClientError::Token(_)) || error.code() == "unauthorized" => {
                return Err(error.into());
            }
            Err(error) => {
                let why = error.to_string();
                self.context.print_note(&format!(
                    "Failed to deliver the answer: {}; the question is repeated when codexd is back.",
                    why.trim_end_matches('.')
                ));
                self.is_undelivered = true;
                return Ok(());
            }
        }
        self.waiting.pop_front();
        Ok(())
    }
}
