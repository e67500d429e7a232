//! The deltas of a turn, and the faults injected between them.

use std::io::Write;

use serde_json::json;

use super::script::{End, Script};
use super::shared::Ending;
use super::turn::{Play, Stop};
use super::wire::DeltaLines;

/// The message of an item keeps this many bytes of its deltas, so that a turn with millions of them ends in
/// a line that a reader with a limit still takes.
const TEXT_BYTES: usize = 1024 * 1024;

const DEFAULT_CHARS: usize = 12;

const WORDS: [&str; 12] =
    ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu"];

/// Invalid lines between deltas: not JSON, not UTF-8, not an object, not a message, and an empty line.
const GARBAGE: &[u8] = b"this is no JSON\n\xff\xfe\xfd\n[1,2,3]\n{\"neither\":\"request nor answer\"}\n\n";

impl Play {
    /// Sends the deltas and returns their text.
    pub(super) fn deltas(&self, script: &Script, item_id: &str) -> Result<String, Stop> {
        let count = script.delta_count();
        let chars = script.chars.unwrap_or(DEFAULT_CHARS);
        let mut lines = DeltaLines::new(&self.thread.id, &self.turn.id, item_id);
        let mut text = String::new();
        let mut delta = Vec::new();
        for index in 0..count {
            if index == count / 2 {
                self.middle(script, &mut lines)?;
            }
            match &script.text {
                Some(word) => {
                    let quoted = json!(word).to_string();
                    let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
                    lines.push(inner.unwrap_or_default().as_bytes());
                    text.push_str(word);
                }
                None => {
                    write_delta(&mut delta, index, chars);
                    lines.push(&delta);
                    if text.len() + delta.len() <= TEXT_BYTES {
                        text.push_str(&String::from_utf8_lossy(&delta));
                    }
                }
            }
            if !script.delay.is_zero() {
                lines.flush(&self.shared.wire, self.is_heard());
                if let Some(call) = self.turn.pause(script.delay) {
                    return Err(Stop::Call(call));
                }
            } else if lines.is_full() {
                lines.flush(&self.shared.wire, self.is_heard());
                self.check()?;
            }
        }
        if count == 0 {
            self.middle(script, &mut lines)?;
        }
        lines.flush(&self.shared.wire, self.is_heard());
        Ok(text)
    }

    /// The faults after the first half of the deltas.
    fn middle(&self, script: &Script, lines: &mut DeltaLines) -> Result<(), Stop> {
        let wire = &self.shared.wire;
        let special = script.garbage || script.long_line.is_some() || script.end.ends_process();
        if !special {
            return Ok(());
        }
        lines.flush(wire, self.is_heard());
        if script.garbage {
            wire.bytes(GARBAGE);
        }
        if let Some(bytes) = script.long_line {
            wire.bytes(&self.long_line(bytes));
        }
        if !script.end.ends_process() {
            return Ok(());
        }
        if script.half_line {
            wire.bytes(lines.half());
        }
        self.shared.end(match script.end {
            End::Crash(code) => Ending::Exit(code),
            End::Kill => Ending::Kill,
            _ => Ending::Abort,
        });
        Err(Stop::Gone)
    }

    /// A `warning` of exactly this many bytes without the newline, unless an empty one is already longer.
    fn long_line(&self, bytes: usize) -> Vec<u8> {
        let head = format!(r#"{{"method":"warning","params":{{"threadId":"{}","message":""#, self.thread.id);
        let tail = format!("\"}},\"emittedAtMs\":{}}}", super::wire::now_ms());
        let mut line = head.into_bytes();
        line.resize(bytes.saturating_sub(tail.len()).max(line.len()), b'x');
        line.extend_from_slice(tail.as_bytes());
        line.push(b'\n');
        line
    }

    /// Closes stdin or stdout; the process goes on without this turn.
    pub(super) fn close_pipe(&self, end: End) -> Stop {
        let stdout = end == End::CloseStdout;
        self.shared.end(if stdout { Ending::CloseStdout } else { Ending::CloseStdin });
        Stop::Gone
    }

    /// Writes this many bytes to stderr, in lines of 64.
    pub(super) fn flood_stderr(&self, bytes: usize) {
        let line = "stderr ".repeat(9);
        for _ in 0..bytes.div_ceil(line.len() + 1) {
            self.shared.log(&line);
        }
    }
}

/// Writes `alpha-0 ....`, of `chars` characters, into the emptied `delta`.
pub(super) fn write_delta(delta: &mut Vec<u8>, index: u64, chars: usize) {
    delta.clear();
    let word = usize::try_from(index % WORDS.len() as u64).ok().and_then(|index| WORDS.get(index));
    delta.extend_from_slice(word.copied().unwrap_or_default().as_bytes());
    delta.push(b'-');
    // A write to a vector never fails.
    let _ = write!(delta, "{index} ");
    delta.resize(chars.max(1), b'.');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deltas_are_as_wide_as_asked() {
        let mut delta = Vec::new();
        write_delta(&mut delta, 0, 12);
        assert_eq!(delta, b"alpha-0 ....");
        write_delta(&mut delta, 13, 3);
        assert_eq!(delta, b"bet");
        write_delta(&mut delta, 4, 0);
        assert_eq!(delta, b"e");
    }
}
