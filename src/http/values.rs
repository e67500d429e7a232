//! The types of fields and parameters that serde has no type for: each checks its value, and has its schema.
//!
//! Stateless. An invalid value is rejected before a turn starts. The variants are those of the app-server 0.169.0, which
//! lists them in its errors (measured).

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::codex::protocol::items;
use crate::codex::protocol::values::{
    APPROVAL_POLICIES, INPUT_TEXT, INPUT_TYPES, PERSONALITIES, REASONING_SUMMARIES, SANDBOX_MODES,
};
use crate::daemon::{MAX_LABEL_BYTES, TrustChoice};
use crate::state::title::{MAX_TITLE_CHARS, title_of_name};
use crate::timestamp::Timestamp;

/// The error that the schema describes, see [`super::parse`].
const AS_IN_SCHEMA: &str = "";
/// The maximum of a duration that a client can set, in seconds.
pub(super) const MAX_SECONDS: u64 = 24 * 60 * 60;

/// Defines strings that are one of a list of the Codex protocol.
macro_rules! protocol_enums {
    ($($name:ident: $list:ident;)*) => { $(
        #[derive(Debug, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String")]
        #[schemars(inline, !try_from, extend("enum" = $list))]
        pub(super) struct $name(String);

        impl TryFrom<String> for $name {
            type Error = &'static str;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                if $list.contains(&&*text) { Ok(Self(text)) } else { Err(AS_IN_SCHEMA) }
            }
        }
    )* };
}

protocol_enums! {
    Personality: PERSONALITIES;
    ReasoningSummary: REASONING_SUMMARIES;
    SandboxMode: SANDBOX_MODES;
}

/// An absolute path, whether or not it exists.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(inline, !try_from, extend("pattern" = "^(\\s*$|/)"))]
pub(super) struct AbsolutePath(String);

impl TryFrom<String> for AbsolutePath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.starts_with('/') && !text.contains('\0') {
            true => Ok(Self(text)),
            false => Err(format!(" must be an absolute path; {text:?} is not")),
        }
    }
}

/// An approval policy: a string, which only the app-server can check, or an object in its own format.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Value")]
#[schemars(inline, !try_from, extend("type" = ["string", "object"], "examples" = APPROVAL_POLICIES))]
pub(super) struct ApprovalPolicy(Value);

impl TryFrom<Value> for ApprovalPolicy {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        if value.is_string() || value.is_object() { Ok(Self(value)) } else { Err(AS_IN_SCHEMA) }
    }
}

/// A whole number in a range; 600.0 is one too, as in JSON Schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "Value")]
#[schemars(inline, !try_from, extend("minimum" = MIN, "maximum" = MAX))]
pub(crate) struct WholeNumber<const MIN: u64, const MAX: u64>(pub(crate) u64);

impl<const MIN: u64, const MAX: u64> TryFrom<Value> for WholeNumber<MIN, MAX> {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        let float = || value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..=9e15).contains(number));
        let number = value.as_u64().or_else(|| float().map(|number| number as u64));
        number.filter(|number| (MIN..=MAX).contains(number)).map(Self).ok_or(AS_IN_SCHEMA)
    }
}

/// An object of strings, all of them trimmed and not empty.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(try_from = "BTreeMap<String, String>")]
#[schemars(inline, !try_from, extend(
    "propertyNames" = { "pattern": "\\S" },
    "additionalProperties" = { "type": "string", "pattern": "\\S" },
))]
pub(super) struct Labels(pub(super) BTreeMap<String, String>);

impl TryFrom<BTreeMap<String, String>> for Labels {
    type Error = String;

    fn try_from(labels: BTreeMap<String, String>) -> Result<Self, String> {
        let bytes: usize = labels.iter().map(|(key, value)| key.len() + value.len()).sum();
        if bytes > MAX_LABEL_BYTES {
            return Err(format!(
                " has {bytes} bytes of keys and values; at most {MAX_LABEL_BYTES} are allowed"
            ));
        }
        let labels = labels.iter().map(|(key, value)| (key.trim(), value.trim()));
        let label = |(key, value): (&str, &str)| {
            (!key.is_empty() && !value.is_empty()).then(|| (key.to_owned(), value.to_owned()))
        };
        labels.map(label).collect::<Option<_>>().map(Self).ok_or_else(|| AS_IN_SCHEMA.to_owned())
    }
}

/// Changes of labels (RFC 7396): a string sets one, and `null` removes it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(try_from = "BTreeMap<String, Option<String>>")]
#[schemars(inline, !try_from, extend(
    "propertyNames" = { "pattern": "\\S" },
    "additionalProperties" = { "type": ["string", "null"], "pattern": "\\S" },
))]
pub(super) struct LabelChanges(pub(super) BTreeMap<String, Option<String>>);

impl TryFrom<BTreeMap<String, Option<String>>> for LabelChanges {
    type Error = &'static str;

    fn try_from(changes: BTreeMap<String, Option<String>>) -> Result<Self, Self::Error> {
        let change = |(key, value): (String, Option<String>)| {
            let (key, value) = (key.trim().to_owned(), value.map(|value| value.trim().to_owned()));
            let is_empty = key.is_empty() || value.as_ref().is_some_and(String::is_empty);
            (!is_empty).then_some((key, value))
        };
        changes.into_iter().map(change).collect::<Option<_>>().map(Self).ok_or(AS_IN_SCHEMA)
    }
}

/// A title: its words on one line.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(inline, !try_from, extend("maxLength" = MAX_TITLE_CHARS))]
pub(super) struct Title(pub(super) String);

impl TryFrom<String> for Title {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let chars = text.chars().count();
        if chars > MAX_TITLE_CHARS {
            return Err(format!(" has {chars} characters; it may have {MAX_TITLE_CHARS}"));
        }
        let title = title_of_name(&text).ok_or_else(|| " must have a word".to_owned())?;
        Ok(Self(title.to_string()))
    }
}

/// A time in the form of RFC 3339, in milliseconds: a more exact one is rounded up, so that nothing happens before it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(inline, !try_from, extend("format" = "date-time"))]
pub(super) struct Moment(pub(super) Timestamp);

impl TryFrom<String> for Moment {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let requirement = || {
            let short: String = text.chars().take(50).collect();
            format!(
                " must be a time such as 2026-11-20T05:00:00Z or 2026-11-20T05:00:00+01:00, of the years 0001 to 9998, \
                 with at most nine decimals; {short:?} is not"
            )
        };
        let at: jiff::Timestamp = text.parse().map_err(|_| requirement())?;
        // In UTC, where it is shown.
        if !(1..=9998).contains(&at.to_zoned(jiff::tz::TimeZone::UTC).year()) {
            return Err(requirement());
        }
        let up = jiff::TimestampRound::new().smallest(jiff::Unit::Millisecond).mode(jiff::RoundMode::Ceil);
        at.round(up).map(|at| Self(at.into())).map_err(|_| requirement())
    }
}

/// Whether a directory is trusted: a boolean, or `ask`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(try_from = "Value")]
#[schemars(inline, !try_from)]
pub(super) struct Trust(#[schemars(schema_with = "trust_schema")] pub(super) TrustChoice);

fn trust_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "enum": [true, false, "ask"] })
}

impl TryFrom<Value> for Trust {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        match value {
            Value::Bool(answer) => Ok(Self(TrustChoice::Answer(answer))),
            value if value == "ask" => Ok(Self(TrustChoice::Ask)),
            _ => Err(AS_IN_SCHEMA),
        }
    }
}

/// The items of the input of a turn, of which there is at least one; a string is one text item.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(try_from = "Value")]
#[schemars(inline, !try_from)]
pub(super) struct Input(#[schemars(schema_with = "input_schema")] pub(super) Vec<Value>);

impl Input {
    /// What an input must be, as the rest of a sentence.
    pub(super) const REQUIREMENT: &str = " must be a non-empty string or a non-empty array of items";
}

fn input_schema(_: &mut SchemaGenerator) -> Schema {
    let text = |description: &str| json!({ "type": "string", "description": description });
    json_schema!({
        "type": ["string", "array"],
        "minItems": 1,
        "items": {
            "title": "InputItem",
            "description": "An item of the input of a turn, in the format of the app-server, which has more fields.",
            "type": "object",
            "required": ["type"],
            "properties": {
                "type": { "type": "string", "enum": INPUT_TYPES },
                "text": text("The text, which an item of the type text needs."),
                "url": text("The URL of an image or audio; a data: URL has the data itself."),
                "path": text("The absolute path of a local image, local audio, skill or mention."),
                "name": text("The name of a skill or mention."),
            },
            "additionalProperties": true,
        },
    })
}

impl TryFrom<Value> for Input {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value {
            Value::String(text) => Ok(Self(vec![items::text_input(&text)])),
            Value::Array(items) if !items.is_empty() => {
                items.iter().enumerate().try_for_each(|(index, item)| check_item(index, item))?;
                Ok(Self(items))
            }
            _ => Err(Self::REQUIREMENT.to_owned()),
        }
    }
}

fn check_item(index: usize, item: &Value) -> Result<(), String> {
    let types = || INPUT_TYPES.join(", ");
    match item["type"].as_str() {
        Some(INPUT_TEXT) if item["text"].as_str().is_none_or(|text| text.trim().is_empty()) => {
            Err(format!("[{index}].text must be a non-empty string"))
        }
        Some(kind) if INPUT_TYPES.contains(&kind) => Ok(()),
        Some(kind) => {
            let short: String = kind.chars().take(100).collect();
            Err(format!("[{index}].type must be one of {}; {short:?} is not", types()))
        }
        None => Err(format!("[{index}] must be an object whose type is one of {}", types())),
    }
}
