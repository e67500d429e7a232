//! Quotations in the messages of events.

use std::borrow::Cow;

/// The maximum number of characters that a message quotes.
const MAX_PREVIEW_CHARS: usize = 160;

/// The beginning of a text on one line, 160 characters at most.
pub fn preview(text: &str) -> Cow<'_, str> {
    if let Some(plain) = plain(text) {
        return Cow::Borrowed(plain);
    }
    let mut flat = String::with_capacity(text.len().min(4 * MAX_PREVIEW_CHARS));
    for part in text.split_whitespace() {
        if !flat.is_empty() {
            flat.push(' ');
        }
        flat.push_str(part);
        if flat.len() > 4 * MAX_PREVIEW_CHARS {
            break;
        }
    }
    if flat.chars().nth(MAX_PREVIEW_CHARS).is_some() {
        flat = flat.chars().take(MAX_PREVIEW_CHARS - 3).collect();
        flat.push_str("...");
    }
    Cow::Owned(flat)
}

/// The trimmed text if that is its preview, as it is for most deltas.
fn plain(text: &str) -> Option<&str> {
    let text = text.trim_matches(' ');
    let is_plain = text.len() <= MAX_PREVIEW_CHARS
        && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
        && !text.contains("  ");
    is_plain.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preview_is_one_line_of_at_most_160_characters() {
        assert_eq!(preview("  a\n\tb  c "), "a b c");
        assert_eq!(preview(" a b "), "a b");
        assert_eq!(preview("a  b"), "a b");
        assert_eq!(preview(""), "");
        assert_eq!(preview(&"é".repeat(160)), "é".repeat(160));
        let long = "é".repeat(100_000);
        assert_eq!(preview(&long), format!("{}...", "é".repeat(157)));
    }
}
