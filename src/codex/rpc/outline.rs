//! The outline of a message that is too long to keep: its IDs and method, found while its bytes pass.

use serde_json::value::RawValue;

use crate::ids::{ThreadId, TurnId};

/// The depth of the values that are searched for: `params.item.id` is at 3.
const MAX_DEPTH: usize = 3;
/// The longest value that is kept; IDs and methods are far shorter.
const MAX_PART_BYTES: usize = 1024;

/// What is known about a message that was skipped; a field is `None` when the message does not have it.
#[derive(Debug, Default, Clone)]
pub struct Outline {
    /// The ID of a request, or of the call that a response belongs to.
    pub id: Option<Box<RawValue>>,
    /// The method of a request or notification.
    pub method: Option<String>,
    /// The ID of its thread.
    pub thread_id: Option<ThreadId>,
    /// The ID of its turn.
    pub turn_id: Option<TurnId>,
    /// The ID of its item.
    pub item_id: Option<String>,
    /// The type of its item, as the app-server names it.
    pub item_type: Option<String>,
    /// The final status of its turn, as the app-server names it.
    pub turn_status: Option<String>,
    /// Whether the message is complete JSON as far as it was checked.
    pub is_whole: bool,
}

impl Outline {
    /// The ID of the call that it responds to, if it is a response.
    pub(crate) fn response_to(&self) -> Option<u64> {
        if self.method.is_some() { None } else { self.id.as_ref()?.get().parse().ok() }
    }

    fn take(&mut self, path: &[Vec<u8>], value: &[u8]) {
        let path: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
        let text = || serde_json::from_slice::<String>(value).ok();
        match path.as_slice() {
            [b"id"] => self.id = serde_json::from_slice(value).ok(),
            [b"method"] => self.method = text(),
            [b"params", b"threadId" | b"conversationId"] => self.thread_id = text().map(ThreadId::new),
            [b"params", b"turnId"] | [b"params", b"turn", b"id"] => self.turn_id = text().map(TurnId::new),
            [b"params", b"itemId" | b"callId"] | [b"params", b"item", b"id"] => self.item_id = text(),
            [b"params", b"item", b"type"] => self.item_type = text(),
            [b"params", b"turn", b"status"] => self.turn_status = text(),
            _ => {}
        }
    }
}

/// Reads a message piece by piece; keeps at most [`MAX_DEPTH`] names and one value.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    outline: Outline,
    depth: usize,
    /// Whether each open container down to [`MAX_DEPTH`] is an object.
    objects: Vec<bool>,
    /// The newest key of each of these.
    path: Vec<Vec<u8>>,
    /// Whether the next value is a key.
    expects_key: bool,
    in_string: bool,
    escaped: bool,
    /// The value that is being read; empty when there is none or it is too deep.
    part: Vec<u8>,
}

impl Scanner {
    /// Reads the next bytes of the message.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            // Nearly all of a long message is inside strings that are not kept.
            if self.in_string && !self.escaped && !self.keeps() {
                let end = memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
                rest = &rest[end..];
            }
            if let Some((&byte, after)) = rest.split_first() {
                self.step(byte);
                rest = after;
            }
        }
    }

    /// What is known so far.
    pub(crate) fn outline(&self) -> &Outline {
        &self.outline
    }

    /// What is known at the end of the message.
    pub(crate) fn finish(mut self) -> Outline {
        self.outline.is_whole = self.depth == 0 && !self.in_string && self.outline.is_whole;
        self.outline
    }

    fn step(&mut self, byte: u8) {
        if self.in_string {
            self.keep(byte);
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => {
                    self.in_string = false;
                    self.end_part();
                }
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => {
                self.in_string = true;
                self.part.clear();
                self.keep(byte);
            }
            b'{' | b'[' => self.open(byte == b'{'),
            b'}' | b']' => {
                self.end_part();
                self.close();
            }
            b',' => {
                self.end_part();
                self.expects_key = self.objects.last().copied().unwrap_or(false);
            }
            b':' => self.expects_key = false,
            _ if byte.is_ascii_whitespace() => {}
            _ => self.keep(byte),
        }
    }

    fn keeps(&self) -> bool {
        self.depth <= MAX_DEPTH && self.part.len() <= MAX_PART_BYTES
    }

    fn keep(&mut self, byte: u8) {
        if self.keeps() {
            self.part.push(byte);
        }
    }

    fn open(&mut self, is_object: bool) {
        self.part.clear();
        self.depth += 1;
        if self.depth <= MAX_DEPTH {
            self.objects.push(is_object);
            self.path.push(Vec::new());
            self.expects_key = is_object;
        }
    }

    fn close(&mut self) {
        // The outermost container is an object and ends once.
        self.outline.is_whole = self.depth == 1 && self.objects == [true];
        if self.depth <= MAX_DEPTH {
            self.objects.pop();
            self.path.pop();
        }
        self.depth = self.depth.saturating_sub(1);
        self.expects_key = false;
    }

    /// Handles the end of a string or of another value.
    fn end_part(&mut self) {
        let part = std::mem::take(&mut self.part);
        let is_too_long = part.len() > MAX_PART_BYTES;
        if part.is_empty() || self.depth > MAX_DEPTH || !self.objects.last().copied().unwrap_or(false) {
            return;
        }
        if self.expects_key {
            let key = serde_json::from_slice::<String>(&part).unwrap_or_default();
            if let Some(newest) = self.path.last_mut() {
                *newest = if is_too_long { Vec::new() } else { key.into_bytes() };
            }
            self.expects_key = false;
        } else if !is_too_long {
            self.outline.take(&self.path, &part);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn outline_of(message: &str, piece: usize) -> Outline {
        let mut scanner = Scanner::default();
        for piece in message.as_bytes().chunks(piece) {
            scanner.feed(piece);
        }
        scanner.finish()
    }

    #[test]
    fn outline_finds_the_request_id_at_any_position() {
        let long = "x\"\\{[,:".repeat(5000);
        let params = json!({
            "command": long, "deep": [{"threadId": "no", "id": 9}, [["params"]]], "threadId": "t", "turnId": "u",
            "itemId": "i", "more": {"threadId": "no", "item": {"id": "no"}}, "none": null,
        });
        let method = "item/commandExecution/requestApproval";
        for message in [
            format!("{{\"method\":\"{method}\",\"id\":\"a-1\",\"params\":{params}}}"),
            format!("{{ \"params\" : {params} ,\"method\":\t\"{method}\" , \"id\" : \"a-1\" }}"),
        ] {
            for piece in [1, 7, message.len()] {
                let outline = outline_of(&message, piece);
                assert_eq!(outline.id.as_ref().map(|id| id.get()), Some("\"a-1\""));
                assert_eq!(outline.method.as_deref(), Some(method));
                assert_eq!(outline.thread_id, Some("t".into()));
                assert_eq!(outline.turn_id, Some("u".into()));
                assert_eq!(outline.item_id.as_deref(), Some("i"));
                assert!(outline.is_whole && outline.response_to().is_none());
            }
        }
    }

    #[test]
    fn outline_recognizes_item_turn_and_response() {
        let item = json!({"method": "item/completed", "params": {
            "item": {"type": "agentMessage", "id": "i", "text": "x"}, "threadId": "t", "turnId": "u",
        }});
        let outline = outline_of(&item.to_string(), 3);
        assert_eq!((outline.item_id.as_deref(), outline.turn_id), (Some("i"), Some("u".into())));
        assert_eq!(outline.item_type.as_deref(), Some("agentMessage"));
        let turn = json!({"method": "turn/completed", "params": {
            "threadId": "t", "turn": {"id": "u", "items": [{"id": "no", "status": "no"}], "status": "completed"},
        }});
        let outline = outline_of(&turn.to_string(), 3);
        assert_eq!((outline.turn_id, outline.turn_status.as_deref()), (Some("u".into()), Some("completed")));
        assert_eq!(outline_of("{\"id\":17,\"result\":{\"id\":3}}", 2).response_to(), Some(17));
    }

    #[test]
    fn outline_of_invalid_or_truncated_text_is_not_whole() {
        for text in ["", "[]", "garbage", "{\"id\":1", "{\"id\":\"1", "{\"id\":1}}", "[{\"id\":1}]"] {
            let outline = outline_of(text, 1);
            assert!(!outline.is_whole, "{text}: {outline:?}");
        }
        assert_eq!(outline_of("[{\"id\":1,\"method\":\"m\"}]", 1).method, None);
    }

    proptest! {
        #[test]
        fn outline_finds_fields_between_any_text(before in ".{0,200}", after in ".{0,200}", piece in 1..40usize) {
            let message = json!({
                "aa": [before, {"method": "no"}], "id": 5, "method": after.clone(), "params": {"x": after, "turnId": "u"},
            });
            let outline = outline_of(&message.to_string(), piece);
            prop_assert_eq!(outline.id.as_ref().map(|id| id.get()), Some("5"));
            prop_assert_eq!(outline.method.map(Value::from), Some(message["method"].clone()));
            prop_assert_eq!(outline.turn_id, Some("u".into()));
            prop_assert!(outline.is_whole);
        }

        #[test]
        fn outline_scanner_accepts_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut scanner = Scanner::default();
            scanner.feed(&bytes);
            scanner.finish();
        }
    }
}
