//! What Codex asks during a turn: shown to the person at the terminal, or told to whoever can answer it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, stdin};
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::termios::{QueueSelector, tcflush};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::commands::errand::Caller;
use crate::commands::requests::{chosen, path};
use crate::commands::terminal::{STRONG, WAITING, harmless, harmless_lines};
use crate::commands::{Failure, output, words};

/// The requests of a turn, one of which is asked at a time.
pub(super) struct Approvals<'a> {
    caller: &'a Caller,
    /// Opened at the first request.
    keyboard: Option<Keyboard>,
    has_looked: bool,
    /// Those that wait, the one that is asked first.
    waiting: VecDeque<Value>,
    is_asking: bool,
}

impl<'a> Approvals<'a> {
    pub(super) fn new(caller: &'a Caller) -> Self {
        Self { caller, keyboard: None, has_looked: false, waiting: VecDeque::new(), is_asking: false }
    }

    /// Codex asks something.
    pub(super) fn opened(&mut self, request: &Value) {
        let id = &request["requestId"];
        if !self.waiting.iter().any(|known| known["requestId"] == *id) {
            self.waiting.push_back(request.clone());
        }
    }

    /// Something that was asked is over; a sentence when somebody else ended what was being asked.
    pub(super) fn resolved(&mut self, detail: &Value) -> Option<String> {
        let place = self.waiting.iter().position(|known| known["requestId"] == detail["requestId"])?;
        self.waiting.remove(place);
        if place != 0 || !std::mem::take(&mut self.is_asking) {
            return None;
        }
        output::write_aside("\n");
        Some(match (&detail["decision"], detail["resolvedBy"].as_str()) {
            (Value::Null, Some("client")) => "answered elsewhere".to_owned(),
            (decision, Some("client")) => format!("answered elsewhere: {}", words::decision(decision)),
            _ => match detail["reason"].as_str() {
                Some(reason) => format!("no answer is wanted any more: {reason}"),
                None => "no answer is wanted any more".to_owned(),
            },
        })
    }

    /// Whether there is a question to ask now.
    pub(super) fn has_news(&self) -> bool {
        !self.is_asking && !self.waiting.is_empty()
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
        for request in self.waiting.drain(..) {
            let id = request["requestId"].as_str().unwrap_or_default();
            self.caller.note(&format!(
                "Codex asks to {}; answer with {} or {}, or it is declined at {}.",
                words::request(&request),
                self.caller.command(&format!("approve {id}")),
                self.caller.command(&format!("decline {id}")),
                request["expiresAt"].as_str().unwrap_or("some time"),
            ));
        }
    }

    fn show(&self) {
        let Some(request) = self.waiting.front() else { return };
        let screen = &self.caller.stderr;
        // The whole of it: what is cut off might be what matters.
        let asked = harmless_lines(&words::request(request)).replace('\n', "\n  ");
        let mut text = screen.paint(WAITING, &format!("Codex asks to {asked}")) + "\n";
        if let Some(folder) = request["params"]["cwd"].as_str() {
            text.push_str(&format!("  in {}\n", harmless(folder)));
        }
        let decisions = words::decisions(request);
        for (number, decision) in (1..).zip(&decisions) {
            text.push_str(&format!("  {number}  {}\n", harmless(&words::decision(decision))));
        }
        text.push_str(&screen.paint(STRONG, &format!("Your decision, 1 to {}: ", decisions.len())));
        output::write_aside(&text);
    }

    /// What is typed while a question is asked, `None` at the end of the terminal; never when there is no question.
    pub(super) async fn line(&mut self) -> Option<String> {
        match &mut self.keyboard {
            Some(keyboard) if self.is_asking => keyboard.lines.recv().await.flatten(),
            _ => std::future::pending().await,
        }
    }

    /// Takes what was typed: the number of a decision or its word.
    pub(super) async fn typed(&mut self, line: Option<String>) -> Result<(), Failure> {
        let Some(request) = self.waiting.front() else { return Ok(()) };
        let Some(line) = line else {
            output::write_aside("\n");
            self.keyboard = None;
            self.is_asking = false;
            self.tell();
            return Ok(());
        };
        let decisions = words::decisions(request);
        let number = line.trim().parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        let by_number = number.and_then(|number| decisions.get(number));
        let Some(decision) = by_number.or_else(|| chosen(&decisions, line.trim())) else {
            let ask = format!("One of the numbers 1 to {}, or its word: ", decisions.len());
            output::write_aside(&self.caller.stderr.paint(STRONG, &ask));
            return Ok(());
        };
        let id = request["requestId"].as_str().unwrap_or_default();
        let answered = self.caller.client.post(&path(id), &json!({ "decision": decision })).await;
        self.waiting.pop_front();
        self.is_asking = false;
        match answered {
            Ok(_) => Ok(()),
            Err(error) if error.code() == "already_resolved" => {
                self.caller.note("It was answered elsewhere before.");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The lines that a person types.
struct Keyboard {
    terminal: Arc<File>,
    lines: mpsc::UnboundedReceiver<Option<String>>,
}

impl Keyboard {
    /// The terminal on stdin, or that of the process where stdin is something else; `None` where there is none.
    fn open() -> Option<Self> {
        let terminal = match stdin().is_terminal() {
            true => File::from(stdin().as_fd().try_clone_to_owned().ok()?),
            false => File::open("/dev/tty").ok()?,
        };
        let terminal = Arc::new(terminal);
        let (typed, lines) = mpsc::unbounded_channel();
        let reader = Arc::clone(&terminal);
        // A thread, because a read from a terminal cannot be called off.
        let read = move || {
            let mut reader = BufReader::new(&*reader);
            loop {
                let mut line = String::new();
                let count = reader.read_line(&mut line).unwrap_or(0);
                let is_over = count == 0;
                if typed.send((!is_over).then_some(line)).is_err() || is_over {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("keyboard".to_owned()).spawn(read).ok()?;
        Some(Self { terminal, lines })
    }

    /// Drops what was typed so far.
    fn forget(&mut self) {
        // What cannot be dropped is at worst taken for a wrong answer.
        let _ = tcflush(&*self.terminal, QueueSelector::IFlush);
        while let Ok(Some(_)) = self.lines.try_recv() {}
    }
}
