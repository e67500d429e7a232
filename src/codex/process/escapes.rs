//! Removes terminal escape sequences from the output of a process.
//!
//! Codex colours its log even when stderr is a pipe (measured on 0.130.0 to 0.171.0).
//! `stderr.log` stays raw; events, state files and errors hold plain text.

/// Removes escape sequences (ECMA-48) and control characters from a text that arrives in pieces.
#[derive(Debug, Default)]
pub struct EscapeFilter {
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// After ESC and an intermediate character, as in `ESC ( B`.
    Intermediate,
    /// In a control sequence, such as a colour: `ESC [ … m`.
    Control,
    /// In a control string, such as a window title: `ESC ] … BEL` or `ESC ] … ESC \`.
    String,
}

impl EscapeFilter {
    /// The next piece without escape sequences, including those that began in an earlier piece.
    ///
    /// Newlines and tabs stay; all other control characters are removed.
    pub fn strip(&mut self, piece: &str) -> String {
        piece.chars().filter(|&character| self.is_text(character)).collect()
    }

    fn is_text(&mut self, character: char) -> bool {
        use State::{Control, Escape, Intermediate, String, Text};
        let before = self.state;
        self.state = match (before, character) {
            (_, '\u{1b}') => Escape,
            // No sequence continues after a newline, so an unfinished one hides at most one line.
            (_, '\n') => Text,
            (Text | String, '\u{9b}') => Control,
            (Text, '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}') => String,
            (Text, _) => Text,
            (Escape, '[') => Control,
            (Escape, ']' | 'P' | 'X' | '^' | '_') => String,
            (Escape | Intermediate, ' '..='/') => Intermediate,
            (Escape | Intermediate, _) => Text,
            (Control, '@'..='~') => Text,
            (Control, _) => Control,
            (String, '\u{7}' | '\u{9c}') => Text,
            (String, _) => String,
        };
        match character {
            '\n' => true,
            '\t' => before == Text,
            _ => before == Text && self.state == Text && !character.is_control(),
        }
    }
}

/// A whole text without escape sequences.
pub(crate) fn plain(text: &str) -> String {
    EscapeFilter::default().strip(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escape_filter_removes_sequences_and_keeps_text() {
        for (text, expected) in [
            ("\u{1b}[2m2026\u{1b}[0m \u{1b}[31mERROR\u{1b}[0m x", "2026 ERROR x"),
            ("a\u{1b}]52;c;aGk=\u{7}b", "ab"),
            ("a\u{1b}]0;title\u{1b}\\b", "ab"),
            ("a\u{1b}(Bb\u{1b}7c", "abc"),
            ("a\u{9b}31mb", "ab"),
            ("unfinished \u{1b}]52;c;\nnext", "unfinished \nnext"),
            ("a\r\nb\tc\u{8}\u{0}", "a\nb\tc"),
            ("é ☃", "é ☃"),
        ] {
            assert_eq!(plain(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn escape_filter_result_is_independent_of_chunk_boundaries(
            text in "([a-c\u{1b}\\[\\]m;1\n\t\u{7}\u{9b}\u{9d}(B]|é){0,40}",
            at in any::<prop::sample::Index>(),
        ) {
            let places: Vec<usize> = text.char_indices().map(|(place, _)| place).chain([text.len()]).collect();
            let (first, second) = text.split_at(*at.get(&places));
            let mut filter = EscapeFilter::default();
            let pieces = filter.strip(first) + &filter.strip(second);
            prop_assert_eq!(&pieces, &plain(&text));
            let is_left = pieces.contains(['\u{1b}', '\u{9b}', '\u{7}']);
            prop_assert!(!is_left, "a part of a sequence is left");
        }
    }
}
