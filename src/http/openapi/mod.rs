//! `GET /openapi.json`: the API as an OpenAPI 3.1 document.
//!
//! The document is generated on request from the routes, their body schemas, query parameters and response types, so it
//! cannot differ from what the daemon does. Stateless; called by `router`.

mod events;
mod links;
mod messages;
mod portable;
mod schemas;

use std::collections::BTreeMap;

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::error::{self, ErrorKind, Failure};
use super::route::{EVENT_STREAM, Route};
use super::web;
use crate::http::openapi::portable::reference;

/// The rules that hold for all routes, and the shape of failures.
const INTRODUCTION: &str = "The local API of codexd, a daemon that supervises the Codex app-server and keeps its sessions.\n\n\
    Trailing slashes of a path, unknown fields and unknown parameters are ignored. \
    In a request body, strings are trimmed, except paths; an empty string or `null` counts as an absent field; so does an empty parameter of a query. \
    A body with a `Content-Encoding` is rejected with 415. \
    A failure is `{\"ok\": false, \"error\": code, \"message\": sentence}`, sometimes with `details`; \
    an unknown route is answered with 404 and `not_found`.\n\n\
    Before routing, a request may be rejected with 401 (token), 403 (another user, `Host` or web page), 408 (body too \
    slow) or 503 (too many connections), and without a body with 400 (malformed head) or 431 (head over 16 KiB); an \
    internal error of codexd is answered with 500.";

/// When a token is required.
const TOKEN_DESCRIPTION: &str = "Required by every route except / and /healthz if the daemon was started with --auth-token-file. \
    A WebSocket handshake may carry it as one of its subprotocols instead: `codexd.v1, codexd.bearer.TOKEN`.";

/// The OpenAPI document of `routes`, for a daemon that listens at `base_url` and serves its event stream at `event_stream_path`.
pub(super) fn document(routes: &[Route], event_stream_path: &str, base_url: &str) -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        })
        .for_serialize()
        .into_generator();
    let mut paths = Map::new();
    let mut components = Map::new();
    for route in routes {
        let methods = paths.entry(route.path(event_stream_path)).or_insert_with(|| json!({}));
        methods[route.http_method().to_lowercase()] = operation(route, &mut generator);
        if let Some(schema) = route.body {
            let mut schema = schema().to_value();
            portable::rewrite_request(&mut schema);
            portable::move_titled(&mut schema, &mut components);
        }
    }
    generator.subschema_for::<Failure>();
    let details = events::details(&mut generator);
    components.append(&mut generator.take_definitions(true));
    components.values_mut().for_each(portable::rewrite);
    events::add(&mut components, details);
    messages::add(&mut components);
    let components: BTreeMap<_, _> = components.into_iter().collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "codexd",
            "version": env!("CARGO_PKG_VERSION"),
            "description": INTRODUCTION,
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "tags": links::tags(),
        "servers": [{ "url": base_url }],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer", "description": TOKEN_DESCRIPTION } },
        },
        "security": [{}, { "token": [] }],
    })
}

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut parameters: Vec<Value> = schemas::path_parameters(route.path).collect();
    let (query, families) = route.query.map(|schema| schemas::query_parameters(schema())).unwrap_or_default();
    parameters.extend(query);
    if route.supports_idempotency_key {
        parameters.push(schemas::idempotency_key());
    }
    let mut operation = json!({
        "operationId": route.operation_id,
        "tags": [links::tag(route.path)],
        "summary": route.description,
        "responses": responses(route, generator),
    });
    if route.needs_no_token() {
        operation["security"] = json!([{}]);
    }
    let families = families.iter().filter_map(Value::as_str);
    let remarks: Vec<_> =
        [route.remarks].into_iter().chain(families).filter(|remark| !remark.is_empty()).collect();
    if !remarks.is_empty() {
        operation["description"] = remarks.join("\n\n").into();
    }
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(schema) = route.body {
        let (name, schema) = schemas::named(schema());
        // The others are valid without a field, and so without a body.
        let is_required = ["required", "minProperties"].iter().any(|rule| schema.get(rule).is_some());
        operation["requestBody"] = json!({
            "required": is_required,
            "content": { "application/json": { "schema": reference(&name) } },
        });
        let examples = route.examples.iter().map(|example| (example.name.to_owned(), example.in_document()));
        operation["requestBody"]["content"]["application/json"]["examples"] =
            examples.collect::<Map<_, _>>().into();
    }
    if route.path == EVENT_STREAM {
        messages::describe(&mut operation);
    }
    operation
}

fn responses(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut responses = Map::new();
    let is_page = route.media_type == web::CONTENT_TYPE;
    let cache_control = if is_page { web::CACHE_CONTROL } else { "no-store" };
    let mut success = json!({
        "description": "Success.",
        "headers": { "Cache-Control": { "schema": { "type": "string", "enum": [cache_control] } } },
        "content": { (route.media_type): { "schema": (route.response_schema)(generator) } },
    });
    success["description"] = match route.status {
        201 => "Created.",
        202 => "Accepted.",
        _ => "Success.",
    }
    .into();
    links::add(&mut success, route.operation_id);
    responses.insert(route.status.to_string(), success);
    if is_page {
        let unchanged = json!({ "description": "The entity tag of the page is in `If-None-Match`." });
        responses.insert("304".to_owned(), unchanged);
    }
    let mut by_status: BTreeMap<u16, Vec<ErrorKind>> = BTreeMap::new();
    let guard_errors =
        [&[error::FORBIDDEN][..], if route.needs_no_token() { &[] } else { &[error::UNAUTHORIZED] }];
    for kind in route.errors.iter().copied().chain(guard_errors).flatten() {
        let kinds = by_status.entry(kind.status.as_u16()).or_default();
        if !kinds.contains(kind) {
            kinds.push(*kind);
        }
    }
    for (status, kinds) in by_status {
        let descriptions: Vec<_> =
            kinds.iter().map(|kind| format!("`{}`: {}", kind.code, kind.when)).collect();
        let mut response = json!({
            "description": descriptions.join("\n"),
            "content": { "application/json": { "schema": reference("Failure") } },
        });
        if status == 503 {
            response["headers"] = json!({ "Retry-After": {
                "description": "When to retry, in seconds.",
                "schema": { "type": "integer" },
            } });
        }
        responses.insert(status.to_string(), response);
    }
    responses.into()
}
