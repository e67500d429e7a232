//! Events of all sessions as a conversation: who said what, what was done, and what Codex asks.
//!
//! [`Conversation`] knows the sessions and what was printed last. `follow` feeds it events, and prints what it returns. A
//! message is printed in paragraphs as it arrives; everything else is a line when it has ended.

use std::collections::HashMap;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::format;
use super::items::outcome_lines;
use super::markdown::MarkdownStream;
use super::terminal::{BAD, FAINT, OutputTarget, STRONG, WAITING, display_width, sanitize_for_terminal};
use super::wrap::wrap_indented;
use crate::codex::protocol::items;
use crate::codex::protocol::notifications::ITEM_COMPLETED;
use crate::codex::protocol::values::TURN_COMPLETED;

/// How far a message is indented.
const INDENT: usize = 2;
/// The colors that tell sessions apart.
const TAG_COLORS: [AnsiColor; 5] =
    [AnsiColor::Cyan, AnsiColor::Magenta, AnsiColor::Blue, AnsiColor::Green, AnsiColor::Yellow];

/// A session whose events are shown.
#[derive(Debug, Clone)]
struct Session {
    tag: String,
    cwd: Option<String>,
}

/// The state of the view.
#[derive(Debug)]
pub(super) struct Conversation {
    screen: OutputTarget,
    time_zone: TimeZone,
    /// By the IDs of their threads.
    sessions: HashMap<String, Session>,
    /// The messages that are being written, by item ID.
    messages: HashMap<String, MarkdownStream>,
    /// The message whose lines were printed last.
    last_message: Option<String>,
    /// When each running turn began.
    turns: HashMap<String, Timestamp>,
}

impl Conversation {
    /// A view of these sessions, and of those that the events bring, with the times of this zone.
    pub(super) fn new(screen: OutputTarget, time_zone: TimeZone, sessions: &[Value]) -> Self {
        let mut view = Self {
            screen,
            time_zone,
            sessions: HashMap::new(),
            messages: HashMap::new(),
            last_message: None,
            turns: HashMap::new(),
        };
        sessions.iter().for_each(|session| view.add_session(session));
        view
    }

    fn add_session(&mut self, session: &Value) {
        let (Some(thread_id), Some(session_id)) =
            (session["threadId"].as_str(), session["sessionId"].as_str())
        else {
            return;
        };
        let tag = session_id.split('-').nth(1).unwrap_or(session_id).to_owned();
        let cwd = session["cwd"].as_str().map(str::to_owned);
        self.sessions.insert(thread_id.to_owned(), Session { tag, cwd });
    }

    /// What to print for an event: lines that end with line breaks, or nothing.
    pub(super) fn lines(&mut self, event: &Value) -> String {
        let detail = &event["detail"];
        if detail["session"].is_object() {
            self.add_session(&detail["session"]);
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match event["type"].as_str().unwrap_or_default() {
            "session.created" | "session.resumed" => {
                let (cwd, model) = (text(&detail["session"]["cwd"]), text(&detail["session"]["model"]));
                self.line(event, FAINT, &format!("session in {cwd}, {model}"))
            }
            "session.closed" => self.line(event, FAINT, "session closed"),
            "app-server.turn.started" => {
                if let Some(time) = time(event) {
                    self.turns.insert(text(&detail["turnId"]), time);
                }
                String::new()
            }
            "app-server.turn.message.delta" => {
                let (item_id, delta) = (text(&detail["itemId"]), text(&detail["delta"]));
                let narrow = self.screen.indented(INDENT);
                let message =
                    self.messages.entry(item_id.clone()).or_insert_with(|| MarkdownStream::new(narrow));
                let lines = message.push(&delta);
                self.message(event, &item_id, &lines)
            }
            "app-server.notification" if detail["notificationMethod"] == ITEM_COMPLETED => {
                self.item(event, &detail["params"]["item"])
            }
            "turn.item.read" => self.item(event, &detail["item"]),
            "app-server.turn.completed" | "turn.settled" => self.turn_end(event),
            "app-server.turn.completed.missing" => self.line(event, BAD, &format::event(event)),
            "app-server.turn.error" => {
                let reason = format::error(&detail["error"]).unwrap_or_default();
                let next = if detail["willRetry"] == true { "; Codex is retrying" } else { "" };
                self.line(event, BAD, &format!("{reason}{next}"))
            }
            "request.opened" => {
                let request = &detail["request"];
                let asked = format::request_for_person(request);
                let id = text(&request["requestId"]);
                // The beginning will do.
                let id = id.split('-').nth(1).unwrap_or(&id);
                self.line(event, WAITING, &format!("asks to {asked} (codexd approve {id})"))
            }
            "request.resolved" => match &detail["decision"] {
                Value::Null => self.line(event, FAINT, "the request is over"),
                decision => {
                    self.line(event, FAINT, &format!("answered: {}", format::decision_in_words(decision)))
                }
            },
            "turn.queued" => self.line(event, FAINT, "a turn is queued"),
            "session.held" => {
                let reason = text(&detail["held"]["reason"]);
                self.line(event, WAITING, &format!("the queue is held: {reason}"))
            }
            name => {
                let is_about_daemon = name.starts_with("daemon.") || name.starts_with("child.");
                match event["level"].as_str() {
                    Some("warn" | "error") => self.line(event, BAD, &format::event(event)),
                    _ if is_about_daemon => self.line(event, FAINT, &format::event(event)),
                    _ => String::new(),
                }
            }
        }
    }

    fn item(&mut self, event: &Value, item: &Value) -> String {
        if let Some(text) = items::agent_message(item) {
            let item_id = item["id"].as_str().unwrap_or_default().to_owned();
            let lines = match self.messages.remove(&item_id) {
                Some(mut message) => message.finish(),
                None => {
                    let mut message = MarkdownStream::new(self.screen.indented(INDENT));
                    message.push(text) + &message.finish()
                }
            };
            return self.message(event, &item_id, &lines);
        }
        if items::is_user_message(item) {
            return self.line(event, STRONG, &format!("You: {}", items::user_text(item).trim()));
        }
        let session = self.session(event).cloned();
        let head = self.head(event);
        let cwd = session.as_ref().and_then(|session| session.cwd.as_deref());
        let lines = outcome_lines(item, cwd, &self.screen.indented(display_width(&head.0)));
        if !lines.is_empty() {
            self.last_message = None;
        }
        lines.iter().map(|line| format!("{}{line}\n", head.1)).collect()
    }

    fn turn_end(&mut self, event: &Value) -> String {
        let detail = &event["detail"];
        let began = self.turns.remove(detail["turnId"].as_str().unwrap_or_default());
        let took = began.zip(time(event)).map(|(began, end)| {
            let seconds = end.as_second().saturating_sub(began.as_second());
            format!(" · {}", format::duration(Duration::from_secs(u64::try_from(seconds).unwrap_or(0))))
        });
        let status = detail["status"].as_str().unwrap_or_default();
        let reason = format::error(&detail["error"]).map(|reason| format!(": {reason}")).unwrap_or_default();
        let style = if status == TURN_COMPLETED { FAINT } else { BAD };
        self.line(event, style, &format!("turn {status}{reason}{}", took.unwrap_or_default()))
    }

    /// Lines of a message, below who says it.
    fn message(&mut self, event: &Value, item_id: &str, lines: &str) -> String {
        if lines.is_empty() {
            return String::new();
        }
        let (head, lines) = match self.last_message.as_deref() == Some(item_id) {
            true => (String::new(), lines),
            false => {
                let head = format!("{}{}\n", self.head(event).1, self.screen.paint(STRONG, "Codex"));
                (head, lines.trim_start_matches('\n'))
            }
        };
        self.last_message = Some(item_id.to_owned());
        let indent = " ".repeat(INDENT);
        let lines = lines.lines().map(|line| format!("{indent}{line}").trim_end().to_owned() + "\n");
        head + &lines.collect::<String>()
    }

    /// A text in one style, wrapped.
    fn line(&mut self, event: &Value, style: Style, text: &str) -> String {
        self.last_message = None;
        let (plain, painted) = self.head(event);
        let lines: Vec<String> = text.lines().map(sanitize_for_terminal).collect();
        let wrapped = wrap_indented(&lines.join("\n"), self.screen.width, display_width(&plain));
        let mut lines = wrapped.lines();
        let first = lines.next().unwrap_or_default();
        let mut text = format!("{painted}{}\n", self.screen.paint(style, first));
        for line in lines {
            text.push_str(&format!("{}\n", self.screen.paint(style, line)));
        }
        text
    }

    /// The time and the tag of the session, plain and painted.
    fn head(&self, event: &Value) -> (String, String) {
        let time =
            time(event).map(|time| time.to_zoned(self.time_zone.clone()).strftime("%H:%M:%S").to_string());
        let time = time.unwrap_or_else(|| "-".to_owned());
        let tag = self.session(event).map_or("codexd", |session| session.tag.as_str());
        let tag = sanitize_for_terminal(tag);
        let number = tag.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let color = TAG_COLORS[number % TAG_COLORS.len()].on_default();
        let painted = format!("{} {} ", self.screen.paint(FAINT, &time), self.screen.paint(color, &tag));
        (format!("{time} {tag} "), painted)
    }

    fn session(&self, event: &Value) -> Option<&Session> {
        let detail = &event["detail"];
        let places = [
            &detail["rootThreadId"],
            &detail["threadId"],
            &detail["params"]["threadId"],
            &detail["request"]["threadId"],
            &detail["session"]["threadId"],
        ];
        let by_thread = places.into_iter().filter_map(Value::as_str).find_map(|id| self.sessions.get(id));
        by_thread.or_else(|| {
            let session_id = detail["sessionId"].as_str().or(detail["request"]["sessionId"].as_str())?;
            let tag = session_id.split('-').nth(1)?;
            self.sessions.values().find(|session| session.tag == tag)
        })
    }
}

fn time(event: &Value) -> Option<Timestamp> {
    event["createdAt"].as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(width: usize) -> String {
        let session = |id: &str, thread: &str| json!({ "sessionId": id, "threadId": thread, "cwd": "/p", "model": "m" });
        let sessions = [session("session-aaaa1111-x", "t-1"), session("session-bbbb2222-y", "t-2")];
        let mut view = Conversation::new(OutputTarget::terminal(width, false), TimeZone::UTC, &sessions);
        let mut shown = String::new();
        let mut add = |seconds: u32, name: &str, detail: Value| {
            let event = json!({ "createdAt": format!("2026-11-20T12:00:{seconds:02}.5Z"), "level": "info", "type": name,
                                "message": format!("{name} happened"), "detail": detail });
            shown.push_str(&view.lines(&event));
        };
        let item = |item: Value, thread: &str| json!({ "notificationMethod": "item/completed", "params": { "threadId": thread, "item": item } });
        let delta =
            |text: &str, id: &str, thread: &str| json!({ "itemId": id, "delta": text, "threadId": thread });
        let name = "app-server.turn.message.delta";
        let said =
            "Why does the test of the parser fail when the file is empty, and only on the second line?";
        add(1, "app-server.turn.started", json!({ "turnId": "u", "threadId": "t-1" }));
        let content = json!([{ "type": "text", "text": said }]);
        add(1, "app-server.notification", item(json!({ "type": "userMessage", "content": content }), "t-1"));
        add(
            2,
            name,
            delta(
                "The loop ends **one line** too late, because an empty line is read twice.\n\nA",
                "m",
                "t-1",
            ),
        );
        add(3, name, delta("Another session\u{1b}[2J.\n\n", "n", "t-2"));
        add(4, name, delta("nother paragraph.", "m", "t-1"));
        let message = json!({ "type": "agentMessage", "id": "m", "text": "ignored" });
        add(5, "app-server.notification", item(message, "t-1"));
        let command = json!({ "type": "commandExecution", "id": "c", "exitCode": 101, "durationMs": 3200,
            "command": "/bin/bash -lc 'cargo test --workspace --all-features -- parser::tests::an_empty_line --nocapture'" });
        add(6, "app-server.notification", item(command, "t-1"));
        let change = json!({ "path": "/p/src/a.rs", "kind": { "type": "add" }, "diff": "x\n" });
        add(
            7,
            "app-server.notification",
            item(json!({ "type": "fileChange", "id": "f", "changes": [change] }), "t-1"),
        );
        let request = json!({ "requestId": "request-1", "threadId": "t-2", "params": { "command": "ls" },
                              "method": "item/commandExecution/requestApproval" });
        add(8, "request.opened", json!({ "request": request, "sessionId": "session-bbbb2222-y" }));
        add(9, "request.resolved", json!({ "decision": "accept", "sessionId": "session-bbbb2222-y" }));
        add(
            9,
            "app-server.turn.completed",
            json!({ "turnId": "u", "threadId": "t-1", "status": "completed" }),
        );
        add(9, "app-server.thread.status.changed", json!({ "threadId": "t-1" }));
        add(10, "daemon.stopped", json!({}));
        shown
    }

    #[test]
    fn conversation_fits_80_and_140_columns() {
        for width in [80, 140] {
            let shown = shown(width);
            let path =
                format!("{}/src/commands/conversation/example-{width}.txt", env!("CARGO_MANIFEST_DIR"));
            if std::env::var_os("CODEXD_UPDATE_ANSWERS").is_some() {
                std::fs::write(&path, &shown).unwrap();
            }
            assert_eq!(
                shown,
                std::fs::read_to_string(&path).unwrap(),
                "CODEXD_UPDATE_ANSWERS=1 updates {path}"
            );
            assert!(shown.lines().all(|line| display_width(line) <= width), "{shown}");
        }
    }
}
