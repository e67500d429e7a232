//! Values that the protocol lists, checked before they cost a turn.
//!
//! The lists are those of the app-server 0.169.0, which names them in its own refusals (measured).

use std::path::Path;

use serde_json::Value;

use super::body::Fields;
use super::error::ApiError;

pub(super) const SANDBOX: &[&str] = &["read-only", "workspace-write", "danger-full-access"];
pub(super) const PERSONALITY: &[&str] = &["none", "friendly", "pragmatic"];
pub(super) const SUMMARY: &[&str] = &["auto", "concise", "detailed", "none"];
const APPROVAL_POLICY: &[&str] = &["untrusted", "on-request", "granular", "never"];
const ITEMS: &[&str] = &["text", "image", "localImage", "audio", "localAudio", "skill", "mention"];

/// Takes a word out that must be one of these.
pub(super) fn one_of(fields: &mut Fields, name: &str, words: &[&str]) -> Result<Option<Value>, ApiError> {
    let word = fields.text(name)?;
    match &word {
        Some(word) if !words.contains(&word.as_str()) => Err(unknown(name, word, words)),
        _ => Ok(word.map(Value::from)),
    }
}

/// Takes the approval policy out: a word, or an object in the app-server's own form.
pub(super) fn approval_policy(fields: &mut Fields) -> Result<Option<Value>, ApiError> {
    match fields.any("approvalPolicy") {
        Some(Value::String(word)) if !APPROVAL_POLICY.contains(&word.as_str()) => {
            Err(unknown("approvalPolicy", &word, APPROVAL_POLICY))
        }
        Some(value @ (Value::String(_) | Value::Object(_))) => Ok(Some(value)),
        Some(_) => Err(ApiError::bad_request("approvalPolicy must be a string or an object.")),
        None => Ok(None),
    }
}

/// Takes a folder out, which must be there: the app-server takes any path without complaint (measured).
pub(super) fn folder(fields: &mut Fields, name: &str) -> Result<Option<Value>, ApiError> {
    let Some(text) = fields.text(name)? else { return Ok(None) };
    let path = Path::new(&text);
    if !path.is_absolute() {
        return Err(ApiError::bad_request(format!("{name} must be an absolute path; {text:?} is not.")));
    }
    if !path.is_dir() {
        return Err(ApiError::bad_request(format!("{name} must be a folder that exists; {text:?} is not.")));
    }
    Ok(Some(text.into()))
}

/// Looks at the items that a user says; none may be empty.
pub(super) fn items(items: &[Value]) -> Result<(), ApiError> {
    for (place, item) in items.iter().enumerate() {
        let kind = item["type"].as_str();
        match kind {
            Some(kind) if !ITEMS.contains(&kind) => {
                return Err(unknown(&format!("input[{place}].type"), kind, ITEMS));
            }
            Some("text") if item["text"].as_str().is_none_or(|text| text.trim().is_empty()) => {
                return Err(ApiError::bad_request(format!(
                    "input[{place}].text must be a non-empty string."
                )));
            }
            Some(_) => {}
            None => {
                let message = format!("input[{place}] must be an object whose type is {}.", list(ITEMS));
                return Err(ApiError::bad_request(message));
            }
        }
    }
    Ok(())
}

fn unknown(name: &str, word: &str, words: &[&str]) -> ApiError {
    let short: String = word.chars().take(100).collect();
    ApiError::bad_request(format!("{name} must be {}; {short:?} is not.", list(words)))
}

fn list(words: &[&str]) -> String {
    format!("one of {}", words.join(", "))
}
