//! The title of a session: the name that its thread has in Codex, else the first words of its first message.

use std::sync::Arc;

/// How many characters a title has at most that is made of a message.
const MAX_WORDS_CHARS: usize = 60;
/// How many characters a title has at most.
pub const MAX_TITLE_CHARS: usize = 200;

/// The title of a thread with this name in Codex; `None` when that is empty.
pub fn title_of_name(name: &str) -> Option<Arc<str>> {
    one_line(name, MAX_TITLE_CHARS)
}

/// The title of a thread that has no name and begins with this text; `None` when that is empty.
pub fn title_of_message(text: &str) -> Option<Arc<str>> {
    one_line(text, MAX_WORDS_CHARS)
}

/// The words of a text on one line, cut after a word where they are longer than `max` characters.
fn one_line(text: &str, max: usize) -> Option<Arc<str>> {
    let mut title = String::new();
    let mut chars = 0;
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        let length = word.chars().count();
        let space = usize::from(chars > 0);
        if chars + space + length <= max {
            title.push_str(if chars > 0 { " " } else { "" });
            title.push_str(word);
            chars += space + length;
            continue;
        }
        if chars == 0 {
            // One character is left for the ellipsis.
            title.extend(word.chars().take(max - 1));
        }
        while title.chars().count() >= max {
            title.pop();
        }
        title.push('…');
        break;
    }
    (!title.is_empty()).then(|| title.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn title_is_one_line_and_ends_with_a_word() {
        let of = |text: &str| title_of_message(text).map(|title| title.to_string());
        assert_eq!(of(" Mend\tthe \n\n build\u{7}\u{2028} ").as_deref(), Some("Mend the build"));
        assert_eq!(of(" \n"), None);
        let exact = "a".repeat(MAX_WORDS_CHARS);
        assert_eq!(of(&exact), Some(exact.clone()));
        let cut = of(&format!("{exact}b")).unwrap();
        assert_eq!((cut.chars().count(), cut.ends_with("a…")), (MAX_WORDS_CHARS, true));
        let words = "würde ".repeat(20);
        let cut = of(&words).unwrap();
        assert!(cut.chars().count() <= MAX_WORDS_CHARS && cut.ends_with("würde…"), "{cut}");
        // A word that fills the line leaves its last character to the ellipsis.
        let cut = of(&format!("{exact} more")).unwrap();
        assert_eq!((cut.chars().count(), cut.ends_with("a…")), (MAX_WORDS_CHARS, true));
    }
}
