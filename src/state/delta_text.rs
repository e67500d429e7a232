//! [`DeltaText`]: the texts of the event of a piece of an answer.
//!
//! Most events are these, so nothing of them is copied before they are written: the text stays in the block that was read
//! from the app-server.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;

use super::events::preview;
use crate::codex::protocol::delta::Delta;

/// The message and the detail of the event of a piece of an answer.
#[derive(Debug, Clone)]
pub struct DeltaText {
    /// The message of the app-server.
    line: Bytes,
    /// Where its parts are, in JSON.
    delta: Range<u32>,
    item_id: Range<u32>,
    thread_id: Range<u32>,
    turn_id: Range<u32>,
    quotation: Quotation,
}

/// What the message of the event quotes.
#[derive(Debug, Clone)]
enum Quotation {
    /// This part of the line.
    Part(Range<u32>),
    /// Another text, because something is escaped, or not on one line, or long.
    Other(Box<str>),
}

impl DeltaText {
    /// The texts for a delta that was read from `line`; `None` for one that needs other texts: not all its parts are
    /// strings, or the ID of its turn has escapes.
    pub fn new(line: &Bytes, parts: &Delta<'_>) -> Option<Self> {
        let range = |part: &str| range_in(line, part);
        let quotation = match unescaped(parts.delta)? {
            Cow::Borrowed(text) => match preview(text) {
                Cow::Borrowed(quoted) => Quotation::Part(range(quoted)?),
                Cow::Owned(quoted) => Quotation::Other(quoted.into()),
            },
            Cow::Owned(text) => Quotation::Other(preview(&text).into()),
        };
        let Cow::Borrowed(_) = unescaped(parts.turn_id)? else { return None };
        Some(Self {
            delta: range(parts.delta)?,
            item_id: range(parts.item_id)?,
            thread_id: range(parts.thread_id)?,
            turn_id: range(parts.turn_id)?,
            quotation,
            line: line.clone(),
        })
    }

    /// The message, in parts.
    pub fn message(&self) -> [&[u8]; 4] {
        let turn_id = self.part(&self.turn_id);
        let quoted = match &self.quotation {
            Quotation::Part(range) => self.part(range),
            Quotation::Other(text) => text.as_bytes(),
        };
        // Without its quotes.
        let turn_id = turn_id.get(1..turn_id.len().saturating_sub(1)).unwrap_or_default();
        [b"App-server emitted delta for turn ", turn_id, b": ", quoted]
    }

    /// The text of the detail, in parts; those of the app-server exactly as they came.
    pub fn detail(&self) -> [&[u8]; 9] {
        let [delta, item_id, thread_id, turn_id] =
            [&self.delta, &self.item_id, &self.thread_id, &self.turn_id].map(|range| self.part(range));
        detail_parts(delta, item_id, thread_id, turn_id)
    }

    /// The length of the message of the app-server, in bytes.
    pub fn line_len(&self) -> usize {
        self.line.len()
    }

    fn part(&self, range: &Range<u32>) -> &[u8] {
        self.line.get(range.start as usize..range.end as usize).unwrap_or_default()
    }
}

/// The text of the detail of a delta, in parts, from the JSON of its values.
pub fn detail_parts<'a>(
    delta: &'a [u8],
    item_id: &'a [u8],
    thread_id: &'a [u8],
    turn_id: &'a [u8],
) -> [&'a [u8]; 9] {
    [
        b"{\"delta\":",
        delta,
        b",\"itemId\":",
        item_id,
        b",\"threadId\":",
        thread_id,
        b",\"turnId\":",
        turn_id,
        b"}",
    ]
}

/// Where a part of a line is in it; `None` when it is not, or the line is longer than 4 GiB.
fn range_in(line: &[u8], part: &str) -> Option<Range<u32>> {
    let start = (part.as_ptr() as usize).checked_sub(line.as_ptr() as usize)?;
    let end = start + part.len();
    (end <= line.len()).then_some(u32::try_from(start).ok()?..u32::try_from(end).ok()?)
}

/// A JSON string's text, without a copy when nothing in it is escaped.
pub fn unescaped(json: &str) -> Option<Cow<'_, str>> {
    let quoted = json.strip_prefix('"')?.strip_suffix('"')?;
    if quoted.contains('\\') {
        return serde_json::from_str::<String>(json).ok().map(Into::into);
    }
    Some(quoted.into())
}
