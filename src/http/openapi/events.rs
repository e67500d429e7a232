//! Puts the schema of every event's detail into the document. Stateless; called by the OpenAPI document.

use schemars::{Schema, SchemaGenerator};
use serde_json::{Value, json};

use crate::state::EventDetail;

/// The event types, each with the schema of its detail.
pub(super) fn details(generator: &mut SchemaGenerator) -> Vec<(String, Value)> {
    let areas = EventDetail::schemas(generator).into_iter().map(Schema::to_value);
    let variants = areas.flat_map(|mut area| area["oneOf"].as_array_mut().map(std::mem::take));
    let variants = variants.flatten().filter_map(|mut variant| {
        let description = variant["description"].take();
        let Value::Object(properties) = variant["properties"].take() else { return None };
        let (event_type, mut detail) = properties.into_iter().next()?;
        detail["description"] = description;
        if let Some(members) = detail.get_mut("properties").and_then(Value::as_object_mut) {
            // The log has a value for each of them.
            members.values_mut().filter_map(Value::as_object_mut).for_each(|member| {
                member.remove("default");
            });
        }
        Some((event_type, detail))
    });
    variants.collect()
}

/// Adds the event types to the schema of an event. Future versions may add types, and fields to details.
pub(super) fn describe(event: &mut Value, details: Vec<(String, Value)>) {
    event["properties"]["type"]["examples"] =
        details.iter().map(|(event_type, _)| event_type.as_str()).collect();
    // A detail without members is `null`.
    let with_members = details.into_iter().filter(|(_, detail)| detail.get("required").is_some());
    event["allOf"] = with_members
        .map(|(event_type, detail)| {
            json!({
                "if": { "properties": { "type": { "const": event_type } } },
                "then": { "properties": { "detail": detail } },
            })
        })
        .collect();
}
