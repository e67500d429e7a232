//! Values that the protocol lists, checked before they cost a turn, and the sentences for those that are wrong.
//!
//! The lists are those of [`crate::codex::protocol::values`].

use serde_json::{Map, Value};

use super::body::trimmed;
use crate::codex::protocol::values::{INPUT_TEXT, INPUT_TYPES};

/// The longest time that can be set, in seconds.
pub(super) const MAX_SECONDS: u64 = 24 * 60 * 60;

/// StringEnum of which one is taken, and how another one is refused.
#[derive(Debug, Clone, Copy)]
pub(super) struct StringEnum {
    pub(super) variants: &'static [&'static str],
    refusal: Refusal,
}

#[derive(Debug, Clone, Copy)]
enum Refusal {
    /// With the word that is wrong.
    Quoting,
    /// With the words that there are.
    Listing,
    /// With the two words that there are.
    Either,
    /// With both, as clients know it of sessions.
    Purpose,
}

impl StringEnum {
    /// StringEnum of the protocol; the refusal quotes.
    pub(super) const fn of_codex(list: &'static [&'static str]) -> Self {
        Self { variants: list, refusal: Refusal::Quoting }
    }

    /// StringEnum of codexd itself.
    pub(super) const fn own(list: &'static [&'static str]) -> Self {
        Self { variants: list, refusal: Refusal::Listing }
    }

    /// Two words of codexd itself.
    pub(super) const fn pair(list: &'static [&'static str; 2]) -> Self {
        Self { variants: list, refusal: Refusal::Either }
    }

    /// The purposes of sessions.
    pub(super) const fn purposes(list: &'static [&'static str]) -> Self {
        Self { variants: list, refusal: Refusal::Purpose }
    }

    /// The word of the list that this is; the error is a sentence.
    pub(super) fn find(self, name: &str, word: &str) -> Result<&'static str, String> {
        let found = self.variants.iter().find(|known| **known == word);
        found.copied().ok_or_else(|| match self.refusal {
            Refusal::Quoting => unknown(name, word, self.variants),
            Refusal::Listing => format!("{name} must be one of {}.", join_with_and(self.variants)),
            Refusal::Either => format!("{name} must be {}.", self.variants.join(" or ")),
            Refusal::Purpose => {
                format!(
                    "Unsupported session {name} \"{word}\"; it is one of {}.",
                    join_with_and(self.variants)
                )
            }
        })
    }
}

/// Looks at an approval policy: a word, which only the app-server can judge, or an object in its own form.
pub(super) fn approval_policy(name: &str, value: Value) -> Result<Value, String> {
    match value {
        Value::String(_) | Value::Object(_) => Ok(value),
        _ => Err(format!("{name} must be a string or an object.")),
    }
}

/// Looks at the path of a directory, whatever is there.
pub(super) fn directory(name: &str, text: String) -> Result<Value, String> {
    match text.starts_with('/') && !text.contains('\0') {
        true => Ok(text.into()),
        false => Err(format!("{name} must be an absolute path; {text:?} is not.")),
    }
}

/// Looks at a time in whole seconds, a day at most.
pub(super) fn seconds(name: &str, value: &Value) -> Result<Value, String> {
    match whole(value).filter(|seconds| (1..=MAX_SECONDS).contains(seconds)) {
        Some(seconds) => Ok(seconds.into()),
        None => Err(format!("{name} must be a whole number of seconds from 1 to {MAX_SECONDS}.")),
    }
}

/// The whole number that a value is; 600.0 is one as well, as in JSON Schema.
fn whole(value: &Value) -> Option<u64> {
    let float = || value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..=9e15).contains(number));
    value.as_u64().or_else(|| float().map(|number| number as u64))
}

/// Looks at a map of texts, and trims them.
pub(super) fn labels(name: &str, value: Value) -> Result<Value, String> {
    let wrong = || format!("{name} must be an object of non-empty strings.");
    let Value::Object(labels) = value else { return Err(wrong()) };
    let label = |(key, value): (String, Value)| {
        let value = value.as_str().and_then(trimmed).ok_or_else(wrong)?;
        Ok((trimmed(&key).ok_or_else(wrong)?, value.into()))
    };
    labels.into_iter().map(label).collect::<Result<Map<_, _>, _>>().map(Value::Object)
}

/// Looks at what a user says: a text, or a list of items; none may be empty.
pub(super) fn input(value: Value) -> Result<Value, String> {
    match &value {
        Value::String(_) => Ok(value),
        Value::Array(list) if !list.is_empty() => {
            items(list)?;
            Ok(value)
        }
        Value::Array(_) => Err(crate::http::bodies::NO_INPUT.to_owned()),
        _ => Err("turn requires input as a string or item array.".to_owned()),
    }
}

fn items(items: &[Value]) -> Result<(), String> {
    for (place, item) in items.iter().enumerate() {
        match item["type"].as_str() {
            Some(kind) if !INPUT_TYPES.contains(&kind) => {
                return Err(unknown(&format!("input[{place}].type"), kind, INPUT_TYPES));
            }
            Some(INPUT_TEXT) if item["text"].as_str().is_none_or(|text| text.trim().is_empty()) => {
                return Err(format!("input[{place}].text must be a non-empty string."));
            }
            Some(_) => {}
            None => {
                return Err(format!(
                    "input[{place}] must be an object whose type is {}.",
                    one_of(INPUT_TYPES)
                ));
            }
        }
    }
    Ok(())
}

fn unknown(name: &str, word: &str, words: &[&str]) -> String {
    let short: String = word.chars().take(100).collect();
    format!("{name} must be {}; {short:?} is not.", one_of(words))
}

fn one_of(words: &[&str]) -> String {
    format!("one of {}", words.join(", "))
}

fn join_with_and(words: &[&str]) -> String {
    match words {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        _ => words.concat(),
    }
}
