//! Rewrites schemas into forms that generators of clients read. Stateless; called by the OpenAPI document.
//!
//! JSON Schema can say the same in several ways, and openapi-typescript, openapi-python-client and openapi-generator each
//! read some of them only.

use serde_json::{Map, Value, json};

use crate::http::parse::has_type;

/// Rewrites a schema, and every schema in it.
pub(super) fn rewrite(schema: &mut Value) {
    if *schema == true {
        *schema = json!({});
    }
    let Some(fields) = schema.as_object_mut() else { return };
    list_constants(fields);
    match fields.remove("const") {
        // No generator reads a boolean with one value.
        Some(Value::Bool(_)) => drop(fields.insert("type".to_owned(), "boolean".into())),
        Some(value) => drop(fields.insert("enum".to_owned(), json!([value]))),
        None => {}
    }
    for_each_subschema(fields, &mut rewrite);
    if has_type(schema, "array") && schema.get("items").is_none() {
        schema["items"] = json!({});
    }
}

/// Replaces `oneOf` constants, each with a description, by `enum`, with the descriptions as a list.
fn list_constants(fields: &mut Map<String, Value>) {
    let Some(alternatives) = fields.get("oneOf").and_then(Value::as_array) else { return };
    let values = |alternative: &Value| match (alternative.get("const"), alternative["enum"].as_array()) {
        (Some(value), _) if value.is_string() => Some(vec![value.clone()]),
        (None, Some(values)) => Some(values.clone()),
        _ => None,
    };
    let Some(lists) = alternatives.iter().map(values).collect::<Option<Vec<_>>>() else { return };
    let mut description = fields.get("description").and_then(Value::as_str).unwrap_or_default().to_owned();
    for (alternative, values) in alternatives.iter().zip(&lists) {
        if let (Some(text), [Value::String(value)]) = (alternative["description"].as_str(), &values[..]) {
            let separator = if description.contains("\n- ") { "\n" } else { "\n\n" };
            description += &format!("{separator}- `{value}`: {text}");
        }
    }
    fields.remove("oneOf");
    fields.insert("type".to_owned(), "string".into());
    fields.insert("enum".to_owned(), lists.concat().into());
    fields.insert("description".to_owned(), description.trim_start().into());
}

/// Rewrites the schema of a request body. Its fields are optional and not nullable: to codexd `null` is an absent field,
/// and a generated client would have to distinguish the two.
pub(super) fn rewrite_request(schema: &mut Value) {
    rewrite(schema);
    remove_null(schema);
}

fn remove_null(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    for name in ["type", "enum", "anyOf"] {
        let Some(values) = fields.get_mut(name).and_then(Value::as_array_mut) else { continue };
        values.retain(|value| !value.is_null() && value != "null" && value["type"] != "null");
    }
    // What remains alone is not a list of alternatives.
    if let Some([only]) = fields.get("anyOf").and_then(Value::as_array).map(Vec::as_slice) {
        let only = only.clone();
        fields.remove("anyOf");
        for (name, value) in only.as_object().into_iter().flatten() {
            fields.entry(name).or_insert_with(|| value.clone());
        }
    }
    if let Some([only]) = fields.get("type").and_then(Value::as_array).map(Vec::as_slice) {
        let only = only.clone();
        fields.insert("type".to_owned(), only);
    }
    separate_types(fields);
    // In an object with any keys, `null` is a value: that of a key to remove.
    let values = fields.get_mut("additionalProperties").map(Value::take);
    for_each_subschema(fields, &mut remove_null);
    if let Some(values) = values {
        fields["additionalProperties"] = values;
    }
}

/// Makes a schema of each of several types, and of each type of several values. `oneOf`, because openapi-generator makes an
/// empty struct from `anyOf` in Rust.
fn separate_types(fields: &mut Map<String, Value>) {
    let own = |kind: &Value, fields: &Map<String, Value>| {
        let names: &[&str] = match kind.as_str() {
            Some("array") => &["items", "minItems"],
            Some("object") => &["additionalProperties"],
            _ => &["examples"],
        };
        let mut own = json!({ "type": kind });
        for name in names {
            fields.get(*name).into_iter().for_each(|value| own[*name] = value.clone());
        }
        if kind == "object" {
            own["additionalProperties"] = true.into();
        }
        own
    };
    if let Some(kinds) = fields.get("type").and_then(Value::as_array) {
        let alternatives = kinds.iter().map(|kind| own(kind, fields)).collect();
        fields.retain(|name, _| name == "description");
        fields.insert("oneOf".to_owned(), alternatives);
    }
    let values = fields.get("enum").and_then(Value::as_array);
    if let Some(values) = values.filter(|values| values.iter().any(Value::is_boolean)) {
        let texts: Vec<_> = values.iter().filter(|value| value.is_string()).cloned().collect();
        fields.remove("enum");
        fields
            .insert("oneOf".to_owned(), json!([{ "type": "boolean" }, { "type": "string", "enum": texts }]));
    }
}

/// Calls `visit` for each schema directly in this one.
fn for_each_subschema(fields: &mut Map<String, Value>, visit: &mut dyn FnMut(&mut Value)) {
    for (name, member) in fields {
        match (&**name, member) {
            ("properties", Value::Object(properties)) => properties.values_mut().for_each(&mut *visit),
            ("oneOf" | "anyOf" | "allOf", Value::Array(schemas)) => schemas.iter_mut().for_each(&mut *visit),
            ("items", schema) => visit(schema),
            ("additionalProperties", schema) if schema.is_object() => visit(schema),
            _ => {}
        }
    }
}

/// Moves every schema with a title into `components`, and refers to it.
pub(super) fn move_titled(schema: &mut Value, components: &mut Map<String, Value>) {
    let Some(fields) = schema.as_object_mut() else { return };
    for_each_subschema(fields, &mut |schema| move_titled(schema, components));
    if let Some(Value::String(title)) = fields.remove("title") {
        let reference = reference(&title);
        components.insert(title, std::mem::replace(schema, reference));
    }
}

/// A reference to a named schema.
pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_take_forms_that_generators_read() {
        let rewritten = |mut schema| {
            rewrite(&mut schema);
            schema
        };
        assert_eq!(
            rewritten(json!({
                "description": "How.",
                "oneOf": [
                    { "type": "string", "enum": ["a", "b"] },
                    { "type": "string", "const": "c", "description": "Third." },
                ],
            })),
            json!({ "description": "How.\n\n- `c`: Third.", "type": "string", "enum": ["a", "b", "c"] })
        );
        assert_eq!(
            rewritten(json!({ "properties": {
                "ok": { "const": true },
                "any": true,
                "list": { "type": ["array", "null"], "items": true },
                "objects": { "type": "array", "items": { "additionalProperties": { "type": "array" } } },
            } })),
            json!({ "properties": {
                "ok": { "type": "boolean" },
                "any": {},
                "list": { "type": ["array", "null"], "items": {} },
                "objects": {
                    "type": "array",
                    "items": { "additionalProperties": { "type": "array", "items": {} } },
                },
            } })
        );
        let union = json!({ "oneOf": [{ "type": "object" }, { "type": "string", "const": "c" }] });
        assert_eq!(rewritten(union)["oneOf"][1], json!({ "type": "string", "enum": ["c"] }));
    }

    #[test]
    fn fields_of_requests_are_not_nullable_and_have_one_type_each() {
        let mut schema = json!({ "properties": {
            "text": { "type": ["string", "null"], "description": "Text." },
            "choice": { "anyOf": [{ "type": "string", "enum": ["a"] }, { "type": "null" }], "description": "One." },
            "mixed": { "enum": [true, false, "ask", null] },
            "input": { "type": ["string", "array", "null"], "minItems": 1, "items": { "title": "Item" } },
            "policy": { "type": ["string", "object"], "examples": ["a"], "description": "When." },
            "labels": { "type": "object", "additionalProperties": { "type": ["string", "null"] } },
        } });
        rewrite_request(&mut schema);
        let mut components = Map::new();
        move_titled(&mut schema, &mut components);
        assert_eq!(
            schema["properties"],
            json!({
                "text": { "type": "string", "description": "Text." },
                "choice": { "type": "string", "enum": ["a"], "description": "One." },
                "mixed": { "oneOf": [{ "type": "boolean" }, { "type": "string", "enum": ["ask"] }] },
                "input": { "oneOf": [
                    { "type": "string" },
                    { "type": "array", "minItems": 1, "items": { "$ref": "#/components/schemas/Item" } },
                ] },
                "policy": { "description": "When.", "oneOf": [
                    { "type": "string", "examples": ["a"] },
                    { "type": "object", "additionalProperties": true },
                ] },
                "labels": { "type": "object", "additionalProperties": { "type": ["string", "null"] } },
            })
        );
        assert_eq!(components["Item"], json!({}));
    }
}
