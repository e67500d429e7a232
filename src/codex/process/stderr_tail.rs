//! The last lines of a process's stderr, shown after it failed.

use std::collections::VecDeque;

use super::escapes;
use crate::codex::redact::redact;

/// Precedes the error line of stderr in the reason of a termination; Codex health splits the reason here.
pub(crate) const ERROR_OUTPUT_LABEL: &str = "Error output: ";

/// How many lines are kept.
const MAX_LINES: usize = 20;
/// How many bytes of text are kept.
const MAX_BYTES: usize = 4 * 1024;

/// The line that explains the failure.
///
/// The last line that names an error; without one, the message of a panic; without that, the last line.
/// Lines of a log are skipped: with a timestamp in front, they describe what happened while the process worked, such as
/// a missing optional program.
pub(crate) fn error_line(lines: &[String]) -> Option<&str> {
    let starts_with = |line: &str, prefix: &str| {
        line.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    // After its error, a program may print where in its code that happened.
    let is_error = |line: &&String| ["error", "fatal"].iter().any(|prefix| starts_with(line, prefix));
    let is_panic = |line: &String| starts_with(line, "thread '") && line.contains("panicked at");
    let panic = || lines.iter().rposition(is_panic).and_then(|at| lines.get(at + 1));
    let other = || lines.iter().rev().find(|line| !is_log_line(line));
    lines.iter().rev().find(is_error).or_else(panic).or_else(other).map(String::as_str)
}

/// Whether a line begins with a timestamp, such as `2026-11-28T15:25:20.634886Z`.
fn is_log_line(line: &str) -> bool {
    let pattern = "0000-00-00T00:00:00";
    line.len() > pattern.len()
        && line.chars().zip(pattern.chars()).all(|(found, expected)| match expected {
            '0' => found.is_ascii_digit(),
            _ => found == expected,
        })
}

/// The last lines of a stream, secrets redacted.
#[derive(Debug, Default)]
pub(crate) struct StderrTail {
    lines: VecDeque<String>,
    /// The unfinished line; only its beginning when it is long, because a secret without its beginning cannot be
    /// recognised.
    partial: Vec<u8>,
}

impl StderrTail {
    /// Adds the next bytes of the stream, split anywhere.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        let mut pieces = bytes.split(|&byte| byte == b'\n');
        // The last piece has no newline after it.
        let last = pieces.next_back().unwrap_or_default();
        for piece in pieces {
            self.extend(piece);
            let line = std::mem::take(&mut self.partial);
            self.keep(&line);
        }
        self.extend(last);
    }

    /// The lines, oldest first; an unfinished last line counts.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut whole = Self { lines: self.lines.clone(), partial: Vec::new() };
        whole.keep(&self.partial);
        whole.lines.into()
    }

    fn extend(&mut self, piece: &[u8]) {
        let length = MAX_BYTES.saturating_sub(self.partial.len()).min(piece.len());
        self.partial.extend_from_slice(&piece[..length]);
    }

    fn keep(&mut self, line: &[u8]) {
        // An escape sequence in the middle of a secret would hide it from redaction.
        let text = redact(escapes::plain(&String::from_utf8_lossy(line)).trim_end());
        if text.is_empty() {
            return;
        }
        // Replacement characters are longer than the invalid bytes that they replace.
        let end =
            text.char_indices().map(|(start, c)| start + c.len_utf8()).take_while(|&end| end <= MAX_BYTES);
        let end = end.last().unwrap_or(0);
        self.lines.push_back(text.get(..end).unwrap_or_default().to_owned());
        while self.lines.len() > MAX_LINES || self.lines.iter().map(String::len).sum::<usize>() > MAX_BYTES {
            self.lines.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tail_of(bytes: &[u8]) -> Vec<String> {
        let mut tail = StderrTail::default();
        tail.take(bytes);
        tail.lines()
    }

    #[test]
    fn stderr_tail_keeps_the_last_lines() {
        let text: String = (0..100).map(|number| format!("line {number}\r\n\n")).collect();
        let expected: Vec<_> =
            (81..100).map(|number| format!("line {number}")).chain(["end".to_owned()]).collect();
        assert_eq!(tail_of(format!("{text}end").as_bytes()), expected);
        assert_eq!(tail_of(b""), [""; 0]);
    }

    #[test]
    fn error_line_is_found_in_stderr() {
        let log = "2026-11-28T15:25:20.634886Z ERROR codex_app_server: no bubblewrap";
        for (lines, expected) in [
            (["WARNING: ?", "Error: no such setting", "Stack backtrace: 0: <unknown>"].as_slice(), Some(1)),
            (&["error: first", "ERROR second", "a word"], Some(1)),
            (&["one", "éé"], Some(1)),
            (
                &["thread 'main' panicked at src/main.rs:1:2:", "broken", "note: run with RUST_BACKTRACE=1"],
                Some(1),
            ),
            (&["usage: codex", log], Some(0)),
            (&[log], None),
            (&[], None),
        ] {
            let lines: Vec<String> = lines.iter().map(|&line| line.to_owned()).collect();
            assert_eq!(error_line(&lines), expected.map(|place| lines[place].as_str()));
        }
    }

    #[test]
    fn stderr_tail_truncates_long_line_at_a_character_boundary() {
        let lines = tail_of("é".repeat(5000).as_bytes());
        assert_eq!(lines.len(), 1);
        assert!(lines[0].len() <= MAX_BYTES && lines[0].len() > MAX_BYTES - 4 && lines[0].starts_with("éé"));
        let lines = tail_of(&[0xff; 5000]);
        assert!(lines[0].len() <= MAX_BYTES && lines[0].ends_with('\u{fffd}'));
    }

    #[test]
    fn stderr_tail_removes_colors_before_redaction() {
        assert_eq!(tail_of(b"\x1b[31mERROR\x1b[0m x\n\x1b[0m\n"), ["ERROR x"]);
        assert_eq!(tail_of(b"key sk-abcd\x1b[0mefghijklmnop\n"), ["key sk-***"]);
    }

    #[test]
    fn stderr_tail_redacts_secrets_split_at_any_byte() {
        let text = b"before\nkey sk-abcdefghijklmnop and Bearer abcdefghijkl\n";
        for cut in 0..text.len() {
            let mut tail = StderrTail::default();
            tail.take(&text[..cut]);
            tail.take(&text[cut..]);
            assert_eq!(tail.lines(), ["before", "key sk-*** and Bearer ***"]);
        }
    }

    proptest! {
        #[test]
        fn stderr_tail_is_bounded_for_any_input(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9000), 0..6)) {
            let mut tail = StderrTail::default();
            for block in &blocks {
                tail.take(block);
                let lines = tail.lines();
                prop_assert!(lines.len() <= MAX_LINES);
                prop_assert!(lines.iter().map(String::len).sum::<usize>() <= MAX_BYTES);
            }
        }
    }
}
