//! What a message is that is too long to be kept: found while its bytes pass, without keeping them.

use serde_json::value::RawValue;

/// How deep the parts lie that are looked for: `params.item.id` is at 3.
const DEPTH: usize = 3;
/// The longest part that is kept, in bytes; ids and methods are far shorter.
const PART: usize = 1024;

/// What is known of a message of which the rest was skipped; a part is `None` where the message does not have it.
#[derive(Debug, Default, Clone)]
pub struct Outline {
    /// The id of a request, or of the call that is answered.
    pub id: Option<Box<RawValue>>,
    /// What is asked, or what happened.
    pub method: Option<String>,
    /// The thread it is about.
    pub thread_id: Option<String>,
    /// The turn it is about.
    pub turn_id: Option<String>,
    /// The item it is about.
    pub item_id: Option<String>,
    /// What kind of item it is about, in the app-server's words.
    pub item_type: Option<String>,
    /// How the turn it is about ended, in the app-server's words.
    pub turn_status: Option<String>,
    /// Whether the message is whole JSON as far as it was looked at.
    pub is_whole: bool,
}

impl Outline {
    /// The number of the call that it answers, if it is an answer.
    pub(crate) fn answers(&self) -> Option<u64> {
        if self.method.is_some() { None } else { self.id.as_ref()?.get().parse().ok() }
    }

    fn take(&mut self, path: &[Vec<u8>], value: &[u8]) {
        let path: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
        let text = || serde_json::from_slice::<String>(value).ok();
        match path.as_slice() {
            [b"id"] => self.id = serde_json::from_slice(value).ok(),
            [b"method"] => self.method = text(),
            [b"params", b"threadId" | b"conversationId"] => self.thread_id = text(),
            [b"params", b"turnId"] | [b"params", b"turn", b"id"] => self.turn_id = text(),
            [b"params", b"itemId" | b"callId"] | [b"params", b"item", b"id"] => self.item_id = text(),
            [b"params", b"item", b"type"] => self.item_type = text(),
            [b"params", b"turn", b"status"] => self.turn_status = text(),
            _ => {}
        }
    }
}

/// Reads a message piece by piece; it keeps as much as [`DEPTH`] names and one part.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    outline: Outline,
    depth: usize,
    /// The kind of each open container down to [`DEPTH`]: whether it is an object.
    objects: Vec<bool>,
    /// The newest key of each of these.
    path: Vec<Vec<u8>>,
    /// Whether the next part is a key.
    wants_key: bool,
    in_string: bool,
    escaped: bool,
    /// The part that is being read; empty where there is none or where it is too deep to matter.
    part: Vec<u8>,
}

impl Scanner {
    /// Takes the next bytes of the message.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            // Nearly all of a long message is the inside of strings that are not kept.
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

    /// What is known when the message has ended.
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
                self.wants_key = self.objects.last().copied().unwrap_or(false);
            }
            b':' => self.wants_key = false,
            _ if byte.is_ascii_whitespace() => {}
            _ => self.keep(byte),
        }
    }

    fn keeps(&self) -> bool {
        self.depth <= DEPTH && self.part.len() <= PART
    }

    fn keep(&mut self, byte: u8) {
        if self.keeps() {
            self.part.push(byte);
        }
    }

    fn open(&mut self, is_object: bool) {
        self.part.clear();
        self.depth += 1;
        if self.depth <= DEPTH {
            self.objects.push(is_object);
            self.path.push(Vec::new());
            self.wants_key = is_object;
        }
    }

    fn close(&mut self) {
        // The outermost container is an object and ends once.
        self.outline.is_whole = self.depth == 1 && self.objects == [true];
        if self.depth <= DEPTH {
            self.objects.pop();
            self.path.pop();
        }
        self.depth = self.depth.saturating_sub(1);
        self.wants_key = false;
    }

    /// A string, or another value, has ended.
    fn end_part(&mut self) {
        let part = std::mem::take(&mut self.part);
        let is_too_long = part.len() > PART;
        if part.is_empty() || self.depth > DEPTH || !self.objects.last().copied().unwrap_or(false) {
            return;
        }
        if self.wants_key {
            let key = serde_json::from_slice::<String>(&part).unwrap_or_default();
            if let Some(newest) = self.path.last_mut() {
                *newest = if is_too_long { Vec::new() } else { key.into_bytes() };
            }
            self.wants_key = false;
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
    fn a_request_is_known_by_its_id_wherever_that_stands() {
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
                assert_eq!(outline.thread_id.as_deref(), Some("t"));
                assert_eq!(outline.turn_id.as_deref(), Some("u"));
                assert_eq!(outline.item_id.as_deref(), Some("i"));
                assert!(outline.is_whole && outline.answers().is_none());
            }
        }
    }

    #[test]
    fn an_item_a_turn_and_an_answer_are_known() {
        let item = json!({"method": "item/completed", "params": {
            "item": {"type": "agentMessage", "id": "i", "text": "x"}, "threadId": "t", "turnId": "u",
        }});
        let outline = outline_of(&item.to_string(), 3);
        assert_eq!((outline.item_id.as_deref(), outline.turn_id.as_deref()), (Some("i"), Some("u")));
        assert_eq!(outline.item_type.as_deref(), Some("agentMessage"));
        let turn = json!({"method": "turn/completed", "params": {
            "threadId": "t", "turn": {"id": "u", "items": [{"id": "no", "status": "no"}], "status": "completed"},
        }});
        let outline = outline_of(&turn.to_string(), 3);
        assert_eq!(
            (outline.turn_id.as_deref(), outline.turn_status.as_deref()),
            (Some("u"), Some("completed"))
        );
        assert_eq!(outline_of("{\"id\":17,\"result\":{\"id\":3}}", 2).answers(), Some(17));
    }

    #[test]
    fn what_is_no_message_or_was_cut_off_is_not_whole() {
        for text in ["", "[]", "garbage", "{\"id\":1", "{\"id\":\"1", "{\"id\":1}}", "[{\"id\":1}]"] {
            let outline = outline_of(text, 1);
            assert!(!outline.is_whole, "{text}: {outline:?}");
        }
        assert_eq!(outline_of("[{\"id\":1,\"method\":\"m\"}]", 1).method, None);
    }

    proptest! {
        #[test]
        fn a_part_is_found_whatever_surrounds_it(before in ".{0,200}", after in ".{0,200}", piece in 1..40usize) {
            let message = json!({
                "aa": [before, {"method": "no"}], "id": 5, "method": after.clone(), "params": {"x": after, "turnId": "u"},
            });
            let outline = outline_of(&message.to_string(), piece);
            prop_assert_eq!(outline.id.as_ref().map(|id| id.get()), Some("5"));
            prop_assert_eq!(outline.method.map(Value::from), Some(message["method"].clone()));
            prop_assert_eq!(outline.turn_id.as_deref(), Some("u"));
            prop_assert!(outline.is_whole);
        }

        #[test]
        fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut scanner = Scanner::default();
            scanner.feed(&bytes);
            scanner.finish();
        }
    }
}
