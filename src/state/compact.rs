//! Forms of values that take little memory: there are twenty turns of each thread and thousands of idempotency keys.

use std::borrow::Cow;
use std::fmt;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::codex::protocol::values::TURN_STATUSES;

/// The first digits of the years that are kept as numbers.
const CENTURY: &str = "20";

/// The time of an event, RFC 3339, UTC, milliseconds; any other text stays as it is.
///
/// In a file it is a number: the digits without those of the century.
#[derive(Clone, PartialEq, Eq)]
pub enum Time {
    /// The digits of the time, without those of its century.
    Digits(u64),
    /// A text of another form.
    Text(Box<str>),
}

impl Time {
    /// The time as a text.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Digits(digits) => Cow::Owned(text_of(*digits)),
            Self::Text(text) => Cow::Borrowed(text),
        }
    }
}

fn text_of(digits: u64) -> String {
    let mut text = format!("{CENTURY}{digits:015}");
    for (at, mark) in [(4, '-'), (7, '-'), (10, 'T'), (13, ':'), (16, ':'), (19, '.')] {
        text.insert(at, mark);
    }
    text.push('Z');
    text
}

impl From<&str> for Time {
    fn from(text: &str) -> Self {
        let digits = text.bytes().filter(u8::is_ascii_digit).skip(CENTURY.len());
        let digits = digits.fold(0, |number: u64, digit| number.wrapping_mul(10) + u64::from(digit - b'0'));
        if text_of(digits) == text { Self::Digits(digits) } else { Self::Text(text.into()) }
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text().fmt(formatter)
    }
}

impl PartialOrd for Time {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The order of the texts, which is that of the times where they have one form.
impl Ord for Time {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        match (self, other) {
            (Self::Digits(a), Self::Digits(b)) => a.cmp(b),
            _ => self.text().cmp(&other.text()),
        }
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Digits(digits) => serializer.serialize_u64(*digits),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let digits = value.as_u64().map(|digits| Self::from(text_of(digits).as_str()));
        let time = digits.or_else(|| value.as_str().map(Self::from));
        time.ok_or_else(|| D::Error::custom("it is no time"))
    }
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
        assert_eq!(Time::from("2026-11-29T03:46:11.123Z"), Time::Digits(261_129_034_611_123));
        let texts =
            ["2026-11-29T03:46:11.123Z", "2000-01-01T00:00:00.000Z", "2026-11-29T03:46:11Z", "T7", "", "20"];
        for text in texts {
            assert_eq!(Time::from(text).text(), text);
            let json = serde_json::to_string(&Time::from(text)).unwrap();
            assert_eq!(serde_json::from_str::<Time>(&json).unwrap(), Time::from(text));
        }
        assert_eq!(
            serde_json::to_string(&Time::from("2026-11-29T03:46:11Z")).unwrap(),
            r#""2026-11-29T03:46:11Z""#
        );
        assert_eq!(serde_json::from_str::<Option<Time>>("null").unwrap(), None);
        let mut sorted =
            ["T9", "2026-11-29T03:46:11.123Z", "2026-11-29T03:46:11.124Z", "1999"].map(Time::from);
        sorted.sort();
        assert_eq!(
            sorted.map(|time| time.text().into_owned()),
            ["1999", "2026-11-29T03:46:11.123Z", "2026-11-29T03:46:11.124Z", "T9"]
        );
    }
}
