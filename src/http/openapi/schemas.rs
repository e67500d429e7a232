//! The tables by which requests are read, as JSON Schema.

use serde_json::{Map, Value, json};

use crate::codex::protocol::values::{APPROVAL_POLICIES, INPUT_TYPES};
use crate::http::bodies::{BodySchema, Field, Kind, Rule};
use crate::http::queries::{self, Parameter};
use crate::http::values;

impl BodySchema {
    /// Whether a request without a body is wrong.
    pub(super) fn is_needed(&self) -> bool {
        let rule = match self.rule {
            Rule::FirstOf { .. } | Rule::ExactlyOne { .. } => true,
            Rule::None | Rule::NotBoth { .. } => false,
        };
        rule || self.fields.iter().any(|field| field.required)
    }
}

/// The body of a request.
pub(super) fn form(body: &BodySchema) -> Value {
    let fields: Map<_, _> =
        body.fields.iter().map(|field| (field.name.to_owned(), property(field))).collect();
    let mut schema = json!({ "type": "object", "properties": fields });
    let required: Vec<_> =
        body.fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    let one = |name: &&str| json!({ "required": [name] });
    match &body.rule {
        Rule::None => {}
        Rule::FirstOf { names, .. } => schema["anyOf"] = names.iter().map(one).collect(),
        Rule::NotBoth { names, .. } => schema["not"] = json!({ "required": names }),
        Rule::ExactlyOne { names, .. } => schema["oneOf"] = names.iter().map(one).collect(),
    }
    schema
}

fn property(field: &Field) -> Value {
    let mut schema = if field.required { filled_text() } else { kind(field.kind) };
    schema["description"] = field.description.into();
    schema
}

fn filled_text() -> Value {
    json!({ "type": "string", "pattern": "\\S" })
}

/// What a field holds, when it is not required: `null` is the same as absent.
fn kind(kind: Kind) -> Value {
    match kind {
        Kind::Text => json!({ "type": ["string", "null"] }),
        Kind::Enum(words) => or_null(words.variants),
        Kind::ApprovalPolicy => {
            json!({ "type": ["string", "object", "null"], "examples": APPROVAL_POLICIES })
        }
        Kind::Directory => json!({ "type": ["string", "null"], "pattern": "^(\\s*$|/)" }),
        Kind::Object => json!({ "type": ["object", "null"] }),
        Kind::Any => json!({}),
        Kind::Flag => json!({ "type": ["boolean", "null"] }),
        Kind::FlagOr(word) => json!({ "enum": [true, false, word, null] }),
        Kind::Seconds => json!({ "type": ["integer", "null"], "minimum": 1, "maximum": values::MAX_SECONDS }),
        Kind::Labels => json!({
            "type": ["object", "null"],
            "propertyNames": { "pattern": "\\S" },
            "additionalProperties": filled_text(),
        }),
        Kind::Input => json!({ "anyOf": [
            { "type": ["string", "null"] },
            { "type": "array", "minItems": 1, "items": {
                "type": "object",
                "required": ["type"],
                "properties": { "type": { "enum": INPUT_TYPES } },
                "if": { "properties": { "type": { "const": "text" } } },
                "then": { "required": ["text"], "properties": { "text": filled_text() } },
            } },
        ] }),
    }
}

/// One of these words, nothing, or `null`.
fn or_null(words: &[&str]) -> Value {
    let words: Vec<Value> = words.iter().map(|word| Value::from(*word)).chain([Value::Null]).collect();
    json!({ "enum": words })
}

/// The parameters in the braces of a path.
pub(super) fn path_parameters(path: &str) -> impl Iterator<Item = Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names.filter(|name| !name.contains(' ')).map(|name| {
        json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "minLength": 1 } })
    })
}

/// A parameter of the query; `None` for a family of them, which OpenAPI has no words for.
pub(super) fn parameter(parameter: &Parameter) -> Option<Value> {
    let schema = match parameter.kind {
        queries::Kind::Text => json!({ "type": "string" }),
        queries::Kind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        queries::Kind::Enum(words) => json!({ "enum": words.variants }),
        queries::Kind::Integer { least, most } | queries::Kind::Seconds { least, most } => {
            json!({ "type": "integer", "minimum": least, "maximum": most })
        }
        queries::Kind::Cursor => json!({ "type": "string", "pattern": "^([0-9A-Za-z]+-)?[0-9]+$" }),
        queries::Kind::Flag => json!({ "type": "boolean" }),
        queries::Kind::Prefix => return None,
    };
    Some(json!({
        "name": parameter.name,
        "in": "query",
        "description": parameter.description,
        "schema": schema,
    }))
}

/// The header that makes a request one that may be repeated.
pub(super) fn idempotency_key() -> Value {
    json!({
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Makes the request one that may be repeated: for a day the same word with the same request \
                        gives the first answer again.",
        "schema": { "type": "string", "minLength": 1, "maxLength": crate::http::body::MAX_KEY_CHARS, "pattern": "^[!-~]+$" },
    })
}
