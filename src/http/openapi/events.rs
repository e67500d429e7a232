//! The schemas of the events. Stateless; called by the OpenAPI document.
//!
//! `Event` is any event, with a detail of any form: later versions add types, and fields to details. `KnownEvent` is the
//! union of the types of this version, each a schema of its own.

use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::portable;
use crate::state::EventDetail;

/// What a client needs to know about the two schemas.
const KNOWN_EVENT: &str = "An event of a type that this version of codexd has. A client that converts an `Event` to it must \
    be prepared for other types: later versions have more.";

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

/// Adds the schemas of the event types to `components`, which has that of `Event`.
pub(super) fn add(components: &mut Map<String, Value>, details: Vec<(String, Value)>) {
    let Some(mut event) = components.remove("Event") else { return };
    let types: Vec<_> = details.iter().map(|(event_type, _)| event_type.clone()).collect();
    let (mut mapping, mut union) = (Map::new(), Vec::new());
    for (event_type, mut detail) in details {
        let name = class_name(&event_type);
        let mut known = event.clone();
        known["description"] = detail["description"].take();
        known["properties"]["type"] = json!({ "type": "string", "enum": [event_type] });
        // A detail without members is `null`; `Event` describes it.
        if detail.get("required").is_some() {
            portable::rewrite(&mut detail);
            detail["description"] = format!("The detail of `{event_type}`.").into();
            known["properties"]["detail"] = portable::reference(&format!("{name}Detail"));
            components.insert(format!("{name}Detail"), detail);
        }
        let reference = portable::reference(&format!("{name}Event"));
        mapping.insert(event_type, reference["$ref"].clone());
        union.push(reference);
        components.insert(format!("{name}Event"), known);
    }
    event["properties"]["type"]["examples"] = types.into();
    components.insert("Event".to_owned(), event);
    let union = json!({
        "description": KNOWN_EVENT,
        "oneOf": union,
        "discriminator": { "propertyName": "type", "mapping": mapping },
    });
    components.insert("KnownEvent".to_owned(), union);
}

/// The beginning of the names of the schemas of an event type: `turn.accepted` has `TurnAccepted`.
fn class_name(event_type: &str) -> String {
    let words = event_type.split(['.', '-']);
    words.filter_map(|word| Some(format!("{}{}", word.get(..1)?.to_uppercase(), word.get(1..)?))).collect()
}
