//! Describes the parameters of requests. Stateless; called by the OpenAPI document.

use schemars::Schema;
use serde_json::{Value, json};

use crate::http::parse::has_type;

/// The parameters in the braces of a path.
pub(super) fn path_parameters(path: &str) -> impl Iterator<Item = Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names.filter(|name| !name.contains(' ')).map(|name| {
        json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "minLength": 1 } })
    })
}

/// The parameters of a query with this schema, and the descriptions of families of parameters, which OpenAPI cannot express.
pub(super) fn query_parameters(mut schema: Schema) -> (Vec<Value>, Vec<Value>) {
    let (mut parameters, mut families) = (Vec::new(), Vec::new());
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    for (name, property) in properties.into_iter().flatten() {
        let description = property["description"].take();
        if has_type(property, "object") {
            families.push(description);
            continue;
        }
        super::portable::rewrite_request(property);
        let schema = without_description(property);
        parameters.push(json!({ "name": name, "in": "query", "description": description, "schema": schema }));
    }
    (parameters, families)
}

/// The schema of a parameter, without what the parameter has itself.
fn without_description(schema: &mut Value) -> Value {
    if let Some(schema) = schema.as_object_mut() {
        schema.retain(|name, _| !["description", "default"].contains(&name.as_str()));
    }
    schema.take()
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

/// The name and the rest of the schema of a request body.
pub(super) fn named(mut schema: Schema) -> (String, Value) {
    let name = schema.remove("title").and_then(|title| title.as_str().map(str::to_owned));
    (name.unwrap_or_default(), schema.to_value())
}
