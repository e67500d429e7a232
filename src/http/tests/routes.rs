//! Tests of the routes: what each returns, and unknown routes.

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value, json};

use super::{BASE_URL, SESSION, TestApp};

#[tokio::test]
async fn healthz_is_ok_without_app_server_and_reports_not_ready_reason() {
    let app = TestApp::new().await;
    let health = app.get("/healthz").await;
    assert_eq!(health.status, 200);
    assert_eq!(health.json["status"], "ok");
    let service = &health.json["service"];
    assert_eq!((&service["ready"], &service["listening"]), (&json!(false), &json!(true)));
    assert!(service["notReadyReason"].as_str().unwrap().contains("no-codex"), "{service}");
    assert_eq!(service["resolvedBaseUrl"], BASE_URL);
    assert_eq!(service["configuredBaseUrl"], "http://127.0.0.1:4319");
    assert_eq!(service["eventStreamPath"], "/v1/codexd/events");
    assert_eq!(service["eventStreamUrl"], "ws://127.0.0.1:9/v1/codexd/events");
    assert_eq!(service["websocketClients"], 0);
    app.stop().await;
}

#[tokio::test]
async fn describe_lists_eight_formal_routes_in_order() {
    let app = TestApp::new().await;
    let document = app.get("/describe").await.json;
    let routes: Vec<_> = document["routes"].as_array().unwrap().iter().map(line).collect();
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
    let extensions = document["extensions"].as_array().unwrap();
    assert_eq!(
        extensions.iter().map(line).collect::<Vec<_>>(),
        [
            "GET /v1/codexd/events",
            "GET /v1/codexd/events",
            "GET /",
            "GET /openapi.json",
            "GET /metrics",
            "PATCH /v1/codexd/sessions/:session_id",
            "DELETE /v1/codexd/sessions/:session_id",
            "GET /v1/codexd/sessions/:session_id/turns/:turn_id",
            "DELETE /v1/codexd/sessions/:session_id/queue/:queue_id",
            "POST /v1/codexd/sessions/:session_id/queue/resume",
            "POST /v1/codexd/turn/interrupt",
            "GET /v1/codexd/app-server",
            "POST /v1/codexd/app-server/restart",
            "GET /v1/codexd/account",
            "GET /v1/codexd/models",
            "GET /v1/codexd/threads",
            "POST /v1/codexd/app-server/call",
            "GET /v1/codexd/hooks",
            "POST /v1/codexd/hooks",
            "DELETE /v1/codexd/hooks/:hook_id",
            "POST /v1/codexd/hooks/:hook_id/test",
            "GET /v1/codexd/requests",
            "GET /v1/codexd/requests/:request_id",
            "POST /v1/codexd/requests/:request_id",
            "POST /mcp",
            "GET /mcp",
            "DELETE /mcp",
        ]
    );
    for extension in extensions {
        let keys: Vec<_> = keys(extension).into_iter().filter(|key| *key != "query").collect();
        assert_eq!(keys, ["description", "method", "path"], "another shape");
    }
    for capability in ["event_replay", "event_pages", "server_sent_events", "websocket_events"] {
        assert_eq!(document["capabilities"][capability], true, "{capability}");
    }
    assert!(document.get("data").is_none());
    assert_eq!((&document["ok"], &document["name"]), (&json!(true), &json!("codexd")));
    assert_eq!(
        (&document["mode"]["current"], &document["base_url"]),
        (&json!("app-server"), &json!(BASE_URL))
    );
    let text = document.to_string().to_lowercase();
    assert!(!text.contains("runs") && !text.contains("exec"), "{text}");
    app.stop().await;
}

#[tokio::test]
async fn event_stream_path_is_configurable() {
    let app = TestApp::with(&["--event-stream-path=/elsewhere"]).await;
    let document = app.get("/describe").await.json;
    let routes = document["routes"].as_array().unwrap();
    assert_eq!((routes.len(), line(routes.last().unwrap())), (8, "WS /elsewhere".to_owned()));
    assert_eq!(document["event_stream"]["path"], "/elsewhere");
    assert_eq!(document["event_stream"]["url"], "ws://127.0.0.1:9/elsewhere");
    assert!(app.get("/elsewhere").await.data()["events"].is_array());
    let extensions = document["extensions"].as_array().unwrap();
    let transports = extensions.iter().map(line).filter(|line| line == "GET /elsewhere").count();
    assert_eq!(transports, 2, "{extensions:?}");
    assert!(!document.to_string().contains("/v1/codexd/events"), "{document}");
    app.get("/v1/codexd/events").await.error(404, "not_found");
    app.stop().await;
}

#[tokio::test]
async fn status_returns_service_and_snapshot() {
    let app = TestApp::new().await;
    let status = app.get("/v1/codexd/status").await;
    let (service, snapshot) = (&status.data()["service"], &status.data()["snapshot"]);
    assert_eq!(*service, app.get("/healthz").await.json["service"]);
    let child = &snapshot["daemon"]["child"];
    assert_eq!((&child["status"], &child["strategy"]), (&json!("failed"), &json!("spawn")));
    assert!(child["lastError"].as_str().unwrap().contains("no-codex"), "{child}");
    assert_eq!(
        (&snapshot["daemon"]["started"], &snapshot["daemon"]["pid"]),
        (&json!(true), &json!(std::process::id()))
    );
    assert_eq!(snapshot["sessionRegistry"]["sessions"][0]["sessionId"], SESSION);
    let events = &snapshot["recentEvents"];
    assert_eq!(events["maxEntries"], 50);
    let types: Vec<_> = events["events"].as_array().unwrap().iter().map(|event| &event["type"]).collect();
    // More events follow: the start is retried.
    assert_eq!(types[..4], ["session.created", "daemon.started", "child.spawn.failed", "child.backoff"]);
    assert!(snapshot["identity"]["daemonId"].is_string() && snapshot["config"].is_object());
    app.stop().await;
}

#[tokio::test]
async fn sessions_are_listed_and_read_by_id() {
    let app = TestApp::new().await;
    let listed = app.get("/v1/codexd/sessions").await;
    let sessions = listed.data()["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 1);
    let read = app.get(&format!("/v1/codexd/sessions/{SESSION}")).await;
    assert_eq!(read.data()["session"], sessions[0]);
    assert_eq!(read.data()["recentEvents"].as_array().unwrap().len(), 1);
    for (name, shown) in
        [("unknown", "unknown"), ("a%20b", "a b"), ("%2e%2e", ".."), ("session-a%00", "session-a\0")]
    {
        let unknown = app.get(&format!("/v1/codexd/sessions/{name}")).await;
        assert_eq!(unknown.error(404, "not_found"), format!("Unknown codexd session \"{shown}\"."));
    }
    app.get("/v1/codexd/sessions/%ff").await.error(404, "not_found");
    app.stop().await;
}

#[tokio::test]
async fn unknown_route_error_names_method_and_path() {
    let app = TestApp::new().await;
    for (method, path) in [
        (Method::POST, "/"),
        (Method::POST, "//"),
        (Method::GET, "/nowhere"),
        (Method::GET, "//healthz"),
        (Method::GET, "/Healthz"),
        (Method::POST, "/healthz"),
        (Method::PUT, "/v1/codexd/sessions"),
        (Method::PUT, "/v1/codexd/sessions/session-a"),
        (Method::GET, "/v1/codexd/sessions/a/b"),
        (Method::GET, "/v1/codexd/turn"),
        (Method::POST, "/v1/codexd/events"),
        (Method::OPTIONS, "/describe"),
    ] {
        let response = app.request(method.clone(), path, "").await;
        let shown = if path == "//" { "/" } else { path };
        assert_eq!(response.error(404, "not_found"), format!("Unknown codexd route {method} {shown}."));
    }
    let response = app.get("/nowhere?token=secret").await;
    assert_eq!(response.error(404, "not_found"), "Unknown codexd route GET /nowhere.");
    app.stop().await;
}

#[tokio::test]
async fn trailing_slashes_are_ignored() {
    let app = TestApp::new().await;
    for path in [
        "/healthz/",
        "/healthz///?a=1",
        "/describe/",
        "/v1/codexd/status/",
        "/v1/codexd/sessions//",
        "/v1/codexd/events/?limit=1",
    ] {
        assert_eq!(app.get(path).await.status, 200, "{path}");
    }
    assert_eq!(app.get("/v1/codexd/sessions/session-a/").await.data()["session"]["sessionId"], SESSION);
    app.post("/v1/codexd/turn/", "[]").await.error(400, "bad_request");
    app.post("/v1/codexd/sessions/", "[]").await.error(400, "bad_request");
    app.get("/v1/codexd/events/?limit=0").await.error(400, "bad_request");
    app.stop().await;
}

#[tokio::test]
async fn invalid_websocket_handshake_is_rejected() {
    let app = TestApp::new().await;
    let whole = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let send_handshake = async |change: Option<(&str, Option<&str>)>| {
        let mut request = Request::builder().uri("/v1/codexd/events");
        for (name, value) in whole {
            let value = match change {
                Some((changed, other)) if changed == name => other,
                _ => Some(value),
            };
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        app.send(request.body(Body::empty()).unwrap()).await
    };
    for missing in ["connection", "sec-websocket-key"] {
        send_handshake(Some((missing, None))).await.error(400, "bad_request");
    }
    // A request without a WebSocket upgrade gets a page.
    for other in [None, Some("h2c")] {
        assert!(send_handshake(Some(("upgrade", other))).await.data()["events"].is_array());
    }
    let old = send_handshake(Some(("sec-websocket-version", Some("8")))).await;
    old.error(426, "bad_request");
    assert_eq!(old.headers["sec-websocket-version"], "13");
    // The handshake is valid, but the test has no connection to upgrade.
    assert!(send_handshake(None).await.error(400, "bad_request").contains("HTTP/1.1"));
    app.stop().await;
}

#[tokio::test]
async fn stopping_daemon_rejects_work_and_answers_health() {
    let app = TestApp::new().await;
    app.daemon.stop().await;
    app.post("/v1/codexd/sessions", "{}").await.error(503, "shutting_down");
    let health = app.get("/healthz").await;
    assert_eq!((&health.json["status"], &health.json["service"]["ready"]), (&json!("ok"), &json!(false)));
    let snapshot = &app.get("/v1/codexd/status").await.json["data"]["snapshot"];
    assert_eq!((&snapshot["daemon"]["started"], &snapshot["daemon"]["pid"]), (&json!(false), &Value::Null));
    app.stop().await;
}

/// `METHOD PATH` of a route.
fn line(route: &Value) -> String {
    assert!(route["description"].is_string(), "{route}");
    format!("{} {}", route["method"].as_str().unwrap(), route["path"].as_str().unwrap())
}

/// The names of the fields of an object.
fn keys(object: &Value) -> Vec<&String> {
    object.as_object().unwrap().keys().collect()
}
