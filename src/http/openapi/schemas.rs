//! Converts body schemas and query parameters to JSON Schema. Stateless; called by the OpenAPI document.

use serde_json::{Map, Value, json};

use crate::codex::protocol::values::{APPROVAL_POLICIES, INPUT_TYPES};
use crate::http::bodies::{BodySchema, Field, FieldKind, Rule};
use crate::http::queries::{self, Parameter};
use crate::http::values;

impl BodySchema {
    /// Whether a request without a body is invalid.
    pub(super) fn is_required(&self) -> bool {
        let rule = match self.rule {
            Rule::FirstOf { .. } | Rule::ExactlyOne { .. } => true,
            Rule::None | Rule::NotBoth { .. } => false,
        };
        rule || self.fields.iter().any(|field| field.required)
    }
}

/// The schema of a request body.
pub(super) fn body(body: &BodySchema) -> Value {
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
    let mut schema = if field.required { non_empty_string() } else { field_kind(field.kind) };
    schema["description"] = field.description.into();
    schema
}

fn non_empty_string() -> Value {
    json!({ "type": "string", "pattern": "\\S" })
}

/// The schema of an optional field: `null` counts as absent.
fn field_kind(kind: FieldKind) -> Value {
    match kind {
        FieldKind::Text => json!({ "type": ["string", "null"] }),
        FieldKind::Enum(variants) => or_null(variants.variants),
        FieldKind::ApprovalPolicy => {
            json!({ "type": ["string", "object", "null"], "examples": APPROVAL_POLICIES })
        }
        FieldKind::Directory => json!({ "type": ["string", "null"], "pattern": "^(\\s*$|/)" }),
        FieldKind::Object => json!({ "type": ["object", "null"] }),
        FieldKind::Any => json!({}),
        FieldKind::Flag => json!({ "type": ["boolean", "null"] }),
        FieldKind::FlagOr(alternative) => json!({ "enum": [true, false, alternative, null] }),
        FieldKind::Seconds => {
            json!({ "type": ["integer", "null"], "minimum": 1, "maximum": values::MAX_SECONDS })
        }
        FieldKind::Labels => json!({
            "type": ["object", "null"],
            "propertyNames": { "pattern": "\\S" },
            "additionalProperties": non_empty_string(),
        }),
        FieldKind::Input => json!({ "anyOf": [
            { "type": ["string", "null"] },
            { "type": "array", "minItems": 1, "items": {
                "type": "object",
                "required": ["type"],
                "properties": { "type": { "enum": INPUT_TYPES } },
                "if": { "properties": { "type": { "const": "text" } } },
                "then": { "required": ["text"], "properties": { "text": non_empty_string() } },
            } },
        ] }),
    }
}

/// One of the variants, or `null`.
fn or_null(variants: &[&str]) -> Value {
    let values: Vec<Value> =
        variants.iter().map(|variant| Value::from(*variant)).chain([Value::Null]).collect();
    json!({ "enum": values })
}

/// The parameters in the braces of a path.
pub(super) fn path_parameters(path: &str) -> impl Iterator<Item = Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names.filter(|name| !name.contains(' ')).map(|name| {
        json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "minLength": 1 } })
    })
}

/// A query parameter; `None` for a family of parameters, which OpenAPI cannot express.
pub(super) fn parameter(parameter: &Parameter) -> Option<Value> {
    let schema = match parameter.kind {
        queries::ParameterKind::Text => json!({ "type": "string" }),
        queries::ParameterKind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        queries::ParameterKind::Enum(variants) => json!({ "enum": variants.variants }),
        queries::ParameterKind::Integer { min, max } | queries::ParameterKind::Seconds { min, max } => {
            json!({ "type": "integer", "minimum": min, "maximum": max })
        }
        queries::ParameterKind::Cursor => json!({ "type": "string", "pattern": "^([0-9A-Za-z]+-)?[0-9]+$" }),
        queries::ParameterKind::Flag => json!({ "type": "boolean" }),
        queries::ParameterKind::Prefix => return None,
    };
    Some(json!({
        "name": parameter.name,
        "in": "query",
        "description": parameter.description,
        "schema": schema,
    }))
}

/// The header that makes a request repeatable.
pub(super) fn idempotency_key() -> Value {
    json!({
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Makes the request repeatable: for 24 hours the same key with the same request returns the first \
                        response again.",
        "schema": { "type": "string", "minLength": 1, "maxLength": crate::http::body::MAX_KEY_CHARS, "pattern": "^[!-~]+$" },
    })
}

/// A reference to a named schema.
pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}
