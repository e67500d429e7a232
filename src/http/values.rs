//! Validators for values with a fixed set of variants or a fixed shape, and the error sentences for wrong values.
//!
//! Stateless. Called by the body schemas and the query parameters, so that an invalid value is rejected before a turn
//! starts. The variants are those of the app-server 0.169.0, which lists them in its errors (measured).

use serde_json::{Map, Value};

use super::body::trimmed;
use crate::codex::protocol::values::{INPUT_TEXT, INPUT_TYPES};

/// The maximum of a duration that a client can set, in seconds.
pub(super) const MAX_SECONDS: u64 = 24 * 60 * 60;

/// The error for a turn without input.
pub(super) const NO_INPUT: &str = "turn input must be a non-empty string or a non-empty array of items.";

/// The strings that a value may be, and the wording of the error for any other.
#[derive(Debug, Clone, Copy)]
pub(super) struct StringEnum {
    pub(super) variants: &'static [&'static str],
    wording: ErrorWording,
}

#[derive(Debug, Clone, Copy)]
enum ErrorWording {
    /// Quotes the wrong value.
    Quoting,
    /// Lists the variants.
    Listing,
    /// Names the two variants.
    Either,
    /// Quotes the value and lists the variants, in the wording that clients know for session purposes.
    Purpose,
}

impl StringEnum {
    /// Variants of the Codex protocol; the error quotes the value.
    pub(super) const fn of_codex(list: &'static [&'static str]) -> Self {
        Self { variants: list, wording: ErrorWording::Quoting }
    }

    /// Variants of codexd itself.
    pub(super) const fn of_codexd(list: &'static [&'static str]) -> Self {
        Self { variants: list, wording: ErrorWording::Listing }
    }

    /// Two variants of codexd itself.
    pub(super) const fn two_of_codexd(list: &'static [&'static str; 2]) -> Self {
        Self { variants: list, wording: ErrorWording::Either }
    }

    /// The purposes of sessions.
    pub(super) const fn session_purposes(list: &'static [&'static str]) -> Self {
        Self { variants: list, wording: ErrorWording::Purpose }
    }

    /// The variant that equals `value`; the error is a sentence.
    pub(super) fn find(self, name: &str, value: &str) -> Result<&'static str, String> {
        let found = self.variants.iter().find(|known| **known == value);
        found.copied().ok_or_else(|| match self.wording {
            ErrorWording::Quoting => unknown_variant(name, value, self.variants),
            ErrorWording::Listing => format!("{name} must be one of {}.", join_with_and(self.variants)),
            ErrorWording::Either => format!("{name} must be {}.", self.variants.join(" or ")),
            ErrorWording::Purpose => {
                format!(
                    "Unsupported session {name} \"{value}\"; it is one of {}.",
                    join_with_and(self.variants)
                )
            }
        })
    }
}

/// Checks an approval policy: a string, which only the app-server can check, or an object in its own format.
pub(super) fn check_approval_policy(name: &str, value: Value) -> Result<Value, String> {
    match value {
        Value::String(_) | Value::Object(_) => Ok(value),
        _ => Err(format!("{name} must be a string or an object.")),
    }
}

/// Checks that a value is an absolute path, whether or not it exists.
pub(super) fn check_directory(name: &str, text: String) -> Result<Value, String> {
    match text.starts_with('/') && !text.contains('\0') {
        true => Ok(text.into()),
        false => Err(format!("{name} must be an absolute path; {text:?} is not.")),
    }
}

/// Checks a duration in whole seconds, at most a day.
pub(super) fn check_seconds(name: &str, value: &Value) -> Result<Value, String> {
    match as_whole_number(value).filter(|seconds| (1..=MAX_SECONDS).contains(seconds)) {
        Some(seconds) => Ok(seconds.into()),
        None => Err(format!("{name} must be a whole number of seconds from 1 to {MAX_SECONDS}.")),
    }
}

/// The value as an integer; 600.0 is one too, as in JSON Schema.
fn as_whole_number(value: &Value) -> Option<u64> {
    let float = || value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..=9e15).contains(number));
    value.as_u64().or_else(|| float().map(|number| number as u64))
}

/// Checks an object of strings, and trims them.
pub(super) fn check_labels(name: &str, value: Value) -> Result<Value, String> {
    let invalid = || format!("{name} must be an object of non-empty strings.");
    let Value::Object(labels) = value else { return Err(invalid()) };
    let label = |(key, value): (String, Value)| {
        let value = value.as_str().and_then(trimmed).ok_or_else(invalid)?;
        Ok((trimmed(&key).ok_or_else(invalid)?, value.into()))
    };
    labels.into_iter().map(label).collect::<Result<Map<_, _>, _>>().map(Value::Object)
}

/// Checks the input of a turn: a non-empty string, or a non-empty list of items.
pub(super) fn check_input(value: Value) -> Result<Value, String> {
    match &value {
        Value::String(_) => Ok(value),
        Value::Array(list) if !list.is_empty() => {
            check_items(list)?;
            Ok(value)
        }
        Value::Array(_) => Err(NO_INPUT.to_owned()),
        _ => Err("turn requires input as a string or item array.".to_owned()),
    }
}

fn check_items(items: &[Value]) -> Result<(), String> {
    for (index, item) in items.iter().enumerate() {
        match item["type"].as_str() {
            Some(kind) if !INPUT_TYPES.contains(&kind) => {
                return Err(unknown_variant(&format!("input[{index}].type"), kind, INPUT_TYPES));
            }
            Some(INPUT_TEXT) if item["text"].as_str().is_none_or(|text| text.trim().is_empty()) => {
                return Err(format!("input[{index}].text must be a non-empty string."));
            }
            Some(_) => {}
            None => {
                return Err(format!(
                    "input[{index}] must be an object whose type is {}.",
                    one_of(INPUT_TYPES)
                ));
            }
        }
    }
    Ok(())
}

fn unknown_variant(name: &str, value: &str, variants: &[&str]) -> String {
    let short: String = value.chars().take(100).collect();
    format!("{name} must be {}; {short:?} is not.", one_of(variants))
}

fn one_of(variants: &[&str]) -> String {
    format!("one of {}", variants.join(", "))
}

fn join_with_and(variants: &[&str]) -> String {
    match variants {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        _ => variants.concat(),
    }
}
