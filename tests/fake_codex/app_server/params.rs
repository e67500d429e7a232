//! Validation of the params of a request, with the error texts of Codex.

use serde_json::Value;
use uuid::Uuid;

/// The error response to a request.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message} ({code})")]
pub(super) struct Refusal {
    pub(super) code: i64,
    pub(super) message: String,
}

impl Refusal {
    /// −32600, which Codex uses for everything that is wrong with a request.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self { code: -32600, message: message.into() }
    }

    /// −32001: the queue of requests is full.
    pub(super) fn overloaded() -> Self {
        Self { code: -32001, message: "Server overloaded; retry later.".to_owned() }
    }

    fn params(message: impl std::fmt::Display) -> Self {
        Self::invalid(format!("Invalid request: {message}"))
    }
}

const APPROVAL_POLICIES: &[&str] = &["untrusted", "on-request", "granular", "never"];
const SANDBOX_MODES: &[&str] = &["read-only", "workspace-write", "danger-full-access"];
const SANDBOX_POLICIES: &[&str] = &["dangerFullAccess", "readOnly", "externalSandbox", "workspaceWrite"];
const PERSONALITIES: &[&str] = &["none", "friendly", "pragmatic"];
const SUMMARIES: &[&str] = &["auto", "concise", "detailed", "none"];
const INPUT_TYPES: &[&str] = &["text", "image", "localImage", "audio", "localAudio", "skill", "mention"];
const MODEL_PROVIDERS: &[&str] = &["embedded", "mock", "ollama", "openai"];

/// The params of a request that requires them.
pub(super) fn required(params: Option<&Value>) -> Result<&Value, Refusal> {
    match params {
        Some(params) if params.is_object() => Ok(params),
        Some(other) => Err(Refusal::params(format_args!("invalid type: {}, expected a map", kind(other)))),
        None => Err(Refusal::params("missing field `params`")),
    }
}

/// A required string.
pub(super) fn string<'a>(params: &'a Value, field: &str) -> Result<&'a str, Refusal> {
    match params.get(field) {
        None => Err(Refusal::params(format_args!("missing field `{field}`"))),
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(Refusal::params(format_args!("invalid type: {}, expected a string", kind(other)))),
    }
}

/// The `threadId` as a UUID in its usual form; `what` is the name of the ID in the error text.
pub(super) fn thread_id(params: &Value, what: &str) -> Result<String, Refusal> {
    let text = string(params, "threadId")?;
    match Uuid::parse_str(text) {
        Ok(id) => Ok(id.to_string()),
        Err(error) => {
            let wrong =
                text.chars().enumerate().find(|(_, letter)| !letter.is_ascii_hexdigit() && *letter != '-');
            let detail = match wrong {
                // Codex uses another version of the library, with another text and positions from 1.
                Some((index, letter)) => format!(
                    "invalid character: expected an optional prefix of `urn:uuid:` followed by \
                     [0-9a-fA-F-], found `{letter}` at {}",
                    index + 1
                ),
                None => error.to_string(),
            };
            Err(Refusal::invalid(format!("invalid {what} id: {detail}")))
        }
    }
}

/// Checks the settings that threads and turns have in common; each may be absent or null.
pub(super) fn check_settings(params: &Value) -> Result<(), Refusal> {
    for field in ["cwd", "model", "modelProvider", "serviceTier", "baseInstructions", "developerInstructions"]
    {
        optional_string(params, field)?;
    }
    match present(params, "approvalPolicy") {
        None => {}
        Some(Value::Object(policy)) if policy.contains_key("granular") => {}
        Some(policy) => variant(policy, APPROVAL_POLICIES)?,
    }
    for (field, allowed) in
        [("sandbox", SANDBOX_MODES), ("personality", PERSONALITIES), ("summary", SUMMARIES)]
    {
        if let Some(value) = present(params, field) {
            variant(value, allowed)?;
        }
    }
    if let Some(policy) = present(params, "sandboxPolicy") {
        variant(tag(policy)?, SANDBOX_POLICIES)?;
    }
    if let Some(provider) = present(params, "modelProvider").and_then(Value::as_str)
        && !MODEL_PROVIDERS.contains(&provider)
    {
        let message = format!("failed to load configuration: Model provider `{provider}` not found");
        return Err(Refusal::invalid(message));
    }
    Ok(())
}

/// The items of `input`, each with the fields that Codex adds.
pub(super) fn input(params: &Value) -> Result<Vec<Value>, Refusal> {
    let items = match params.get("input") {
        None => return Err(Refusal::params("missing field `input`")),
        Some(Value::Array(items)) => items,
        Some(other) => {
            let message = format!("invalid type: {}, expected a sequence", kind(other));
            return Err(Refusal::params(message));
        }
    };
    items
        .iter()
        .map(|item| {
            let name = tag(item)?;
            variant(name, INPUT_TYPES)?;
            let mut item = item.clone();
            if name.as_str() == Some("text") {
                string(&item, "text")?;
                if item.get("text_elements").is_none() {
                    item["text_elements"] = Value::Array(Vec::new());
                }
            }
            Ok(item)
        })
        .collect()
}

/// All text of an input, which contains the directives of the script.
pub(super) fn text_of(input: &[Value]) -> String {
    let texts: Vec<&str> = input.iter().filter_map(|item| item.get("text")?.as_str()).collect();
    texts.join("\n")
}

/// A field that is neither absent nor null.
pub(super) fn present<'a>(params: &'a Value, field: &str) -> Option<&'a Value> {
    params.get(field).filter(|value| !value.is_null())
}

fn optional_string(params: &Value, field: &str) -> Result<(), Refusal> {
    match present(params, field) {
        None | Some(Value::String(_)) => Ok(()),
        Some(other) => Err(Refusal::params(format_args!("invalid type: {}, expected a string", kind(other)))),
    }
}

fn tag(value: &Value) -> Result<&Value, Refusal> {
    if !value.is_object() {
        let message = format!("invalid type: {}, expected internally tagged enum", kind(value));
        return Err(Refusal::params(message));
    }
    value.get("type").ok_or_else(|| Refusal::params("missing field `type`"))
}

fn variant(value: &Value, allowed: &[&str]) -> Result<(), Refusal> {
    match value.as_str() {
        Some(name) if allowed.contains(&name) => Ok(()),
        Some(name) => Err(unknown_variant(name, allowed)),
        None => {
            let message = format!("invalid type: {}, expected string or map", kind(value));
            Err(Refusal::params(message))
        }
    }
}

/// The error for a value or a method that is not one of `allowed`.
pub(super) fn unknown_variant(name: &str, allowed: &[&str]) -> Refusal {
    let allowed: Vec<String> = allowed.iter().map(|name| format!("`{name}`")).collect();
    Refusal::params(format_args!("unknown variant `{name}`, expected one of {}", allowed.join(", ")))
}

fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => format!("boolean `{flag}`"),
        Value::Number(number) if number.is_f64() => format!("floating point `{number}`"),
        Value::Number(number) => format!("integer `{number}`"),
        Value::String(text) => format!("string {text:?}"),
        Value::Array(_) => "sequence".to_owned(),
        Value::Object(_) => "map".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn message<T>(result: Result<T, Refusal>) -> String {
        result.err().map(|refusal| refusal.message).unwrap_or_default()
    }

    #[test]
    fn check_settings_rejects_values_with_the_error_texts_of_codex() {
        let cases = [
            (
                json!({ "approvalPolicy": "on-failure" }),
                "Invalid request: unknown variant `on-failure`, expected one of `untrusted`, `on-request`, `granular`, `never`",
            ),
            (
                json!({ "sandbox": "bogus" }),
                "Invalid request: unknown variant `bogus`, expected one of `read-only`, `workspace-write`, `danger-full-access`",
            ),
            (
                json!({ "personality": "weird" }),
                "Invalid request: unknown variant `weird`, expected one of `none`, `friendly`, `pragmatic`",
            ),
            (
                json!({ "summary": "weird" }),
                "Invalid request: unknown variant `weird`, expected one of `auto`, `concise`, `detailed`, `none`",
            ),
            (
                json!({ "modelProvider": "nope" }),
                "failed to load configuration: Model provider `nope` not found",
            ),
        ];
        for (params, expected) in cases {
            assert_eq!(message(check_settings(&params)), expected);
        }
        let nulls = json!({ "approvalPolicy": null, "sandbox": null, "personality": null, "cwd": null });
        assert_eq!(check_settings(&nulls), Ok(()));
    }

    #[test]
    fn input_accepts_a_list_of_known_items_only() {
        assert_eq!(
            message(input(&json!({ "input": "str" }))),
            "Invalid request: invalid type: string \"str\", expected a sequence"
        );
        assert_eq!(
            message(input(&json!({ "input": [{ "type": "bogus" }] }))),
            "Invalid request: unknown variant `bogus`, expected one of `text`, `image`, `localImage`, `audio`, `localAudio`, `skill`, `mention`"
        );
        let items = input(&json!({ "input": [{ "type": "text", "text": "x" }] })).unwrap();
        assert_eq!(items, [json!({ "type": "text", "text": "x", "text_elements": [] })]);
    }

    #[test]
    fn thread_id_error_uses_the_name_of_the_method() {
        let detail = "invalid character: expected an optional prefix of `urn:uuid:` followed by [0-9a-fA-F-], found `n` at 1";
        let params = json!({ "threadId": "nope" });
        assert_eq!(message(thread_id(&params, "thread")), format!("invalid thread id: {detail}"));
        let params = json!({ "threadId": "bad-id" });
        assert!(message(thread_id(&params, "session")).ends_with("found `i` at 5"));
        assert_eq!(message(required(None)), "Invalid request: missing field `params`");
    }
}
