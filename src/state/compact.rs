//! Forms of values that take little memory: there are twenty turns of each thread and thousands of idempotency keys.

use std::borrow::Cow;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::codex::protocol::values::TURN_STATUSES;
use crate::timestamp::Timestamp;

/// The first digits of the years that are written as numbers.
const CENTURY: &str = "20";

/// A time in a file: a number, its digits without those of the century; any other text stays as it is.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Digits(pub(super) Timestamp);

fn text_of(digits: u64) -> String {
    let mut text = format!("{CENTURY}{digits:015}");
    for (at, mark) in [(4, '-'), (7, '-'), (10, 'T'), (13, ':'), (16, ':'), (19, '.')] {
        text.insert(at, mark);
    }
    text.push('Z');
    text
}

impl Serialize for Digits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.0.text();
        let digits = text.bytes().filter(u8::is_ascii_digit).skip(CENTURY.len());
        let digits = digits.fold(0, |number: u64, digit| number.wrapping_mul(10) + u64::from(digit - b'0'));
        if text_of(digits) == text {
            serializer.serialize_u64(digits)
        } else {
            serializer.serialize_str(&text)
        }
    }
}

impl<'de> Deserialize<'de> for Digits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let digits = value.as_u64().map(|digits| Timestamp::from(text_of(digits).as_str()));
        let time = digits.or_else(|| value.as_str().map(Timestamp::from));
        time.map(Self).ok_or_else(|| D::Error::custom("it is no time"))
    }
}

/// A digest of an ID, to find it among a few hundred; the same in every version, because files have it.
pub(super) fn digest(id: &str) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(Sha256::digest(id));
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// A JSON value as its text.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonText(Box<str>);

impl JsonText {
    /// The text of a value, if it has at most so many bytes.
    pub(super) fn of(value: &Value, max_bytes: usize) -> Option<Self> {
        let text = value.to_string();
        (text.len() <= max_bytes).then(|| Self(text.into()))
    }

    /// The value.
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}

impl Serialize for JsonText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(S::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for JsonText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Value::deserialize(deserializer)?.to_string().into()))
    }
}

/// The status of a turn; those that are known take no memory.
pub(super) fn status(text: &str) -> Cow<'static, str> {
    let known = TURN_STATUSES.iter().find(|known| **known == text);
    known.map_or_else(|| Cow::Owned(text.to_owned()), |known| Cow::Borrowed(*known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_a_number_and_any_other_text_stays_itself() {
        let json = |text: &str| serde_json::to_string(&Digits(Timestamp::from(text))).unwrap();
        assert_eq!(json("2026-11-29T03:46:11.123Z"), "261129034611123");
        assert_eq!(json("2026-11-29T03:46:11Z"), r#""2026-11-29T03:46:11Z""#);
        let texts =
            ["2026-11-29T03:46:11.123Z", "2000-01-01T00:00:00.000Z", "2026-11-29T03:46:11Z", "T7", "", "20"];
        for text in texts {
            assert_eq!(serde_json::from_str::<Digits>(&json(text)).unwrap().0.text(), text);
        }
        assert!(serde_json::from_str::<Option<Digits>>("null").unwrap().is_none());
    }
}
