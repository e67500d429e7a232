//! [`Timestamp`]: the times of events, records and responses, which are RFC 3339 in UTC with milliseconds.
//!
//! Pure: it has no clock, so that every layer may use it. `time` makes those of the present.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A time, which is text in JSON.
///
/// A text of another form, as another program may have written it to a file, is kept as it is.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Timestamp(Form);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Form {
    /// Milliseconds since 1970, from which the text is made.
    Millis(i64),
    /// Any other text.
    Other(Box<str>),
}

impl Timestamp {
    /// The time that is this many seconds after 1970; the empty text for one that no calendar has.
    pub fn of_seconds(seconds: i64) -> Self {
        jiff::Timestamp::from_second(seconds).map(Self::from).unwrap_or_default()
    }

    /// The time; `None` when the text is none.
    pub fn time(&self) -> Option<jiff::Timestamp> {
        match &self.0 {
            Form::Millis(millis) => jiff::Timestamp::from_millisecond(*millis).ok(),
            Form::Other(text) => text.parse().ok(),
        }
    }

    /// The text.
    pub fn text(&self) -> Cow<'_, str> {
        match &self.0 {
            Form::Millis(_) => self.time().map(|time| format!("{time:.3}")).unwrap_or_default().into(),
            Form::Other(text) => Cow::Borrowed(text),
        }
    }
}

impl From<jiff::Timestamp> for Timestamp {
    fn from(time: jiff::Timestamp) -> Self {
        Self(Form::Millis(time.as_millisecond()))
    }
}

impl From<&str> for Timestamp {
    fn from(text: &str) -> Self {
        let time = text.parse::<jiff::Timestamp>().ok().filter(|_| is_usual(text));
        time.map_or_else(|| Self(Form::Other(text.into())), Self::from)
    }
}

/// Whether a text that is a time is the one that is made from it: RFC 3339 in UTC with milliseconds.
fn is_usual(text: &str) -> bool {
    const FORM: &[u8] = b"0000-00-00T00:00:00.000Z";
    let is_like = |(&byte, &form): (&u8, &u8)| byte == form || (form == b'0' && byte.is_ascii_digit());
    // A leap second becomes another text.
    text.len() == FORM.len()
        && text.as_bytes().get(17) != Some(&b'6')
        && text.as_bytes().iter().zip(FORM).all(is_like)
}

/// The empty text, for a time that is not known.
impl Default for Timestamp {
    fn default() -> Self {
        Self(Form::Other(Box::default()))
    }
}

/// The order of the texts, which is that of the times where both have their form.
impl Ord for Timestamp {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (Form::Millis(a), Form::Millis(b)) => a.cmp(b),
            _ => self.text().cmp(&other.text()),
        }
    }
}

impl PartialOrd for Timestamp {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text().fmt(formatter)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text().fmt(formatter)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.text().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Timestamp;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string")
            }

            fn visit_str<E>(self, text: &str) -> Result<Timestamp, E> {
                Ok(text.into())
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl JsonSchema for Timestamp {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamp_has_the_text_that_it_was_made_from() {
        let texts = [
            "2026-11-29T03:46:11.123Z",
            "1969-12-31T23:59:59.999Z",
            "0000-01-01T00:00:00.000Z",
            "9999-12-30T22:00:00.000Z",
            "2016-12-31T23:59:60.000Z",
            "2026-11-29T24:00:00.000Z",
            "2026-11-29t03:46:11.123z",
            "2026-11-29 03:46:11.123Z",
            "2026-11-29T03:46:11,123Z",
            "2026-11-29T03:46:11Z",
            "2026-11-29T03:46:11.1234Z",
            "2026-11-29T04:46:11.123+01:00",
            "2026-13-29T03:46:11.123Z",
            "T7",
            "",
        ];
        for text in texts {
            let timestamp = Timestamp::from(text);
            let time = timestamp.time();
            let is_usual = time.is_some_and(|time| format!("{time:.3}") == text);
            assert_eq!(matches!(timestamp.0, Form::Millis(_)), is_usual, "{text}");
            assert_eq!(timestamp.text(), text);
            let json = serde_json::to_string(&timestamp).unwrap();
            assert_eq!(json, serde_json::to_string(text).unwrap());
            assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), timestamp);
        }
        assert_eq!(Timestamp::default(), Timestamp::from(""));
        assert_eq!(size_of::<Timestamp>(), 16);
    }

    #[test]
    fn timestamps_have_the_order_of_their_texts() {
        let texts = ["", "1999", "2026-11-29T03:46:11.123Z", "2026-11-29T03:46:11.124Z", "T9"];
        for pair in texts.windows(2) {
            assert!(Timestamp::from(pair[0]) < Timestamp::from(pair[1]), "{pair:?}");
        }
    }
}
