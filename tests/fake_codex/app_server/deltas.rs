//! The deltas of a turn, and the faults between them.

use std::io::Write;

use serde_json::json;

use super::script::{End, Script};
use super::shared::Ending;
use super::turn::{Stop, TurnRunner};
use super::wire::DeltaLines;

/// The completed item keeps this many bytes of its deltas. A turn with millions of deltas then still ends in a line
/// below the limit of the reader.
const MAX_ITEM_TEXT_BYTES: usize = 1024 * 1024;

const DEFAULT_DELTA_CHARS: usize = 12;

const DELTA_PREFIXES: [&str; 12] =
    ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu"];

/// Invalid lines between deltas: not JSON, not UTF-8, not an object, not a message, and an empty line.
const INVALID_LINES: &[u8] =
    b"this is no JSON\n\xff\xfe\xfd\n[1,2,3]\n{\"neither\":\"request nor response\"}\n\n";

impl TurnRunner {
    /// Sends the deltas and returns their text.
    pub(super) fn deltas(&self, script: &Script, item_id: &str) -> Result<String, Stop> {
        let count = script.delta_count();
        let chars = script.chars.unwrap_or(DEFAULT_DELTA_CHARS);
        let mut lines = DeltaLines::new(&self.thread.id, &self.turn.id, item_id);
        let mut text = String::new();
        let mut delta = Vec::new();
        for index in 0..count {
            if index == count / 2 {
                self.inject_faults(script, &mut lines)?;
            }
            match &script.text {
                Some(delta_text) => {
                    let quoted = json!(delta_text).to_string();
                    let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
                    lines.push(inner.unwrap_or_default().as_bytes());
                    text.push_str(delta_text);
                }
                None => {
                    write_delta(&mut delta, index, chars);
                    lines.push(&delta);
                    if text.len() + delta.len() <= MAX_ITEM_TEXT_BYTES {
                        text.push_str(&String::from_utf8_lossy(&delta));
                    }
                }
            }
            if !script.delay.is_zero() {
                lines.flush(&self.shared.wire, self.is_subscribed());
                if let Some(control) = self.turn.pause(script.delay) {
                    return Err(Stop::Control(control));
                }
            } else if lines.is_full() {
                lines.flush(&self.shared.wire, self.is_subscribed());
                self.check()?;
            }
        }
        if count == 0 {
            self.inject_faults(script, &mut lines)?;
        }
        lines.flush(&self.shared.wire, self.is_subscribed());
        Ok(text)
    }

    /// Causes the faults that follow the first half of the deltas.
    fn inject_faults(&self, script: &Script, lines: &mut DeltaLines) -> Result<(), Stop> {
        let wire = &self.shared.wire;
        let has_fault = script.invalid_lines || script.long_line.is_some() || script.end.ends_process();
        if !has_fault {
            return Ok(());
        }
        lines.flush(wire, self.is_subscribed());
        if script.invalid_lines {
            wire.bytes(INVALID_LINES);
        }
        if let Some(bytes) = script.long_line {
            wire.bytes(&self.long_line(bytes));
        }
        if !script.end.ends_process() {
            return Ok(());
        }
        if script.half_line {
            wire.bytes(lines.half_line());
        }
        self.shared.end(match script.end {
            End::Crash(code) => Ending::Exit(code),
            End::Kill => Ending::Kill,
            _ => Ending::Abort,
        });
        Err(Stop::Closed)
    }

    /// A `warning` of exactly this many bytes without the newline, or an empty one if that is already longer.
    fn long_line(&self, bytes: usize) -> Vec<u8> {
        let head = format!(r#"{{"method":"warning","params":{{"threadId":"{}","message":""#, self.thread.id);
        let tail = format!("\"}},\"emittedAtMs\":{}}}", super::wire::now_ms());
        let mut line = head.into_bytes();
        line.resize(bytes.saturating_sub(tail.len()).max(line.len()), b'x');
        line.extend_from_slice(tail.as_bytes());
        line.push(b'\n');
        line
    }

    /// Closes stdin or stdout. The process continues, the turn does not.
    pub(super) fn close_pipe(&self, end: End) -> Stop {
        let stdout = end == End::CloseStdout;
        self.shared.end(if stdout { Ending::CloseStdout } else { Ending::CloseStdin });
        Stop::Closed
    }

    /// Writes this many bytes to stderr, in lines of 64.
    pub(super) fn flood_stderr(&self, bytes: usize) {
        let line = "stderr ".repeat(9);
        for _ in 0..bytes.div_ceil(line.len() + 1) {
            self.shared.log(&line);
        }
    }
}

/// Replaces `delta` by `alpha-0 ....`, padded or cut to `chars` characters.
pub(super) fn write_delta(delta: &mut Vec<u8>, index: u64, chars: usize) {
    delta.clear();
    let prefix =
        usize::try_from(index % DELTA_PREFIXES.len() as u64).ok().and_then(|index| DELTA_PREFIXES.get(index));
    delta.extend_from_slice(prefix.copied().unwrap_or_default().as_bytes());
    delta.push(b'-');
    // A write to a vector never fails.
    let _ = write!(delta, "{index} ");
    delta.resize(chars.max(1), b'.');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_delta_pads_and_cuts_to_the_requested_width() {
        let mut delta = Vec::new();
        write_delta(&mut delta, 0, 12);
        assert_eq!(delta, b"alpha-0 ....");
        write_delta(&mut delta, 13, 3);
        assert_eq!(delta, b"bet");
        write_delta(&mut delta, 4, 0);
        assert_eq!(delta, b"e");
    }
}
