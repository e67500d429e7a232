//! The OpenAPI document: the committed one is that of this program, and the router has exactly what it says.

#![expect(clippy::disallowed_methods, reason = "tests may block: each runs on a thread of its own")]
#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml frees test functions only, and the helpers here serve nothing but tests"
)]

#[path = "it/support/scratch.rs"]
mod scratch;

use std::path::PathBuf;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use codexd::config::{Config, Environment, Settings};
use codexd::daemon::{Daemon, StateDirectories};
use codexd::http::{AllowedClients, App, Peer, openapi_document};
use http_body_util::BodyExt;
use serde_json::Value;

const EVENTS: &str = "/v1/codexd/events";
const BASE_URL: &str = "http://127.0.0.1:4319";
/// Set to anything, it makes the test rewrite the committed document.
const UPDATE: &str = "CODEXD_UPDATE_DOCS";

#[test]
fn openapi_document_is_up_to_date() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    let now = serde_json::to_string_pretty(&openapi_document(EVENTS, BASE_URL)).unwrap() + "\n";
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let place = committed.lines().zip(now.lines()).position(|(old, new)| old != new);
    assert!(
        committed == now,
        "docs/openapi.json is not what this program says (line {}); update it with: {UPDATE}=1 cargo test --test openapi",
        place.map_or(committed.lines().count().min(now.lines().count()), |place| place) + 1
    );
}

#[test]
fn openapi_references_resolve_and_events_are_described() {
    let document = openapi_document(EVENTS, BASE_URL);
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    assert!(references.len() > 50, "{}", references.len());
    for reference in references {
        assert!(document.pointer(&reference).is_some(), "{reference}");
    }
    let types = &document["components"]["schemas"]["Event"]["properties"]["type"]["examples"];
    let types: Vec<_> = types.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    for name in ["daemon.started", "session.created", "turn.accepted", "app-server.notification"] {
        assert!(types.contains(&name), "{name}");
    }
    let listed = include_str!("../docs/api.md");
    for name in types {
        assert!(listed.contains(&format!("`{name}`")), "docs/api.md does not list {name}");
    }
}

#[tokio::test]
async fn openapi_document_matches_router() {
    let folder = scratch::directory("test");
    let mut settings = Settings::from_flags([""; 0]).unwrap();
    settings.paths.repo_root = Some(folder.path().to_owned());
    settings.server.server_command = folder.path().join("no-codex").to_str().unwrap().to_owned();
    let config = Config::resolve(settings, &Environment::new()).unwrap();
    let folders = StateDirectories::take(&config).unwrap();
    let daemon = Daemon::start(config, folders).await.unwrap();
    let app = App::new(daemon.clone(), host().parse().unwrap(), AllowedClients::default());

    let (status, document) = ask(&app, Method::GET, "/openapi.json").await;
    assert_eq!((status, &document), (StatusCode::OK, &openapi_document(EVENTS, BASE_URL)));
    let mut described = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in ["get", "put", "post", "delete", "patch", "head", "options"] {
            let asked = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let is_described = operations.get(method).is_some();
            if is_described {
                described.push(format!("{asked} {}", path.replace('{', ":").replace('}', "")));
            }
            if method == "head" {
                continue;
            }
            let asked_path = path.replace(['{', '}'], "");
            let (status, answer) = ask(&app, asked, &asked_path).await;
            let message = answer["message"].as_str().unwrap_or_default();
            let is_unknown = message.starts_with("Unknown codexd route");
            assert_eq!(is_unknown, !is_described, "{method} {path}: {message}");
            let answers = &operations[method]["responses"];
            assert!(is_unknown || answers.get(status.as_str()).is_some(), "{method} {path}: {status}");
        }
    }

    let (_, describe) = ask(&app, Method::GET, "/describe").await;
    assert_eq!(describe["openapi"], "/openapi.json");
    let text = describe.to_string().to_lowercase();
    assert!(!text.contains("runs") && !text.contains("exec"), "{text}");
    let routes = ["routes", "extensions"].map(|list| describe[list].as_array().unwrap().clone()).concat();
    let mut named: Vec<_> = routes
        .iter()
        .map(|route| format!("{} {}", route["method"].as_str().unwrap(), route["path"].as_str().unwrap()))
        .map(|line| line.replace("WS ", "GET "))
        .collect();
    named.sort();
    // The forms of the event stream share a path.
    named.dedup();
    described.sort();
    assert_eq!(named, described);
    daemon.stop().await;
}

fn host() -> &'static str {
    BASE_URL.strip_prefix("http://").unwrap()
}

async fn ask(app: &App, method: Method, path: &str) -> (StatusCode, Value) {
    let request = Request::builder().method(method).uri(path).header("host", host());
    let (head, body) = app.respond(&Peer::Trusted, request.body(Body::empty()).unwrap()).await.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    (head.status, serde_json::from_slice(&bytes).unwrap_or_default())
}

/// The places that references within a document point to.
fn collect_references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                found.push(reference.strip_prefix('#').unwrap().to_owned());
            }
            fields.values().for_each(|value| collect_references(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| collect_references(value, found)),
        _ => {}
    }
}
