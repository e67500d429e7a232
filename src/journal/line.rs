//! One event as text: rendered once, shared by the log and by every client.

use bytes::Bytes;

/// The content of a line besides its number and its time.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// `info`, `warn` or `error`.
    pub level: &'a str,
    /// The event type.
    pub event_type: &'a str,
    /// The message, one sentence.
    pub message: &'a str,
    /// The text of a JSON object; `None` is written as `null`.
    pub detail: Option<&'a str>,
}

/// The highest number that is plausible without other evidence: JSON readers count exactly up to it.
pub(super) const MAX_PLAUSIBLE_SEQ: u64 = 1 << 53;

const MESSAGE_HEAD: &[u8] = br#"{"type":"event","event":"#;
const TYPE_KEY: &[u8] = b"\"type\":\"";
const MESSAGE_TAIL: &[u8] = b"}\n";

/// The text of one event, in the WebSocket frame that clients get.
///
/// A server sends unmasked frames (RFC 6455 section 5.1), so every client gets the same bytes. Cloning shares them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The event's number.
    pub seq: u64,
    frame: Bytes,
    /// The length of the frame's header.
    header: u8,
}

impl Line {
    /// A line from JSON text that was read from the log, without its newline.
    pub(crate) fn from_json(seq: u64, json: &[u8]) -> Self {
        let length = MESSAGE_HEAD.len() + json.len() + MESSAGE_TAIL.len();
        let mut frame = Vec::with_capacity(USUAL_HEADER_BYTES + length);
        frame.extend_from_slice(&[0; USUAL_HEADER_BYTES]);
        frame.extend_from_slice(MESSAGE_HEAD);
        // Earlier versions wrote lines without this escaping.
        push_on_one_line(&mut frame, json);
        frame.extend_from_slice(MESSAGE_TAIL);
        let header = set_header(&mut frame, 0);
        Self { seq, frame: frame.into(), header }
    }

    /// The WebSocket frame of the message.
    pub fn into_websocket_frame(self) -> Bytes {
        self.frame
    }

    /// The message that clients get: `{"type":"event","event":…}` and a newline.
    pub fn message(&self) -> &[u8] {
        &self.frame[usize::from(self.header)..]
    }

    /// The event as it is in the log, without a newline.
    pub fn json(&self) -> &[u8] {
        let message = self.message();
        &message[MESSAGE_HEAD.len()..message.len() - MESSAGE_TAIL.len()]
    }

    /// The event type.
    pub fn event_type(&self) -> &[u8] {
        // It follows the number, the time and the level, which contain no quotes.
        let json = self.json();
        let start = memchr::memmem::find(json, TYPE_KEY).map_or(json.len(), |at| at + TYPE_KEY.len());
        let rest = json.get(start..).unwrap_or_default();
        rest.get(..memchr::memchr(b'"', rest).unwrap_or(0)).unwrap_or_default()
    }

    /// How many bytes the frame takes.
    pub fn len(&self) -> usize {
        self.frame.len()
    }

    /// Always false: a frame has at least its braces.
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// The length of the header of a frame whose text has 126 to 65,535 bytes, as nearly all events have.
const USUAL_HEADER_BYTES: usize = 4;

/// The header of the WebSocket frame that is a text message of `length` bytes (RFC 6455 section 5.2), and its length.
pub fn websocket_header(length: usize) -> ([u8; 10], usize) {
    /// The last frame of a text message.
    const TEXT: u8 = 0x81;
    let mut header = [TEXT, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let size = match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ 0..126), _) => {
            header[1] = length;
            2
        }
        (_, Ok(length)) => {
            header[1] = 126;
            header[2..4].copy_from_slice(&length.to_be_bytes());
            4
        }
        _ => {
            header[1] = 127;
            header[2..].copy_from_slice(&(length as u64).to_be_bytes());
            10
        }
    };
    (header, size)
}

/// Puts the header in front of the text that follows the [`USUAL_HEADER_BYTES`] at `start`; returns its length.
fn set_header(frames: &mut Vec<u8>, start: usize) -> u8 {
    let place = start..start + USUAL_HEADER_BYTES;
    let (header, size) = websocket_header(frames.len() - place.end);
    if size == USUAL_HEADER_BYTES {
        frames[place].copy_from_slice(&header[..size]);
    } else {
        frames.splice(place, header[..size].iter().copied());
    }
    size as u8
}

/// Renders a batch of lines into one block of memory.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    frames: Vec<u8>,
    /// Number, length of the header, and end of each line.
    ends: Vec<(u64, u8, usize)>,
}

/// What a line has besides its texts, at most.
const MAX_OTHER_BYTES: usize = 200;

impl Batch {
    /// An empty batch with the memory for these lines, unless much of their texts is escaped.
    pub(crate) fn for_entries<'a>(entries: impl Iterator<Item = Entry<'a>>) -> Self {
        let (mut count, mut bytes) = (0, 0);
        for entry in entries {
            count += 1;
            bytes += entry.message.len() + entry.detail.map_or(0, str::len) + MAX_OTHER_BYTES;
        }
        Self { frames: Vec::with_capacity(bytes), ends: Vec::with_capacity(count) }
    }

    /// Renders one line; `at` is its time as RFC 3339.
    pub(crate) fn push(&mut self, seq: u64, at: &str, entry: Entry<'_>) {
        let out = &mut self.frames;
        let start = out.len();
        out.extend_from_slice(&[0; USUAL_HEADER_BYTES]);
        out.extend_from_slice(MESSAGE_HEAD);
        out.extend_from_slice(b"{\"seq\":");
        push_number(out, seq);
        out.extend_from_slice(b",\"createdAt\":\"");
        out.extend_from_slice(at.as_bytes());
        out.extend_from_slice(b"\",\"level\":\"");
        out.extend_from_slice(entry.level.as_bytes());
        out.extend_from_slice(b"\",\"type\":\"");
        out.extend_from_slice(entry.event_type.as_bytes());
        out.extend_from_slice(b"\",\"message\":");
        push_string(out, entry.message);
        out.extend_from_slice(b",\"detail\":");
        push_on_one_line(out, entry.detail.unwrap_or("null").as_bytes());
        out.extend_from_slice(b"}");
        out.extend_from_slice(MESSAGE_TAIL);
        let header = set_header(out, start);
        self.ends.push((seq, header, out.len()));
    }

    /// The rendered lines, which all share one block.
    pub(crate) fn finish(self) -> Vec<Line> {
        let frames = Bytes::from(self.frames);
        let mut start = 0;
        let line = |(seq, header, end)| {
            let frame = frames.slice(start..end);
            start = end;
            Line { seq, frame, header }
        };
        self.ends.into_iter().map(line).collect()
    }
}

/// The sequence number at the beginning of a line, if it has one.
pub(crate) fn seq_of(json: &[u8]) -> Option<u64> {
    let digits = json.strip_prefix(b"{\"seq\":")?;
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(digits.get(..end)?).ok()?.parse().ok()
}

fn push_number(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn push_string(out: &mut Vec<u8>, text: &str) {
    let plain = text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\');
    if plain {
        out.push(b'"');
        push_on_one_line(out, text.as_bytes());
        out.push(b'"');
    } else {
        // A `Value` always renders, and `Display` gives its compact text.
        push_on_one_line(out, serde_json::Value::from(text).to_string().as_bytes());
    }
}

/// Appends JSON text, with every character escaped that line readers treat as a line break: U+0085 (Python), U+2028 and
/// U+2029 (Python, and `readline` of Node 24).
///
/// JSON allows these characters unescaped in strings and nowhere else, so the meaning stays the same.
pub fn push_on_one_line(out: &mut Vec<u8>, json: &[u8]) {
    let mut rest = json;
    // Each begins with one of two bytes.
    while let Some(at) = memchr::memchr2(0xC2, 0xE2, rest) {
        let (escape, length): (&[u8], usize) = match &rest[at..] {
            [0xC2, 0x85, ..] => (b"\\u0085", 2),
            [0xE2, 0x80, 0xA8, ..] => (b"\\u2028", 3),
            [0xE2, 0x80, 0xA9, ..] => (b"\\u2029", 3),
            _ => (&rest[at..=at], 1),
        };
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(escape);
        rest = &rest[at + length..];
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn websocket_frame_has_the_message_and_its_length() {
        for detail_bytes in [0, 1, 2, 100, 65_500, 65_535, 70_000] {
            let detail = format!("\"{}\"", "x".repeat(detail_bytes));
            let mut batch = Batch::default();
            for seq in 1..4 {
                batch.push(seq, "", Entry { level: "", event_type: "", message: "", detail: Some(&detail) });
            }
            for line in batch.finish() {
                let message = line.message().to_vec();
                assert!(
                    message.starts_with(br#"{"type":"event","event":{"seq":"#) && message.ends_with(b"}\n")
                );
                let length = message.len();
                let mut frame = vec![0x81];
                match length {
                    0..126 => frame.push(length as u8),
                    126..65_536 => frame.extend([&[126][..], &(length as u16).to_be_bytes()].concat()),
                    _ => frame.extend([&[127][..], &(length as u64).to_be_bytes()].concat()),
                }
                frame.extend(message);
                assert_eq!(Line::from_json(line.seq, line.json()).into_websocket_frame(), frame);
                assert_eq!(line.into_websocket_frame(), frame);
            }
        }
    }

    #[test]
    fn line_readers_never_split_a_line() {
        let text = "a\u{2028}b\u{2029}c\u{85}d \u{2027}\u{202a}\u{84}é€";
        let json = serde_json::to_string(text).unwrap();
        let mut escaped = Vec::new();
        push_on_one_line(&mut escaped, json.as_bytes());
        let escaped = String::from_utf8(escaped).unwrap();
        assert!(!escaped.contains(['\u{2028}', '\u{2029}', '\u{85}']), "{escaped}");
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);

        let mut batch = Batch::default();
        let entry = Entry { level: "info", event_type: "a.b", message: text, detail: Some(&json) };
        batch.push(1, "2026-01-02T03:04:05.678Z", entry);
        let written = batch.finish().remove(0);
        let old = format!("{{\"seq\":1,\"message\":{json}}}");
        for line in [written, Line::from_json(1, old.as_bytes())] {
            let read = std::str::from_utf8(line.json()).unwrap();
            assert!(!read.contains(['\u{2028}', '\u{2029}', '\u{85}']), "{read}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(read).unwrap()["message"], text);
        }
        // Bytes that are no character are passed on.
        let mut broken = Vec::new();
        push_on_one_line(&mut broken, b"\xC2\xE2\x80");
        assert_eq!(broken, b"\xC2\xE2\x80");
    }
}
