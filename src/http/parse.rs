//! Parses a request body or a query string into its struct, and makes the schema of that struct.
//!
//! Owns the schemas that were made. Called by the handlers; the OpenAPI document has the same schemas. The sentence for a wrong value is made from
//! the schema of its field, unless the type of the field has its own: that is the rest of a sentence after the name, and
//! begins with a space, a bracket or a colon.

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use axum::http::Uri;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use serde_path_to_error::{Path, Segment, Track};

use super::error::ApiError;

/// The longest wrong value that an error repeats, in bytes: a WebSocket reports an error in 123 bytes.
const MAX_QUOTED_BYTES: usize = 50;

/// The schema of a request body or a query; its title is the name of the struct.
pub(super) fn schema<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.for_deserialize().into_generator().into_root_schema_for::<T>();
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    for property in properties.into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut) {
        // Says only that the field is not forwarded to the app-server.
        property.remove("writeOnly");
    }
    schema
}

/// The schema of `T`, made once: a request with a query needs it.
fn cached_schema<T: JsonSchema + 'static>() -> Arc<Schema> {
    static SCHEMAS: LazyLock<Mutex<HashMap<TypeId, Arc<Schema>>>> = LazyLock::new(Mutex::default);
    let mut schemas = SCHEMAS.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(schemas.entry(TypeId::of::<T>()).or_insert_with(|| Arc::new(schema::<T>())))
}

/// Parses the fields of an object; also returns the names of those that the struct does not have.
///
/// The error is a sentence that names the field.
pub(super) fn object<T: DeserializeOwned + JsonSchema + 'static>(
    fields: Map<String, Value>,
) -> Result<(T, Vec<String>), String> {
    // From text, because serde_json changes the notation of numbers such as 0.00001 when it converts a `Value`.
    let text = Value::Object(fields).to_string();
    let (mut track, mut ignored) = (Track::new(), Vec::new());
    let mut json = serde_json::Deserializer::from_str(&text);
    let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    let parsed = serde_ignored::deserialize(tracked, |path| ignored.push(path.to_string()));
    match parsed {
        Ok(parsed) => Ok((parsed, ignored)),
        Err(error) => Err(sentence(&cached_schema::<T>(), &text, &track.path(), &error)),
    }
}

/// Parses a query string; the error is a sentence that names the parameter.
///
/// Unknown parameters and empty ones are ignored, white space around a value too. Of a repeated parameter the last value
/// counts, unless it is a list. `labels.KEY=VALUE` is an entry of the object `labels`.
pub(super) fn query<T: DeserializeOwned + JsonSchema + 'static>(text: &str) -> Result<T, String> {
    let mut fields = Map::new();
    let schema = cached_schema::<T>();
    for (name, text) in form_urlencoded::parse(text.as_bytes()) {
        let text = text.trim();
        let property = |name: &str| schema.get("properties").and_then(|properties| properties.get(name));
        let Some(property) = property(&name) else {
            if let Some((name, key)) = name.split_once('.')
                && property(name).is_some_and(|property| has_type(property, "object"))
            {
                fields.entry(name).or_insert_with(|| Map::new().into())[key] = text.into();
            }
            continue;
        };
        let value = match text.parse::<u64>() {
            _ if text.is_empty() || has_type(property, "object") => continue,
            Ok(number) if has_type(property, "integer") => number.into(),
            _ if has_type(property, "boolean") && ["true", "false"].contains(&text) => {
                (text == "true").into()
            }
            _ => Value::from(text),
        };
        match fields.get_mut(&*name) {
            Some(Value::Array(values)) => values.push(value),
            _ if has_type(property, "array") => drop(fields.insert(name.into_owned(), vec![value].into())),
            _ => drop(fields.insert(name.into_owned(), value)),
        }
    }
    object(fields).map(|(parsed, _)| parsed)
}

/// Parses the query of a request.
pub(super) fn query_of<T: DeserializeOwned + JsonSchema + 'static>(uri: &Uri) -> Result<T, ApiError> {
    query(uri.query().unwrap_or_default()).map_err(ApiError::bad_request)
}

/// The types that a schema allows.
fn types(schema: &Value) -> impl Iterator<Item = &str> {
    let types = schema.get("type").into_iter();
    types
        .flat_map(|types| types.as_array().map_or(std::slice::from_ref(types), Vec::as_slice))
        .flat_map(Value::as_str)
}

/// Whether a schema allows this type.
pub(super) fn has_type(schema: &Value, name: &str) -> bool {
    types(schema).any(|allowed| allowed == name)
}

/// The sentence for an error at `path` of this JSON text.
fn sentence(schema: &Schema, text: &str, path: &Path, error: &serde_json::Error) -> String {
    let fields: Value = serde_json::from_str(text).unwrap_or_default();
    let named = path.iter().find_map(|segment| match segment {
        Segment::Map { key } => Some(key.as_str()),
        _ => None,
    });
    // The path of a missing field is empty.
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    let missing = required.filter_map(Value::as_str).find(|name| fields.get(name).is_none());
    let name = named.or(missing).unwrap_or_default();
    let error = error.to_string();
    // serde_json adds the position.
    let error = error.rsplit_once(" at line ").map_or(&*error, |(error, _)| error);
    match (error.starts_with([' ', '[', ':']), schema.get("properties")) {
        (false, Some(properties)) => {
            format!("{name} must be {}.", requirement(&properties[name], &fields[name]))
        }
        _ => format!("{name}{error}."),
    }
}

/// What a value with this schema must be, as a noun phrase.
fn requirement(schema: &Value, wrong: &Value) -> String {
    let mut variants = Vec::new();
    collect_variants(schema, &mut variants);
    let variants = variants.split_last().filter(|_| wrong.is_string() || types(schema).next().is_none());
    if let Some((last, others)) = variants {
        let quoted = wrong.as_str().map(|text| format!("; {text:?} is not"));
        let quoted = quoted.filter(|quoted| quoted.len() <= MAX_QUOTED_BYTES).unwrap_or_default();
        return format!("one of {} and {last}{quoted}", others.join(", "));
    }
    let phrase = |name: &str| match name {
        "string" if schema["type"].is_string() => "a non-empty string".to_owned(),
        "string" => "a string".to_owned(),
        "boolean" => "true or false".to_owned(),
        "integer" => {
            let unit = schema["x-unit"].as_str().map_or(String::new(), |unit| format!(" of {unit}"));
            format!("a whole number{unit} from {} to {}", schema["minimum"], schema["maximum"])
        }
        "array" => "a list".to_owned(),
        _ if schema["additionalProperties"].is_object() => {
            let is_nullable = types(&schema["additionalProperties"]).any(|name| name == "null");
            let nulls = if is_nullable { ", or null to remove one" } else { "" };
            format!("an object of non-empty strings{nulls}")
        }
        _ => "an object".to_owned(),
    };
    types(schema).filter(|name| *name != "null").map(phrase).collect::<Vec<_>>().join(" or ")
}

/// The values of an enum, by each of the ways in which a schema can list them.
fn collect_variants(schema: &Value, variants: &mut Vec<String>) {
    let listed = schema["enum"].as_array().into_iter().flatten().chain(schema.get("const"));
    variants.extend(listed.filter(|value| !value.is_null()).map(|value| match value.as_str() {
        Some(text) => text.to_owned(),
        None => value.to_string(),
    }));
    for alternatives in [&schema["oneOf"], &schema["anyOf"]] {
        let alternatives = alternatives.as_array().into_iter().flatten();
        alternatives.for_each(|alternative| collect_variants(alternative, variants));
    }
}
