//! Pieces of longer texts, which are nearly all messages of the app-server.

use memchr::memchr;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// The parameters of a delta; the values are JSON, exactly as it came.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delta<'a> {
    /// The piece of text.
    #[serde(borrow, deserialize_with = "json_text")]
    pub delta: &'a str,
    /// The item.
    #[serde(borrow, deserialize_with = "json_text")]
    pub item_id: &'a str,
    /// The thread.
    #[serde(borrow, deserialize_with = "json_text")]
    pub thread_id: &'a str,
    /// The turn.
    #[serde(borrow, deserialize_with = "json_text")]
    pub turn_id: &'a str,
}

fn json_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'de str, D::Error> {
    <&RawValue>::deserialize(deserializer).map(RawValue::get)
}

/// How every [`AGENT_MESSAGE_DELTA`](super::notifications::AGENT_MESSAGE_DELTA) of Codex begins.
const HEAD: &str = "{\"method\":\"item/agentMessage/delta\",\"params\":";

impl<'a> Delta<'a> {
    /// Reads a whole message that is an [`AGENT_MESSAGE_DELTA`](super::notifications::AGENT_MESSAGE_DELTA); `None` for every
    /// other one, and for one that is not as expected.
    ///
    /// Nearly all messages are these, and [`wire`](crate::codex::rpc::wire) would read their parameters twice.
    pub fn of_agent_message(message: &'a [u8]) -> Option<Self> {
        if !message.starts_with(HEAD.as_bytes()) {
            return None;
        }
        let message = std::str::from_utf8(message).ok()?;
        Self::plain(message.strip_prefix(HEAD)?).or_else(|| Self::any(message))
    }

    fn any(message: &'a str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Envelope<'a> {
            #[serde(borrow)]
            params: Delta<'a>,
        }
        let Envelope { params } = serde_json::from_str(message).ok()?;
        let Delta { delta, item_id: _, thread_id, turn_id } = &params;
        [delta, thread_id, turn_id].iter().all(|text| text.starts_with('"')).then_some(params)
    }

    /// Reads what follows `"params":` in the form in which Codex writes it, if its texts are plain; `None` for every other
    /// form. This takes a quarter of the time of a JSON parser.
    fn plain(rest: &'a str) -> Option<Self> {
        let mut rest = rest;
        let mut value = |key: &str| {
            let value = rest.strip_prefix(key)?;
            let text = value.strip_prefix('"')?;
            let length = memchr(b'"', text.as_bytes())?;
            let (value, after) = value.split_at_checked(length + 2)?;
            // Without an early end, which the compiler turns into a few vector instructions.
            let is_special = |byte: u8| !matches!(byte, b' '..=b'~') | (byte == b'\\');
            let bytes = &text.as_bytes()[..length];
            let has_special = bytes.iter().fold(false, |found, &byte| found | is_special(byte));
            rest = after;
            (!has_special).then_some(value)
        };
        let thread_id = value("{\"threadId\":")?;
        let turn_id = value(",\"turnId\":")?;
        let item_id = value(",\"itemId\":")?;
        let delta = value(",\"delta\":")?;
        let after = rest.strip_prefix('}')?.strip_suffix('}')?;
        let digits = after.strip_prefix(",\"emittedAtMs\":");
        let is_number = |digits: &str| {
            let is_usual = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
            is_usual && !digits.is_empty()
        };
        let is_whole = after.is_empty() || digits.is_some_and(is_number);
        is_whole.then_some(Self { delta, item_id, thread_id, turn_id })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn delta_of_codex_is_read_with_and_without_its_time() {
        let params = r#"{"threadId":"t","turnId":"u","itemId":"i","delta":"alpha, beta"}"#;
        for after in ["}", r#","emittedAtMs":1795146889965}"#] {
            let message = format!("{HEAD}{params}{after}");
            let delta = Delta::plain(message.strip_prefix(HEAD).unwrap());
            assert_eq!(delta, Delta::any(&message));
            let Delta { delta, item_id, thread_id, turn_id } = delta.unwrap();
            assert_eq!(
                [delta, item_id, thread_id, turn_id],
                [r#""alpha, beta""#, r#""i""#, r#""t""#, r#""u""#]
            );
        }
    }

    #[test]
    fn quick_way_leaves_other_forms_to_the_parser() {
        for (delta, after) in [
            (r"a\q", "}"),
            (r"a\n", "}"),
            ("é", "}"),
            ("\t", "}"),
            ("a", ""),
            ("a", "}}"),
            ("a", r#","emittedAtMs":012}"#),
            ("a", r#","emittedAtMs":}"#),
            ("a", r#","emittedAtMs":1.5}"#),
            ("a", r#","other":1}"#),
        ] {
            let rest = format!(r#"{{"threadId":"t","turnId":"u","itemId":"i","delta":"{delta}"}}{after}"#);
            assert_eq!(Delta::plain(&rest), None, "{rest}");
        }
    }

    proptest! {
        /// Whatever the quick way accepts, the JSON parser reads in the same way.
        #[test]
        fn quick_way_accepts_only_what_the_parser_accepts(
            texts in prop::array::uniform4(prop_oneof![3 => "[a ]{0,2}", 1 => "[a \\\\\"né\\u{0}]{0,3}"]),
            keys in prop::sample::select(vec![["threadId", "turnId", "itemId", "delta"], ["turnId", "threadId", "itemId", "delta"]]),
            as_json in any::<bool>(),
            after in prop::sample::select(vec!["}}", "}", "}}}", "},\"emittedAtMs\":12}", "},\"emittedAtMs\":012}", "},\"emittedAtMs\":}", "},\"a\":1}"]),
        ) {
            let value = |text: &String| match as_json {
                true => serde_json::to_string(text).unwrap(),
                false => format!("\"{text}\""),
            };
            let members: Vec<String> =
                keys.iter().zip(&texts).map(|(key, text)| format!("\"{key}\":{}", value(text))).collect();
            let rest = format!("{{{}{after}", members.join(","));
            let message = format!("{HEAD}{rest}");
            if let Some(delta) = Delta::plain(&rest) {
                prop_assert_eq!(Some(delta), Delta::any(&message));
            }
        }
    }
}
