//! External app-servers: codexd uses them, reports endpoints that it cannot connect to, and never stops them.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{self, ServerConfig, pki_types};

use super::app_server::AppServer;
use super::{create_session, record, rest_of, submit};
use crate::support::codex::CodexHome;
use crate::support::daemon::Daemon;
use crate::support::http::get;
use crate::support::model::{MockModel, text_of_deltas};
use crate::support::scratch;
use crate::support::wait::wait_until_async;
use crate::support::websocket::EventStream;

/// Starts a daemon that uses this endpoint; returns its event stream and the daemon.
pub(super) async fn attach(endpoint: &str) -> (EventStream, Daemon) {
    let daemon = Daemon::builder().external(endpoint).start().await;
    let mut events = EventStream::connect(&daemon).await;
    events.hello().await;
    (events, daemon)
}

/// Runs a session and a turn with a daemon that uses this endpoint and stops it; returns the session.
async fn run_turn_through(endpoint: &str, home: &CodexHome, settings: &Value) -> Value {
    let (mut events, mut daemon) = attach(endpoint).await;
    let session = create_session(&daemon, home, settings).await;
    assert_eq!((&session["endpoint"], &session["childPid"]), (&json!(endpoint), &Value::Null));
    let body = json!({ "sessionId": session["sessionId"], "input": "mock:deltas=3" });
    let turn_id = submit(&daemon, &body).await.data(202)["turnId"].as_str().unwrap().to_owned();
    let turn = rest_of(&mut events, &turn_id).await;
    assert_eq!((turn.status(), turn.text()), ("completed", text_of_deltas(3)));
    let status = get(&daemon, "/v1/codexd/status").await;
    let child = &status.data(200)["snapshot"]["daemon"]["child"];
    assert_eq!((&child["status"], &child["strategy"]), (&json!("external"), &json!("external")));
    let stopped = daemon.stop().await;
    assert!(stopped.status.success(), "{stopped:?}");
    let on_disk = daemon.events_on_disk();
    for expected in ["child.external", "app-server.connected", "daemon.stopped"] {
        assert!(on_disk.iter().any(|event| event["type"] == expected), "no {expected}");
    }
    assert!(on_disk.iter().all(|event| event["type"] != "app-server.transport.closed"));
    session
}

/// Waits until the daemon reports that it is not ready; returns the cause.
async fn not_ready(daemon: &Daemon) -> String {
    wait_until_async("a daemon that is not ready", async || {
        let health = get(daemon, "/healthz").await;
        assert_eq!((health.status, &health.json["status"]), (200, &json!("ok")));
        let reason = health.json["service"]["notReadyReason"].as_str().map(ToOwned::to_owned);
        // A connecting daemon is not ready either. The text after the cause changes with the time of the next attempt.
        let reason = reason.filter(|reason| !reason.starts_with("The app-server is being started"))?;
        let ends = [" The next try is", " It is being started", " It failed"];
        let cause = ends.iter().fold(reason.as_str(), |cause, end| cause.split(end).next().unwrap());
        Some(cause.to_owned())
    })
    .await
}

/// Asserts that a daemon keeps running and reports why it cannot connect to this endpoint; returns the message.
async fn assert_unreachable(endpoint: &str) -> String {
    let mut daemon = Daemon::builder().external(endpoint).start().await;
    let reason = not_ready(&daemon).await;
    let stopped = daemon.stop().await;
    assert!(stopped.status.success(), "{stopped:?}");
    let events = daemon.events_on_disk();
    let failed = events.iter().find(|event| event["type"] == "app-server.connect.failed").unwrap();
    assert_eq!((&failed["level"], &failed["detail"]["endpoint"]), (&json!("error"), &json!(endpoint)));
    assert_eq!(failed["message"], reason);
    reason
}

#[tokio::test]
async fn external_app_server_on_tcp_is_used_and_not_stopped() {
    let model = MockModel::start();
    let home = CodexHome::new(&model);
    let mut server = AppServer::on_tcp(&home).await;
    let session = run_turn_through(&server.endpoint, &home, &json!({})).await;
    server.assert_alive();
    // The next daemon finds the thread; it uses the other name of the same scheme.
    let endpoint = server.endpoint.replace("ws://", "http://");
    let resumed = run_turn_through(&endpoint, &home, &json!({ "threadId": session["threadId"] })).await;
    assert_eq!(resumed["lastTurnStatus"], "completed");
    server.assert_alive();
}

#[tokio::test]
async fn external_app_server_on_unix_socket_is_used_and_not_stopped() {
    let model = MockModel::start();
    let home = CodexHome::new(&model);
    let mut server = AppServer::on_socket(&home).await;
    run_turn_through(&server.endpoint, &home, &json!({})).await;
    server.assert_alive();
}

#[tokio::test]
async fn external_app_server_that_stays_away_fails_turn_only() {
    tokio::join!(assert_exit_fails_turn_only(false), assert_exit_fails_turn_only(true));
}

async fn assert_exit_fails_turn_only(on_socket: bool) {
    let model = MockModel::start();
    let home = CodexHome::new(&model);
    let mut server = match on_socket {
        false => AppServer::on_tcp(&home).await,
        true => AppServer::on_socket(&home).await,
    };
    let (mut events, mut daemon) = attach(&server.endpoint).await;
    let session = create_session(&daemon, &home, &json!({})).await;
    let body = json!({ "sessionId": session["sessionId"], "input": "mock:hang" });
    let turn_id = submit(&daemon, &body).await.data(202)["turnId"].clone();
    let is_started = |event: &Value| event["type"] == "app-server.turn.started";
    events.wait_for("the start of the turn", is_started).await;
    server.kill();

    let is_closed = |event: &Value| event["type"] == "app-server.transport.closed";
    let ending = events.collect_until("the end of the connection", is_closed).await;
    let closed = ending.last().unwrap();
    assert!(closed["detail"]["source"].as_str().unwrap().starts_with("websocket."), "{closed}");
    // The app-server may come back and go on with it.
    assert_eq!(record(&daemon, &session).await["currentTurnId"], turn_id);
    let is_missing = |event: &Value| event["type"] == "app-server.turn.completed.missing";
    let ending = events.collect_until("the end of the turn", is_missing).await;
    let detail = &ending.last().unwrap()["detail"];
    assert_eq!((&detail["turnId"], &detail["sessionId"]), (&turn_id, &session["sessionId"]));
    assert_eq!(detail["failureClass"], "transport_closed_before_turn_completed");
    assert!(not_ready(&daemon).await.contains("cannot be reached"));
    let after = record(&daemon, &session).await;
    assert_eq!((&after["lastTurnStatus"], &after["currentTurnId"]), (&json!("failed"), &Value::Null));
    submit(&daemon, &body).await.error(503, "app_server_unavailable");
    assert!(daemon.stop().await.status.success());
}

#[tokio::test]
async fn unreachable_endpoint_is_reported_as_not_ready() {
    // A port that was free a moment ago, and a socket that does not exist.
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let message = assert_unreachable(&format!("ws://127.0.0.1:{port}")).await;
    assert!(message.contains(&port.to_string()), "{message}");
    let directory = scratch::directory("test");
    let path = directory.path().join("missing.sock");
    let message = assert_unreachable(&format!("unix://{}", path.display())).await;
    assert!(message.contains("missing.sock"), "{message}");
}

#[tokio::test]
async fn endpoint_without_app_server_is_reported_as_not_ready() {
    // The listener of another daemon serves HTTP, but no WebSocket at this path.
    let other = Daemon::builder().start().await;
    let base = get(&other, "/healthz").await.json["service"]["resolvedBaseUrl"].as_str().unwrap().to_owned();
    let message = assert_unreachable(&format!("{base}/unknown")).await;
    assert!(message.contains("404"), "{message}");
}

#[tokio::test]
async fn untrusted_certificate_is_refused() {
    let model = MockModel::start();
    let home = CodexHome::new(&model);
    let server = AppServer::on_tcp(&home).await;
    let proxy = TlsProxy::start(&server.endpoint).await;
    let message = assert_unreachable(&format!("wss://localhost:{}", proxy.port)).await;
    assert!(message.to_lowercase().contains("certificate"), "{message}");
}

/// Accepts TLS connections with a self-signed certificate and forwards their contents.
struct TlsProxy {
    port: u16,
}

impl TlsProxy {
    /// Starts a proxy for this `ws://` endpoint; it runs until the test's runtime ends.
    async fn start(endpoint: &str) -> Self {
        let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = pki_types::PrivateKeyDer::Pkcs8(certificate.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let authority = endpoint.strip_prefix("ws://").unwrap().to_owned();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, authority) = (acceptor.clone(), authority.clone());
                tokio::spawn(async move {
                    let Ok(mut client) = acceptor.accept(stream).await else { return };
                    let mut server = TcpStream::connect(authority).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { port }
    }
}
