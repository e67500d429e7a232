//! One event as text: rendered once, shared by the log and by every client.

use bytes::Bytes;

/// The content of a line besides its number and its time.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// `info`, `warn` or `error`.
    pub level: &'a str,
    /// The event type.
    pub event_type: &'a str,
    /// The message, one sentence, in parts; UTF-8.
    pub message: [&'a [u8]; MESSAGE_PARTS],
    /// The text of a JSON value, in parts.
    pub detail: [&'a [u8]; DETAIL_PARTS],
}

/// How many parts a message has; unused ones are empty.
pub const MESSAGE_PARTS: usize = 4;
/// How many parts a detail has; unused ones are empty.
pub const DETAIL_PARTS: usize = 9;

impl<'a> Entry<'a> {
    /// An entry whose texts are not in parts; `detail` is the text of a JSON object, and `None` is written as `null`.
    pub fn new(level: &'a str, event_type: &'a str, message: &'a str, detail: Option<&'a str>) -> Self {
        let (mut message_parts, mut detail_parts) = ([&[][..]; MESSAGE_PARTS], [&[][..]; DETAIL_PARTS]);
        message_parts[0] = message.as_bytes();
        detail_parts[0] = detail.unwrap_or("null").as_bytes();
        Self { level, event_type, message: message_parts, detail: detail_parts }
    }

    /// About how many bytes its line takes in memory.
    fn len(&self) -> usize {
        let parts = self.message.iter().chain(&self.detail);
        parts.map(|part| part.len()).sum::<usize>() + MAX_OTHER_BYTES
    }
}

/// The highest number that is plausible without other evidence: JSON readers count exactly up to it.
pub(super) const MAX_PLAUSIBLE_SEQ: u64 = 1 << 53;

const MESSAGE_HEAD: &[u8] = br#"{"type":"event","event":"#;
const TYPE_KEY: &[u8] = b"\"type\":\"";
const MESSAGE_TAIL: &[u8] = b"}\n";

/// The text of one event, in the WebSocket frame that clients get.
///
/// A server sends unmasked frames (RFC 6455 section 5.1), so every client gets the same bytes. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Line {
    /// The event's number.
    pub seq: u64,
    /// Its frame and those of the lines after it that were rendered with it.
    frames: Bytes,
    /// The length of its frame.
    length: usize,
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
        Self { seq, length: frame.len(), frames: frame.into(), header }
    }

    /// The WebSocket frames of messages, as few pieces of memory as possible.
    pub fn into_websocket_frames(lines: Vec<Self>) -> impl Iterator<Item = Bytes> {
        let mut lines = lines.into_iter().peekable();
        std::iter::from_fn(move || {
            let Self { frames, mut length, .. } = lines.next()?;
            while let Some(next) = lines.next_if(|next| next.continues(&frames, length)) {
                length += next.length;
            }
            Some(frames.slice(..length))
        })
    }

    /// Whether its frame is in `frames` after `length` bytes.
    fn continues(&self, frames: &Bytes, length: usize) -> bool {
        frames.get(length..).is_some_and(|rest| {
            std::ptr::eq(rest.as_ptr(), self.frames.as_ptr()) && rest.len() >= self.length
        })
    }

    /// The message that clients get: `{"type":"event","event":…}` and a newline.
    pub fn message(&self) -> &[u8] {
        &self.frames[usize::from(self.header)..self.length]
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
        self.length
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

/// Renders a batch of lines into blocks of memory.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    lines: Vec<Line>,
    /// The frames that are not in `lines` yet.
    block: Vec<u8>,
    /// Number, length of the header, and end of each of them.
    ends: Vec<(u64, u8, usize)>,
    /// About how many bytes the lines take that are not rendered yet.
    bytes: usize,
}

/// What a line has besides its texts, at most.
const MAX_OTHER_BYTES: usize = 200;

/// How large the blocks of a long batch are. Blocks of one size leave no gaps between them when they are freed one by one,
/// and what a client has not read yet does not hold much more memory than it has bytes.
const BLOCK_BYTES: usize = 64 * 1024;

impl Batch {
    /// An empty batch for these lines.
    pub(crate) fn for_entries<'a>(entries: impl Iterator<Item = Entry<'a>>) -> Self {
        let (count, bytes) = entries.fold((0, 0), |(count, bytes), entry| (count + 1, bytes + entry.len()));
        Self { lines: Vec::with_capacity(count), block: Vec::new(), ends: Vec::new(), bytes }
    }

    /// Renders one line; `at` is its time as RFC 3339.
    pub(crate) fn push(&mut self, seq: u64, at: &str, entry: Entry<'_>) {
        let bytes = entry.len();
        if self.block.len() + bytes > self.block.capacity() {
            self.finish_block();
            self.block = Vec::with_capacity(self.bytes.min(BLOCK_BYTES).max(bytes));
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        let out = &mut self.block;
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
        out.extend_from_slice(b"\",\"message\":\"");
        for part in entry.message {
            push_escaped(out, part);
        }
        out.extend_from_slice(b"\",\"detail\":");
        for part in entry.detail {
            out.extend_from_slice(part);
        }
        out.extend_from_slice(b"}");
        // Once for all parts, because most lines have none of these characters.
        if memchr::memchr2(0xC2, 0xE2, &out[start..]).is_some() {
            let text = out.split_off(start);
            push_on_one_line(out, &text);
        }
        out.extend_from_slice(MESSAGE_TAIL);
        let header = set_header(out, start);
        self.ends.push((seq, header, out.len()));
    }

    fn finish_block(&mut self) {
        let frames = Bytes::from(std::mem::take(&mut self.block));
        let mut start = 0;
        self.lines.extend(self.ends.drain(..).map(|(seq, header, end)| {
            let line = Line { seq, frames: frames.slice(start..), length: end - start, header };
            start = end;
            line
        }));
    }

    /// The rendered lines.
    pub(crate) fn finish(mut self) -> Vec<Line> {
        self.finish_block();
        self.lines
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

/// Appends a part of a JSON string.
fn push_escaped(out: &mut Vec<u8>, text: &[u8]) {
    // Without an early end, which the compiler turns into a few vector instructions.
    let is_special = |byte: u8| (byte < 0x20) | (byte == b'"') | (byte == b'\\');
    if !text.iter().fold(false, |found, &byte| found | is_special(byte)) {
        return out.extend_from_slice(text);
    }
    // A `Value` always renders, and `Display` gives its compact text.
    let quoted = serde_json::Value::from(String::from_utf8_lossy(text)).to_string();
    out.extend_from_slice(&quoted.as_bytes()[1..quoted.len() - 1]);
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
                batch.push(seq, "", Entry::new("", "", "", Some(&detail)));
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
                let read = Line::from_json(line.seq, line.json());
                for line in [read, line] {
                    assert_eq!(Line::into_websocket_frames(vec![line]).collect::<Vec<_>>(), [&frame[..]]);
                }
            }
        }
    }

    #[test]
    fn frames_of_neighbours_are_one_piece_and_others_are_not() {
        let batch = |seqs: std::ops::Range<u64>| {
            let entries = seqs.clone().map(|_| Entry::new("", "", "x", None));
            let mut batch = Batch::for_entries(entries.clone());
            for (seq, entry) in seqs.zip(entries) {
                batch.push(seq, "", entry);
            }
            batch.finish()
        };
        let mut lines = [batch(1..4), batch(4..6)].concat();
        let frame = |line: &Line| Line::into_websocket_frames(vec![line.clone()]).next().unwrap();
        let frames: Vec<Bytes> = lines.iter().map(frame).collect();
        let pieces: Vec<Bytes> = Line::into_websocket_frames(lines.clone()).collect();
        assert_eq!(pieces, [frames[..3].concat(), frames[3..].concat()]);
        // As a filter leaves them.
        lines.remove(1);
        let pieces: Vec<Bytes> = Line::into_websocket_frames(lines).collect();
        assert_eq!(pieces, [&frames[0][..], &frames[2], &frames[3..].concat()]);
    }

    #[test]
    fn long_batch_has_blocks_of_one_size_and_every_line() {
        let message = "x".repeat(1000);
        let entries = (0..1000).map(|_| Entry::new("info", "a.b", &message, None));
        let mut batch = Batch::for_entries(entries.clone());
        for (seq, entry) in entries.enumerate() {
            batch.push(seq as u64, "", entry);
        }
        let lines = batch.finish();
        assert!(lines.iter().map(|line| line.seq).eq(0..1000));
        let frames: Vec<u8> = lines
            .iter()
            .flat_map(|line| {
                let (header, size) = websocket_header(line.message().len());
                [&header[..size], line.message()].concat()
            })
            .collect();
        let pieces: Vec<Bytes> = Line::into_websocket_frames(lines).collect();
        assert_eq!(pieces.concat(), frames);
        let (last, whole) = pieces.split_last().unwrap();
        assert!(last.len() <= BLOCK_BYTES);
        assert!(whole.iter().all(|piece| (BLOCK_BYTES - 1500..=BLOCK_BYTES).contains(&piece.len())));
    }

    #[test]
    fn texts_in_parts_are_one_text() {
        let whole = Entry::new("info", "a.b", "say \"é\"\n", Some("{\"a\":1}"));
        let mut parts = Entry::new("info", "a.b", "say ", Some("{\"a\":"));
        (parts.message[1], parts.message[3]) = ("\"é\"".as_bytes(), b"\n");
        parts.detail[8] = b"1}";
        let mut batch = Batch::default();
        for entry in [whole, parts] {
            batch.push(1, "", entry);
        }
        let lines = batch.finish();
        assert_eq!(lines[0].json(), lines[1].json());
        let event: serde_json::Value = serde_json::from_slice(lines[1].json()).unwrap();
        assert_eq!(
            (&event["message"], &event["detail"]),
            (&"say \"é\"\n".into(), &serde_json::json!({"a": 1}))
        );
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
        let entry = Entry::new("info", "a.b", text, Some(&json));
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
