//! What a turn does and has done: for the line of progress, for the lines about commands and changes, and for the line at
//! its end.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::commands::format;
use crate::commands::items::outcome_lines;
use crate::commands::patch::{LineCounts, diff_totals, totals_text};
use crate::commands::terminal::OutputTarget;

/// What a turn does now, and what it has used and changed.
#[derive(Debug)]
pub(super) struct Activity {
    began: Instant,
    /// The items in progress: ID, description and start.
    running: Vec<(String, String, Instant)>,
    /// Whether the newest thing is a piece of a message.
    is_writing: bool,
    /// The tokens of the thread before the turn, and now.
    tokens: Option<(u64, u64)>,
    changes: (usize, LineCounts),
    cwd: Option<String>,
}

impl Activity {
    /// A turn that has just begun, in a session with this working directory.
    pub(super) fn new(cwd: Option<String>) -> Self {
        Self {
            began: Instant::now(),
            running: Vec::new(),
            is_writing: false,
            tokens: None,
            changes: (0, LineCounts::default()),
            cwd,
        }
    }

    /// The working directory of the session.
    pub(super) fn cwd(&self) -> Option<&str> {
        self.cwd.as_deref()
    }

    /// A piece of a message was received.
    pub(super) fn write(&mut self) {
        self.is_writing = true;
    }

    /// An item has begun.
    pub(super) fn start_item(&mut self, item: &Value) {
        self.is_writing = false;
        if let (Some(id), Some(text)) = (item["id"].as_str(), format::item_for_person(item)) {
            self.running.push((id.to_owned(), text, Instant::now()));
        }
    }

    /// An item has ended. Returns the lines about it.
    pub(super) fn end_item(&mut self, item: &Value, screen: &OutputTarget) -> Vec<String> {
        self.running.retain(|(id, ..)| item["id"] != **id);
        outcome_lines(item, self.cwd(), screen)
    }

    /// Takes the tokens that the thread has used so far, in Codex's form.
    pub(super) fn set_tokens(&mut self, usage: &Value) {
        let used = |part: &Value| {
            let number = |name: &str| part[name].as_u64().unwrap_or(0);
            // As Codex counts them: input that was cached costs next to nothing.
            number("inputTokens").saturating_sub(number("cachedInputTokens")) + number("outputTokens")
        };
        let total = used(&usage["total"]);
        let before =
            self.tokens.map_or_else(|| total.saturating_sub(used(&usage["last"])), |(before, _)| before);
        self.tokens = Some((before, total));
    }

    /// Takes the diff of everything that the turn has changed so far.
    pub(super) fn set_diff(&mut self, diff: &str) {
        self.changes = diff_totals(diff);
    }

    /// What happens now, and since when.
    pub(super) fn progress(&self) -> String {
        let now = match self.running.last() {
            Some((_, text, since)) => match since.elapsed() {
                time if time.as_secs() > 0 && *since > self.began + Duration::from_secs(1) => {
                    format!("{text} ({})", format::duration(time))
                }
                _ => text.clone(),
            },
            None if self.is_writing => "writing".to_owned(),
            None => "working".to_owned(),
        };
        format!("{} · {now}", format::duration(self.began.elapsed()))
    }

    /// How the turn ended, how long it took, and what it used and changed.
    pub(super) fn summary(&self, how: &str) -> String {
        let (files, counts) = self.changes;
        let tokens = self.tokens.map(|(before, now)| now.saturating_sub(before)).filter(|tokens| *tokens > 0);
        let parts = [
            Some(format!("{how} {}", format::duration(self.began.elapsed()))),
            tokens.map(|tokens| format!("{} tokens", format::grouped(tokens))),
            Some(totals_text(files, counts)).filter(|text| !text.is_empty()),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" · ")
    }
}
