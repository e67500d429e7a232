//! The event stream over WebSocket: the hello message, the order of events, messages of clients, non-reading clients,
//! and the handshake.

use hyper::Method;
use hyper::header::SEC_WEBSOCKET_VERSION;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::api::{
    create_session, keys, new_session, start_daemon, start_turn, text, wait_for_event, wait_until_idle,
    wait_until_ready,
};
use crate::support::daemon::Daemon;
use crate::support::http::{get, request};
use crate::support::wait::wait_until_async;
use crate::support::websocket::{EVENTS_PATH, EventStream};

const CLOSE_GOING_AWAY: u16 = 1001;
const CLOSE_UNSUPPORTED: u16 = 1003;
const CLOSE_TOO_BIG: u16 = 1009;
const CLOSE_NOT_AN_OBJECT: u16 = 4002;

/// Whether this event reports the end of this turn.
fn is_turn_end(event: &Value, turn_id: &str) -> bool {
    event["type"] == "app-server.turn.completed" && event["detail"]["turnId"] == turn_id
}

/// Waits until the daemon counts this number of WebSocket clients.
async fn wait_for_client_count(daemon: &Daemon, count: usize) {
    wait_until_async("the number of clients", async || {
        let health = get(daemon, "/healthz").await.json;
        (health["service"]["websocketClients"] == count).then_some(())
    })
    .await;
}

/// Starts a daemon with long client timeouts, for tests whose clients read late.
async fn start_with_long_timeouts() -> Daemon {
    let daemon = Daemon::builder().arg("--client-timeout").arg("3600").arg("--ping-interval").arg("3600");
    daemon.start().await
}

#[tokio::test]
async fn hello_message_has_recent_events_service_and_snapshot() {
    let daemon = start_daemon().await;
    let session = create_session(&daemon, json!({})).await;
    let mut events = EventStream::connect(&daemon).await;
    let hello = events.hello().await;
    assert_eq!(keys(&hello), ["type", "cursor", "recentEvents", "service", "snapshot"]);
    assert_eq!(hello["recentEvents"], hello["snapshot"]["recentEvents"]["events"]);
    assert_eq!(hello["snapshot"]["sessionRegistry"]["sessions"], json!([session]));
    assert_eq!(hello["service"]["websocketClients"], 1);
    assert_eq!(hello["service"]["ready"], true);
    let recent = hello["recentEvents"].as_array().unwrap();
    assert!(recent.iter().any(|event| event["type"] == "session.created"), "{recent:?}");

    let turn_id = start_turn(&daemon, &text(&session["sessionId"]), "hello").await;
    let later_events =
        events.collect_until("the end of the turn", |event| is_turn_end(event, &turn_id)).await;
    for event in &later_events {
        assert_eq!(keys(event), ["seq", "createdAt", "level", "type", "message", "detail"]);
    }
    // The recent events and the later ones equal the log, without gaps or duplicates.
    let received = [recent.as_slice(), &later_events].concat();
    assert_eq!(received, daemon.events_on_disk()[..received.len()]);
    drop(events);
    wait_for_client_count(&daemon, 0).await;
}

#[tokio::test]
async fn hello_message_during_a_turn_misses_no_event() {
    let daemon = start_with_long_timeouts().await;
    let session_id = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "deltas=20000").await;
    let mut streams = Vec::new();
    for _ in 0..8 {
        let mut events = EventStream::connect(&daemon).await;
        let hello = events.hello().await;
        streams.push((hello["recentEvents"].as_array().unwrap().clone(), events));
    }
    let mut received = Vec::new();
    for (recent, mut events) in streams {
        if !recent.iter().any(|event| is_turn_end(event, &turn_id)) {
            let rest =
                events.collect_until("the end of the turn", |event| is_turn_end(event, &turn_id)).await;
            received.push([recent, rest].concat());
        }
    }
    let log = daemon.events_on_disk();
    for events in received {
        let first = events[0]["seq"].as_u64();
        let mut log = log.iter().skip_while(|event| event["seq"].as_u64() < first);
        assert!(
            events.iter().all(|event| Some(event) == log.next()),
            "the received events are not a part of the log"
        );
    }
}

#[tokio::test]
async fn websocket_answers_ping_and_status_messages() {
    let daemon = start_daemon().await;
    wait_until_ready(&daemon).await;
    let mut events = EventStream::connect(&daemon).await;
    events.hello().await;
    assert_eq!(events.ask(&json!({ "type": "ping" })).await, json!({ "type": "pong" }));
    let status = events.ask(&json!({ "type": "status", "more": [1] })).await;
    assert_eq!(keys(&status), ["type", "service", "snapshot"]);
    assert_eq!(status["type"], "status");
    assert_eq!(status["snapshot"]["daemon"]["pid"], daemon.pid());
    assert_eq!(status["service"]["websocketClients"], 1);
    for (message, type_name) in [
        (json!({ "type": "bogus" }), "bogus"),
        (json!({ "type": "PING" }), "PING"),
        (json!({ "type": "" }), "unknown"),
        (json!({ "type": 5 }), "unknown"),
        (json!({}), "unknown"),
    ] {
        let error = format!("Unsupported websocket message type: {type_name}.");
        assert_eq!(events.ask(&message).await, json!({ "type": "error", "message": error }));
    }
    assert_eq!(
        events.ask(&json!({ "type": "ping" })).await,
        json!({ "type": "pong" }),
        "the stream was closed"
    );
}

#[tokio::test]
async fn invalid_message_closes_the_websocket_with_its_code() {
    let daemon = start_daemon().await;
    let big = json!({ "type": "ping", "more": "x".repeat(2 * 1024 * 1024) }).to_string();
    for (message, code) in [
        (Message::text("nonsense"), CLOSE_NOT_AN_OBJECT),
        (Message::text(""), CLOSE_NOT_AN_OBJECT),
        (Message::text("[]"), CLOSE_NOT_AN_OBJECT),
        (Message::text("\"ping\""), CLOSE_NOT_AN_OBJECT),
        (Message::text("null"), CLOSE_NOT_AN_OBJECT),
        (Message::binary(br#"{"type":"ping"}"#.to_vec()), CLOSE_UNSUPPORTED),
        (Message::text(big), CLOSE_TOO_BIG),
    ] {
        let mut events = EventStream::connect(&daemon).await;
        events.hello().await;
        let message_start: String = message.to_string().chars().take(40).collect();
        events.send(message).await;
        assert_eq!(events.close_code().await, code, "{message_start}");
    }
    wait_for_client_count(&daemon, 0).await;
    let mut events = EventStream::connect(&daemon).await;
    events.hello().await;
}

#[tokio::test]
async fn message_below_the_limit_is_accepted() {
    let daemon = start_daemon().await;
    let mut events = EventStream::connect(&daemon).await;
    events.hello().await;
    let message = json!({ "type": "ping", "more": "x".repeat(1_000_000) });
    assert_eq!(events.ask(&message).await, json!({ "type": "pong" }));
}

#[tokio::test]
async fn ten_clients_receive_the_events_in_log_order() {
    let daemon = start_with_long_timeouts().await;
    let session_ids = [new_session(&daemon).await, new_session(&daemon).await, new_session(&daemon).await];
    let mut streams = Vec::new();
    for _ in 0..10 {
        let mut events = EventStream::connect(&daemon).await;
        events.hello().await;
        streams.push(events);
    }
    wait_for_client_count(&daemon, 10).await;
    let mut turn_ids = Vec::new();
    for session_id in &session_ids {
        turn_ids.push(start_turn(&daemon, session_id, "deltas=300 reasoning plan diff command").await);
    }
    for session_id in &session_ids {
        wait_until_idle(&daemon, session_id).await;
    }
    let mut received: Vec<Vec<Value>> = Vec::new();
    for mut events in streams {
        let mut running = turn_ids.clone();
        let events = events.collect_until("the end of all turns", |event| {
            running.retain(|turn_id| !is_turn_end(event, turn_id));
            running.is_empty()
        });
        received.push(events.await);
    }
    // Events of the sessions may have come before the last client.
    let first = received.iter().map(|events| events[0]["seq"].as_u64()).max().unwrap();
    let is_later = |event: &Value| event["seq"].as_u64() >= first;
    let log: Vec<Value> = daemon.events_on_disk().into_iter().filter(is_later).collect();
    for events in &mut received {
        events.retain(is_later);
        assert!(
            events.iter().eq(log.iter().take(events.len())),
            "a client received another order than the log"
        );
    }
    let deltas = log.iter().filter(|event| event["type"] == "app-server.turn.message.delta").count();
    assert_eq!(deltas, 900);
}

/// The peak memory of the daemon in bytes.
#[cfg(target_os = "linux")]
fn peak_bytes(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn non_reading_client_neither_delays_others_nor_grows_memory() {
    let daemon = start_with_long_timeouts().await;
    let session_id = new_session(&daemon).await;
    let mut non_reading = EventStream::connect(&daemon).await;
    non_reading.hello().await;
    let mut other = EventStream::connect(&daemon).await;
    other.hello().await;
    // More than 30 MB of frames, far more than the buffers of both sockets hold.
    let turn_id = start_turn(&daemon, &session_id, "deltas=10000 chars=3000").await;
    let last = other.wait_for("the end of the turn", |event| is_turn_end(event, &turn_id)).await;
    assert_eq!(wait_until_idle(&daemon, &session_id).await["lastTurnStatus"], "completed");
    wait_for_client_count(&daemon, 2).await;
    #[cfg(target_os = "linux")]
    {
        let peak = peak_bytes(&daemon);
        assert!(peak < 150_000_000, "the daemon had {peak} bytes in memory at its peak");
    }
    // When the client finally reads, it receives all events.
    let mut count = 0;
    let end = non_reading.wait_for("the end of the turn", |event| {
        count += usize::from(event["type"] == "app-server.turn.message.delta");
        is_turn_end(event, &turn_id)
    });
    assert_eq!(end.await, last);
    assert_eq!(count, 10_000);
}

#[tokio::test]
async fn stop_closes_every_websocket_with_going_away() {
    let mut daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut events = EventStream::connect(&daemon).await;
        events.hello().await;
        streams.push(events);
    }
    let turn_id = start_turn(&daemon, &session_id, "hang").await;
    wait_for_event(&daemon, "the turn", |event| {
        event["type"] == "app-server.turn.started" && event["detail"]["turnId"] == turn_id
    })
    .await;
    let stopping = tokio::spawn(async move {
        daemon.stop().await;
        daemon
    });
    for mut events in streams {
        assert_eq!(events.close_code().await, CLOSE_GOING_AWAY);
    }
    stopping.await.unwrap();
}

#[tokio::test]
async fn non_reading_client_does_not_delay_stop() {
    let mut daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let mut non_reading = EventStream::connect(&daemon).await;
    non_reading.hello().await;
    // More than the buffers of both sockets hold.
    start_turn(&daemon, &session_id, "deltas=30000").await;
    wait_until_idle(&daemon, &session_id).await;
    assert!(daemon.stop().await.status.success());
}

/// Sends a handshake with these headers changed; an empty value omits the header.
async fn handshake(daemon: &Daemon, changes: &[(&str, &str)]) -> crate::support::http::ApiResponse {
    let headers = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let headers: Vec<_> = headers
        .into_iter()
        .map(|(name, value)| *changes.iter().find(|(changed, _)| *changed == name).unwrap_or(&(name, value)))
        .filter(|(_, value)| !value.is_empty())
        .collect();
    request(daemon, Method::GET, EVENTS_PATH, &headers, "").await
}

#[tokio::test]
async fn invalid_handshake_is_refused_with_a_message() {
    let daemon = start_daemon().await;
    for version in ["12", "8", ""] {
        let response = handshake(&daemon, &[("sec-websocket-version", version)]).await;
        response.error(426, "bad_request");
        assert_eq!(response.headers.get(SEC_WEBSOCKET_VERSION).unwrap(), "13");
    }
    for (header, value) in [("sec-websocket-key", ""), ("connection", "close")] {
        let response = handshake(&daemon, &[(header, value)]).await;
        let message = response.error(400, "bad_request");
        assert!(message.ends_with('.'), "{header}: {message}");
    }
    // A request without an upgrade to WebSocket gets a page.
    for value in ["", "h2c"] {
        let page = handshake(&daemon, &[("upgrade", value)]).await;
        assert!(page.data(200)["events"].is_array(), "{value}");
    }
    assert!(get(&daemon, EVENTS_PATH).await.data(200)["events"].is_array());
}
