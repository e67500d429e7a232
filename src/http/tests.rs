//! Tests of the app without sockets, over a daemon whose app-server cannot be started.

mod bodies;
mod body_schemas;
mod panics_and_peers;
mod routes;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{AllowedClients, App, Peer};
use crate::config::{Config, Environment, Settings};
use crate::daemon::{Daemon, StateDirectories};
use crate::journal::{Line, Next};

/// The address that the app is configured with.
const BASE_URL: &str = "http://127.0.0.1:9";
const HOST: &str = "127.0.0.1:9";
/// A session in the log of an earlier run.
const SESSION: &str = "session-a";

/// An app and its daemon.
pub(super) struct TestApp {
    app: App,
    pub(super) daemon: Daemon,
    _directory: TempDir,
}

/// A response of the app, checked for the properties of all responses.
struct TestResponse {
    status: StatusCode,
    headers: HeaderMap,
    json: Value,
}

impl TestApp {
    pub(super) async fn new() -> Self {
        Self::with(&[]).await
    }

    /// An app with these flags, once the start of the app-server has failed.
    async fn with(flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let logs = directory.path().join("logs/codexd");
        std::fs::create_dir_all(&logs).unwrap();
        std::fs::write(logs.join("events.jsonl"), format!("{}\n", earlier_event())).unwrap();
        let mut settings = Settings::from_flags(flags).unwrap();
        settings.paths.repo_root = Some(directory.path().to_owned());
        settings.server.server_command = directory.path().join("no-codex").to_str().unwrap().to_owned();
        let config = Config::resolve(settings, &Environment::new()).unwrap();
        let directories = StateDirectories::take(&config).unwrap();
        let daemon = Daemon::start(config, directories).await.unwrap();
        // The failure is reported first and recorded a moment later.
        let mut events = daemon.follow(daemon.bounds().oldest - 1);
        let is_failure = |line: &Line| line.event_type() == b"child.spawn.failed";
        while !matches!(events.next().await.unwrap(), Next::Lines(lines) if lines.iter().any(is_failure)) {}
        assert!(!daemon.settled().await.ready);
        let app = App::new(daemon.clone(), HOST.parse().unwrap(), AllowedClients::default());
        Self { app, daemon, _directory: directory }
    }

    async fn get(&self, path: &str) -> TestResponse {
        self.request(Method::GET, path, "").await
    }

    async fn post(&self, path: &str, body: impl Into<Body>) -> TestResponse {
        self.request(Method::POST, path, body).await
    }

    async fn request(&self, method: Method, path: &str, body: impl Into<Body>) -> TestResponse {
        self.send(Request::builder().method(method).uri(path).body(body.into()).unwrap()).await
    }

    async fn send(&self, mut request: Request<Body>) -> TestResponse {
        request.headers_mut().insert("host", HOST.parse().unwrap());
        let (head, body) = self.app.respond(&Peer::Trusted, request).await.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        assert_eq!(head.headers["content-type"], "application/json; charset=utf-8");
        assert_eq!(head.headers["cache-control"], "no-store");
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(text, serde_json::to_string_pretty(&json).unwrap() + "\n");
        assert_eq!(json["ok"], head.status.is_success(), "{text}");
        TestResponse { status: head.status, headers: head.headers, json }
    }

    async fn stop(self) {
        self.daemon.stop().await;
    }
}

impl TestResponse {
    fn data(&self) -> &Value {
        assert!(self.status.is_success(), "{:#}", self.json);
        &self.json["data"]
    }

    /// Asserts status and code of a failure; returns its message.
    fn error(&self, status: u16, code: &str) -> &str {
        let is = (self.status.as_u16(), self.json["error"].as_str());
        assert_eq!(is, (status, Some(code)), "{:#}", self.json);
        self.json["message"].as_str().unwrap()
    }
}

fn earlier_event() -> Value {
    let at = "2026-01-02T03:04:05.678Z";
    let session = json!({
        "sessionId": SESSION, "purpose": "duplex", "threadId": "thread-a", "status": "active",
        "endpoint": "stdio", "childPid": 1, "createdAt": at, "updatedAt": at, "cwd": "/", "model": "m",
        "modelProvider": "p", "serviceTier": null, "reasoningEffort": null, "currentTurnId": null,
        "lastTurnId": null, "lastTurnStatus": null, "metadata": {},
    });
    json!({
        "seq": 7, "createdAt": at, "level": "info", "type": "session.created", "message": "Created.",
        "detail": { "sessionId": SESSION, "threadId": "thread-a", "purpose": "duplex", "session": session },
    })
}
