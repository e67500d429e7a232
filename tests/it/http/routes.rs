//! Known and unknown routes, and the documents of `/healthz`, `/describe` and the status.

use hyper::Method;
use hyper::header::RETRY_AFTER;
use serde_json::{Value, json};

use crate::api::{SESSIONS, STATUS, TURN, assert_keys, keys, new_session, start_daemon, wait_until_ready};
use crate::support::daemon::Daemon;
use crate::support::http::{Target, get, post, raw, request};
use crate::support::websocket::EventStream;

const SERVICE_KEYS: [&str; 6] = [
    "configuredBaseUrl",
    "eventStreamPath",
    "eventStreamUrl",
    "listening",
    "resolvedBaseUrl",
    "websocketClients",
];

#[tokio::test]
async fn healthz_reports_service_and_readiness() {
    let daemon = start_daemon().await;
    let health = get(&daemon, "/healthz").await;
    assert_eq!(health.status, 200);
    assert_eq!(keys(&health.json), ["ok", "service", "status"]);
    assert_eq!(health.json["status"], "ok");
    let service = &health.json["service"];
    assert_keys(service, &SERVICE_KEYS);
    assert_eq!(service["configuredBaseUrl"], "http://127.0.0.1:0");
    assert_eq!(service["resolvedBaseUrl"], daemon.base_url());
    assert_eq!(service["eventStreamPath"], "/v1/codexd/events");
    assert_eq!(service["eventStreamUrl"], format!("ws://{}/v1/codexd/events", daemon.authority()));
    assert_eq!(service["listening"], true);
    assert_eq!(service["websocketClients"], 0);
    wait_until_ready(&daemon).await;
    let service = &get(&daemon, "/healthz").await.json["service"];
    assert_eq!((&service["ready"], &service["notReadyReason"]), (&json!(true), &Value::Null));
}

#[tokio::test]
async fn describe_lists_the_contract_routes_and_no_retired_ones() {
    let daemon = start_daemon().await;
    let response = get(&daemon, "/describe").await;
    assert_eq!(response.status, 200);
    let describe = &response.json;
    let routes: Vec<String> = describe["routes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|route| {
            assert!(route["description"].is_string(), "{route}");
            format!("{} {}", route["method"].as_str().unwrap(), route["path"].as_str().unwrap())
        })
        .collect();
    assert_eq!(
        routes,
        [
            "GET /healthz",
            "GET /describe",
            "GET /v1/codexd/status",
            "GET /v1/codexd/sessions",
            "GET /v1/codexd/sessions/:session_id",
            "POST /v1/codexd/sessions",
            "POST /v1/codexd/turn",
            "WS /v1/codexd/events",
        ]
    );
    for extension in describe["extensions"].as_array().expect("extensions is an array") {
        assert_keys(extension, &["description", "method", "path"]);
    }
    for (pointer, expected) in [
        ("/name", json!("codexd")),
        ("/surface", json!("local-api")),
        ("/mode/current", json!("app-server")),
        ("/mode/daemon", json!("independent")),
        ("/mode/supervisor", json!("launchd")),
        ("/mode/transport", json!("codex app-server")),
        ("/mode/conductor_role", json!("proxy")),
        ("/base_url", json!(daemon.base_url())),
        ("/event_stream/path", json!("/v1/codexd/events")),
        ("/event_stream/transport", json!("websocket")),
        ("/event_stream/url", json!(format!("ws://{}/v1/codexd/events", daemon.authority()))),
    ] {
        assert_eq!(describe.pointer(pointer), Some(&expected), "{pointer}");
    }
    for capability in [
        "health_probe",
        "session_create",
        "session_list",
        "session_read",
        "turn_create",
        "turn_readback_via_session",
        "websocket_events",
    ] {
        assert_eq!(describe["capabilities"][capability], true, "{capability}");
    }
    assert!(!describe["notes"].as_array().unwrap().is_empty());
    let lower = response.text.to_lowercase();
    assert!(!lower.contains("runs") && !lower.contains("exec"), "a retired route is named in {lower}");
}

#[tokio::test]
async fn status_has_every_part_of_the_snapshot() {
    let daemon = start_daemon().await;
    wait_until_ready(&daemon).await;
    let response = get(&daemon, STATUS).await;
    let data = response.data(200);
    assert_eq!(keys(data), ["service", "snapshot"]);
    assert_keys(&data["service"], &SERVICE_KEYS);
    let snapshot = &data["snapshot"];
    assert_keys(snapshot, &["config", "identity", "daemon", "sessionRegistry", "recentEvents"]);
    assert_keys(&snapshot["identity"], &["daemonId", "nodeId", "repoRoot", "createdAt", "version"]);
    assert_eq!(snapshot["identity"]["nodeId"], "mini-main");
    let parts = ["started", "startedAt", "stoppedAt", "updatedAt", "pid", "child"];
    assert_keys(&snapshot["daemon"], &parts);
    assert_eq!(snapshot["daemon"]["started"], true);
    assert_eq!(snapshot["daemon"]["pid"], daemon.pid());
    assert_eq!(snapshot["daemon"]["stoppedAt"], Value::Null);
    let child = &snapshot["daemon"]["child"];
    let parts = [
        "strategy",
        "mode",
        "endpoint",
        "status",
        "command",
        "args",
        "cwd",
        "pid",
        "startedAt",
        "exitedAt",
        "exitCode",
        "signal",
        "lastError",
    ];
    assert_keys(child, &parts);
    assert_eq!((&child["status"], &child["strategy"]), (&json!("running"), &json!("spawn")));
    assert_eq!(child["mode"], "app-server");
    assert!(child["pid"].is_u64(), "{child}");
    assert_keys(&snapshot["sessionRegistry"], &["updatedAt", "sessions"]);
    assert_eq!(keys(&snapshot["recentEvents"]), ["maxEntries", "updatedAt", "events"]);
    assert_eq!(snapshot["recentEvents"]["maxEntries"], 50);
    for event in snapshot["recentEvents"]["events"].as_array().unwrap() {
        assert_eq!(keys(event), ["seq", "createdAt", "level", "type", "message", "detail"]);
        assert_time(&event["createdAt"]);
    }
    assert_time(&snapshot["daemon"]["startedAt"]);
}

/// Asserts an RFC 3339 time in UTC with milliseconds and `Z`.
fn assert_time(value: &Value) {
    let format: String = value
        .as_str()
        .unwrap_or_default()
        .chars()
        .map(|character| if character.is_ascii_digit() { '0' } else { character })
        .collect();
    assert_eq!(format, "0000-00-00T00:00:00.000Z", "{value}");
}

#[tokio::test]
async fn event_cache_size_limits_the_recent_events() {
    let daemon = Daemon::builder().arg("--event-cache-size").arg("2").start().await;
    wait_until_ready(&daemon).await;
    let status = get(&daemon, STATUS).await;
    let recent = &status.data(200)["snapshot"]["recentEvents"];
    assert_eq!(recent["maxEntries"], 2);
    assert_eq!(recent["events"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn trailing_slashes_of_routes_are_ignored() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    for path in ["/healthz", "/describe", STATUS, SESSIONS, &format!("{SESSIONS}/{session_id}")] {
        for slashes in ["/", "///"] {
            assert_eq!(get(&daemon, &format!("{path}{slashes}")).await.status, 200, "{path}{slashes}");
        }
        assert_eq!(get(&daemon, &format!("{path}/?a=b")).await.status, 200, "{path}/?a=b");
    }
    assert_eq!(post(&daemon, &format!("{SESSIONS}/"), &json!({})).await.status, 201);
    let body = json!({ "sessionId": session_id, "input": "hello" });
    assert_eq!(post(&daemon, &format!("{TURN}/"), &body).await.status, 202);
    EventStream::connect_to(&daemon, "/v1/codexd/events/", &[]).await.hello().await;
}

#[tokio::test]
async fn unknown_route_is_named_in_the_error() {
    let daemon = start_daemon().await;
    for (method, path, route) in [
        (Method::POST, "/", "POST /"),
        (Method::DELETE, "///", "DELETE /"),
        (Method::GET, "/nothing/here/", "GET /nothing/here"),
        (Method::GET, "/v1/codexd", "GET /v1/codexd"),
        (Method::GET, "/v1/codexd/runs", "GET /v1/codexd/runs"),
        (Method::GET, "/HEALTHZ", "GET /HEALTHZ"),
        (Method::GET, "//healthz", "GET //healthz"),
        (Method::GET, "/nothing?secret=1", "GET /nothing"),
        (Method::GET, TURN, "GET /v1/codexd/turn"),
        (Method::GET, "/v1/codexd/sessions/a/b", "GET /v1/codexd/sessions/a/b"),
        (Method::POST, "/healthz", "POST /healthz"),
        (Method::POST, STATUS, "POST /v1/codexd/status"),
        (Method::PUT, SESSIONS, "PUT /v1/codexd/sessions"),
        (Method::PUT, "/v1/codexd/sessions/x", "PUT /v1/codexd/sessions/x"),
        (Method::DELETE, "/describe", "DELETE /describe"),
        (Method::OPTIONS, SESSIONS, "OPTIONS /v1/codexd/sessions"),
        (Method::POST, "/v1/codexd/events", "POST /v1/codexd/events"),
    ] {
        let response = request(&daemon, method, path, &[], "").await;
        assert_eq!(response.error(404, "not_found"), format!("Unknown codexd route {route}."));
        assert_eq!(keys(&response.json), ["ok", "error", "message"]);
        assert_eq!(response.headers.get(RETRY_AFTER), None);
    }
}

#[tokio::test]
async fn head_request_gets_the_headers_without_the_body() {
    let daemon = start_daemon().await;
    for path in ["/healthz", STATUS] {
        let response = request(&daemon, Method::HEAD, path, &[], "").await;
        assert_eq!((response.status, response.text.as_str()), (200, ""), "{path}");
    }
}

#[tokio::test]
async fn malformed_requests_do_not_affect_the_daemon() {
    let daemon = start_daemon().await;
    for bytes in ["nonsense\r\n\r\n", "GET /healthz HTTP/9.9\r\n\r\n", "\u{0}\u{1}\u{2}\r\n\r\n"] {
        let response = raw(&daemon, bytes.as_bytes()).await;
        assert!(response.is_empty() || response.starts_with("HTTP/1.1 4"), "{bytes:?} gave {response:?}");
    }
    assert_eq!(get(&daemon, "/healthz").await.status, 200);
}

#[tokio::test]
async fn event_stream_path_is_configurable() {
    let daemon = Daemon::builder().arg("--event-stream-path").arg("/somewhere/else/").start().await;
    let url = format!("ws://{}/somewhere/else", daemon.authority());
    let service = get(&daemon, "/healthz").await.json["service"].clone();
    assert_eq!(service["eventStreamPath"], "/somewhere/else");
    assert_eq!(service["eventStreamUrl"], url);
    let describe = get(&daemon, "/describe").await.json;
    assert_eq!(describe["event_stream"]["path"], "/somewhere/else");
    assert_eq!(describe["event_stream"]["url"], url);
    let routes = describe["routes"].as_array().unwrap();
    assert_eq!((&routes[7]["method"], &routes[7]["path"]), (&json!("WS"), &json!("/somewhere/else")));
    EventStream::connect_to(&daemon, "/somewhere/else", &[]).await.hello().await;
    get(&daemon, "/v1/codexd/events").await.error(404, "not_found");
}
