//! Quotations in the messages of events.

/// The maximum number of characters that a message quotes.
const MAX_PREVIEW_CHARS: usize = 160;

/// The beginning of a text on one line, 160 characters at most.
pub fn preview(text: &str) -> String {
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
    flat
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preview_is_one_line_of_at_most_160_characters() {
        assert_eq!(preview("  a\n\tb  c "), "a b c");
        assert_eq!(preview(""), "");
        assert_eq!(preview(&"é".repeat(160)), "é".repeat(160));
        let long = preview(&"é".repeat(100_000));
        assert_eq!(long, format!("{}...", "é".repeat(157)));
    }
}
