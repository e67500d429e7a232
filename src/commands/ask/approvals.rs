//! What Codex asks during a turn: shown to the person at the terminal, or told to whoever can answer it.

use std::collections::{HashMap, VecDeque};

use serde_json::{Value, json};

use super::keyboard::{Keyboard, show_typing};
use crate::commands::client::ClientError;
use crate::commands::context::Caller;
use crate::commands::questions::{self, Question};
use crate::commands::requests::{chosen, path};
use crate::commands::terminal::{STRONG, WAITING, harmless, indented};
use crate::commands::{Failure, format, output};

/// The requests of a turn, one of which is asked at a time.
pub(super) struct Approvals<'a> {
    caller: &'a Caller,
    /// Opened at the first request.
    keyboard: Option<Keyboard>,
    has_looked: bool,
    /// Those that somebody else was told to answer, by their names.
    told: Vec<Value>,
    /// Those that wait, the one that is asked first.
    waiting: VecDeque<Value>,
    is_asking: bool,
    /// What the patches change that are under way, by the name of the item.
    changes: HashMap<String, Vec<String>>,
    /// Whether the answer to the first one could not be delivered, and the daemon is waited for.
    is_undelivered: bool,
    /// What was answered so far to the questions of the one that is asked.
    answers: Vec<String>,
}

impl<'a> Approvals<'a> {
    /// `keyboard` is the one that is open already: two would each get some of the lines.
    pub(super) fn new(caller: &'a Caller, keyboard: Option<Keyboard>) -> Self {
        Self {
            caller,
            has_looked: keyboard.is_some(),
            keyboard,
            told: Vec::new(),
            waiting: VecDeque::new(),
            is_asking: false,
            changes: HashMap::new(),
            is_undelivered: false,
            answers: Vec::new(),
        }
    }

    /// A patch begins, which may be asked about.
    pub(super) fn patch_began(&mut self, item: &Value) {
        if let Some(id) = item["id"].as_str() {
            self.changes.insert(id.to_owned(), format::each_change(&item["changes"]));
        }
    }

    /// A patch is over.
    pub(super) fn patch_ended(&mut self, item: &Value) {
        self.changes.remove(item["id"].as_str().unwrap_or_default());
    }

    /// The files that a request is about, whole and one a line.
    fn files(&self, request: &Value) -> String {
        let changes = self.changes.get(request["params"]["itemId"].as_str().unwrap_or_default());
        changes.into_iter().flatten().map(|change| format!("  {}\n", harmless(change))).collect()
    }

    /// Codex asks something.
    pub(super) fn opened(&mut self, request: &Value) {
        let id = &request["requestId"];
        if !self.told.contains(id) && !self.waiting.iter().any(|known| known["requestId"] == *id) {
            self.waiting.push_back(request.clone());
        }
    }

    /// Those that wait here and are none of these, which are all that wait.
    pub(super) fn besides(&self, pending: &[Value]) -> Vec<Value> {
        let is_over = |id: &&Value| !pending.iter().any(|request| request["requestId"] == **id);
        self.waiting.iter().map(|request| &request["requestId"]).filter(is_over).cloned().collect()
    }

    /// Something that was asked is over; a sentence when somebody else ended what was being asked.
    pub(super) fn resolved(&mut self, detail: &Value) -> Option<String> {
        let place = self.waiting.iter().position(|known| known["requestId"] == detail["requestId"])?;
        self.waiting.remove(place);
        self.is_undelivered &= place != 0;
        if place != 0 || !self.is_asking {
            return None;
        }
        self.asked();
        Some(match (&detail["decision"], detail["resolvedBy"].as_str()) {
            (Value::Null, Some("client")) => "answered elsewhere".to_owned(),
            (decision, Some("client")) => format!("answered elsewhere: {}", format::decision(decision)),
            _ => match detail["reason"].as_str() {
                Some(reason) => format!("no answer is wanted any more: {reason}"),
                None => "no answer is wanted any more".to_owned(),
            },
        })
    }

    /// The daemon is there again, and takes what it did not take before.
    pub(super) fn back(&mut self) {
        self.is_undelivered = false;
    }

    /// Whether there is a question to ask now.
    pub(super) fn has_news(&self) -> bool {
        !self.is_asking && !self.is_undelivered && !self.waiting.is_empty()
    }

    /// Whether a question is open that is answered here.
    pub(super) fn is_asking(&self) -> bool {
        self.is_asking
    }

    /// What was asked is over.
    fn asked(&mut self) {
        show_typing();
        self.is_asking = false;
        self.answers.clear();
    }

    /// Asks the next question, or says how it can be answered where nobody can be asked.
    pub(super) fn ask(&mut self) {
        if !std::mem::replace(&mut self.has_looked, true) && self.caller.stderr.is_terminal {
            self.keyboard = Keyboard::open();
        }
        match &mut self.keyboard {
            None => self.tell(),
            Some(keyboard) => {
                // What was typed before it could be seen is no answer to it.
                keyboard.forget();
                self.is_asking = true;
                self.show();
            }
        }
    }

    /// Tells of all questions that wait, on stderr.
    fn tell(&mut self) {
        for request in std::mem::take(&mut self.waiting) {
            let id = request["requestId"].as_str().unwrap_or_default();
            let questions = questions::of(&request);
            let answer = " --answer …".repeat(questions.len());
            self.caller.note(&format!(
                "Codex asks to {}; answer with {} or {}, or it is declined at {}.",
                format::request(&request),
                self.caller.command(&format!("approve {id}{answer}")),
                self.caller.command(&format!("decline {id}")),
                request["expiresAt"].as_str().unwrap_or("some time"),
            ));
            output::write_aside(&self.files(&request));
            self.told.push(request["requestId"].clone());
        }
    }

    /// Shows the question that is open.
    pub(super) fn show(&self) {
        let Some(request) = self.waiting.front() else { return };
        if let Some(question) = questions::of(request).get(self.answers.len()) {
            return self.show_question(question);
        }
        let screen = &self.caller.stderr;
        // The whole of it: what is cut off might be what matters.
        let asked = indented(&format::request(request));
        let mut text = screen.paint(WAITING, &format!("Codex asks to {asked}")) + "\n";
        if let Some(folder) = request["params"]["cwd"].as_str() {
            text.push_str(&format!("  in {}\n", harmless(folder)));
        }
        text.push_str(&self.files(request));
        let decisions = format::decisions(request);
        for (number, decision) in (1..).zip(&decisions) {
            text.push_str(&format!("  {number}  {}\n", harmless(&format::decision_explained(decision))));
        }
        text.push_str(&screen.paint(STRONG, &format!("Your decision, 1 to {}: ", decisions.len())));
        output::write_aside(&text);
    }

    fn show_question(&self, question: &Question) {
        let screen = &self.caller.stderr;
        let asked = indented(&question.text);
        let mut text = screen.paint(WAITING, &format!("Codex asks: {asked}")) + "\n";
        for (number, (label, description)) in (1..).zip(&question.options) {
            let description = if description.is_empty() { String::new() } else { format!(": {description}") };
            text.push_str(&format!("  {number}  {}\n", harmless(&format!("{label}{description}"))));
        }
        let is_hidden = question.is_secret && self.keyboard.as_ref().is_some_and(Keyboard::hide_typing);
        let ask = match (question.options.len(), is_hidden) {
            (0, false) => "Your answer, or nothing to decline: ".to_owned(),
            (0, true) => "Your answer, which is not shown, or nothing to decline: ".to_owned(),
            (count, _) => format!("Your answer, 1 to {count} or your own words, or nothing to decline: "),
        };
        text.push_str(&screen.paint(STRONG, &ask));
        output::write_aside(&text);
    }

    /// What is typed while a question is asked, `None` at the end of the terminal; never when there is no question.
    pub(super) async fn line(&mut self) -> Option<String> {
        match &mut self.keyboard {
            Some(keyboard) if self.is_asking => keyboard.line().await,
            _ => std::future::pending().await,
        }
    }

    /// Takes what was typed: the number of a decision or its word, or the answer to a question.
    pub(super) async fn typed(&mut self, line: Option<String>) -> Result<(), Failure> {
        let Some(request) = self.waiting.front() else { return Ok(()) };
        let Some(line) = line else {
            output::write_aside("\n");
            self.asked();
            self.keyboard = None;
            self.tell();
            return Ok(());
        };
        let questions = questions::of(request);
        if let Some(question) = questions.get(self.answers.len()) {
            show_typing();
            if line.trim().is_empty() {
                return self.answer(&json!({ "decision": "decline" })).await;
            }
            self.answers.push(question.answer(line.trim()));
            if self.answers.len() == questions.len() {
                return self.answer(&questions::result(&questions, &self.answers)).await;
            }
            self.show();
            return Ok(());
        }
        let decisions = format::decisions(request);
        let by_number = questions::by_number(line.trim(), &decisions);
        let Some(decision) = by_number.or_else(|| chosen(&decisions, line.trim())) else {
            let ask = format!("One of the numbers 1 to {}, or its word: ", decisions.len());
            output::write_aside(&self.caller.stderr.paint(STRONG, &ask));
            return Ok(());
        };
        self.answer(&json!({ "decision": decision })).await
    }

    /// Answers what is asked; an answer that cannot be delivered is asked for again when the daemon is back.
    async fn answer(&mut self, body: &Value) -> Result<(), Failure> {
        self.asked();
        let Some(request) = self.waiting.front() else { return Ok(()) };
        let id = request["requestId"].as_str().unwrap_or_default();
        match self.caller.client.post(&path(id), body).await {
            Ok(_) => {}
            Err(error) if error.code() == "already_resolved" => {
                self.caller.note("It was answered elsewhere before.");
            }
            Err(error) if matches!(error, ClientError::Token(_)) || error.code() == "unauthorized" => {
                return Err(error.into());
            }
            Err(error) => {
                let why = error.to_string();
                self.caller.note(&format!(
                    "The answer could not be delivered: {}; it is asked for again when codexd is back.",
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
