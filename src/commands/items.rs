//! The lines about what Codex did: commands, changes of files, tools and searches.

use std::time::Duration;

use serde_json::Value;

use super::format;
use super::patch::FileChange;
use super::terminal::{BAD, FAINT, OutputTarget, display_width, sanitize_for_terminal, truncate_end};
use crate::codex::protocol::items;

/// The lines about an item that has ended: one for a command, a tool or a search, and one for each file of a patch. Each
/// has the outcome, and fits the width of the output.
pub(crate) fn outcome_lines(item: &Value, cwd: Option<&str>, screen: &OutputTarget) -> Vec<String> {
    let outcome = format::item_outcome(item);
    let time = item["durationMs"].as_u64().map(Duration::from_millis);
    let time = time.filter(|time| time.as_secs() > 0).map(format::duration);
    let suffix: String = outcome.iter().chain(&time).map(|part| format!(" · {part}")).collect();
    let texts = match item["type"].as_str() {
        Some(items::FILE_CHANGE) => {
            FileChange::all(&item["changes"]).iter().map(|change| change.summary(cwd)).collect()
        }
        _ => Vec::from_iter(format::item_for_person(item)),
    };
    let (mark, style) = if outcome.is_some() { ("✗", BAD) } else { ("✓", FAINT) };
    let width = screen.width.unwrap_or(usize::MAX).saturating_sub(2 + display_width(&suffix));
    let line = |text: &String| {
        let text = truncate_end(&sanitize_for_terminal(text), width);
        screen.paint(style, &format!("{mark} {text}{suffix}"))
    };
    texts.iter().map(line).collect()
}
