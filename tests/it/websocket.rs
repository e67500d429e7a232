//! The event stream: its greeting, its order, what clients may say, and clients that do not behave.

use hyper::Method;
use hyper::header::SEC_WEBSOCKET_VERSION;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::api::{create, idle, keys, logged, ready, session, start, text, turn};
use crate::support::daemon::Daemon;
use crate::support::http::{get, request};
use crate::support::wait::wait_until_async;
use crate::support::websocket::{EVENTS_PATH, EventStream};

const GOING_AWAY: u16 = 1001;
const UNSUPPORTED: u16 = 1003;
const TOO_BIG: u16 = 1009;
const NOT_AN_OBJECT: u16 = 4002;

/// Whether this is the end of this turn.
fn ends(event: &Value, turn_id: &str) -> bool {
    event["type"] == "app-server.turn.completed" && event["detail"]["turnId"] == turn_id
}

/// The number of websocket clients, once it is this one.
async fn clients_are(daemon: &Daemon, count: usize) {
    wait_until_async("the clients to be counted", async || {
        let health = get(daemon, "/healthz").await.json;
        (health["service"]["websocketClients"] == count).then_some(())
    })
    .await;
}

/// A daemon for clients that read late, however long their tests take on a busy machine.
async fn patient() -> Daemon {
    let daemon = Daemon::builder().arg("--client-timeout").arg("3600").arg("--ping-interval").arg("3600");
    daemon.start().await
}

#[tokio::test]
async fn the_greeting_has_the_recent_events_the_service_and_the_snapshot() {
    let daemon = start().await;
    let session = create(&daemon, json!({})).await;
    let mut events = EventStream::connect(&daemon).await;
    let hello = events.hello().await;
    assert_eq!(keys(&hello), ["type", "cursor", "recentEvents", "service", "snapshot"]);
    assert_eq!(hello["recentEvents"], hello["snapshot"]["recentEvents"]["events"]);
    assert_eq!(hello["snapshot"]["sessionRegistry"]["sessions"], json!([session]));
    assert_eq!(hello["service"]["websocketClients"], 1);
    assert_eq!(hello["service"]["ready"], true);
    let recent = hello["recentEvents"].as_array().unwrap();
    assert!(recent.iter().any(|event| event["type"] == "session.created"), "{recent:?}");

    let turn_id = turn(&daemon, &text(&session["sessionId"]), "hello").await;
    let followed = events.collect_until("the end of the turn", |event| ends(event, &turn_id)).await;
    for event in &followed {
        assert_eq!(keys(event), ["seq", "createdAt", "level", "type", "message", "detail"]);
    }
    // What was in the greeting and what followed are the log, without a gap and without anything twice.
    let seen = [recent.as_slice(), &followed].concat();
    assert_eq!(seen, daemon.events_on_disk()[..seen.len()]);
    drop(events);
    clients_are(&daemon, 0).await;
}

#[tokio::test]
async fn a_greeting_in_the_middle_of_a_turn_misses_nothing() {
    let daemon = patient().await;
    let session_id = session(&daemon).await;
    let turn_id = turn(&daemon, &session_id, "deltas=20000").await;
    let mut streams = Vec::new();
    for _ in 0..8 {
        let mut events = EventStream::connect(&daemon).await;
        let hello = events.hello().await;
        streams.push((hello["recentEvents"].as_array().unwrap().clone(), events));
    }
    let mut seen = Vec::new();
    for (recent, mut events) in streams {
        if !recent.iter().any(|event| ends(event, &turn_id)) {
            let rest = events.collect_until("the end of the turn", |event| ends(event, &turn_id)).await;
            seen.push([recent, rest].concat());
        }
    }
    let log = daemon.events_on_disk();
    for all in seen {
        let first = all[0]["seq"].as_u64();
        let mut log = log.iter().skip_while(|event| event["seq"].as_u64() < first);
        assert!(all.iter().all(|event| Some(event) == log.next()), "the stream is not a piece of the log");
    }
}

#[tokio::test]
async fn clients_may_ping_and_ask_for_the_status() {
    let daemon = start().await;
    ready(&daemon).await;
    let mut events = EventStream::connect(&daemon).await;
    events.hello().await;
    assert_eq!(events.ask(&json!({ "type": "ping" })).await, json!({ "type": "pong" }));
    let status = events.ask(&json!({ "type": "status", "more": [1] })).await;
    assert_eq!(keys(&status), ["type", "service", "snapshot"]);
    assert_eq!(status["type"], "status");
    assert_eq!(status["snapshot"]["daemon"]["pid"], daemon.pid());
    assert_eq!(status["service"]["websocketClients"], 1);
    for (asked, named) in [
        (json!({ "type": "bogus" }), "bogus"),
        (json!({ "type": "PING" }), "PING"),
        (json!({ "type": "" }), "unknown"),
        (json!({ "type": 5 }), "unknown"),
        (json!({}), "unknown"),
    ] {
        let message = format!("Unsupported websocket message type: {named}.");
        assert_eq!(events.ask(&asked).await, json!({ "type": "error", "message": message }));
    }
    assert_eq!(events.ask(&json!({ "type": "ping" })).await, json!({ "type": "pong" }), "it stays");
}

#[tokio::test]
async fn what_cannot_be_understood_ends_the_stream_with_its_code() {
    let daemon = start().await;
    let big = json!({ "type": "ping", "more": "x".repeat(2 * 1024 * 1024) }).to_string();
    for (message, code) in [
        (Message::text("nonsense"), NOT_AN_OBJECT),
        (Message::text(""), NOT_AN_OBJECT),
        (Message::text("[]"), NOT_AN_OBJECT),
        (Message::text("\"ping\""), NOT_AN_OBJECT),
        (Message::text("null"), NOT_AN_OBJECT),
        (Message::binary(br#"{"type":"ping"}"#.to_vec()), UNSUPPORTED),
        (Message::text(big), TOO_BIG),
    ] {
        let mut events = EventStream::connect(&daemon).await;
        events.hello().await;
        let shown: String = message.to_string().chars().take(40).collect();
        events.send(message).await;
        assert_eq!(events.close_code().await, code, "{shown}");
    }
    clients_are(&daemon, 0).await;
    let mut events = EventStream::connect(&daemon).await;
    events.hello().await;
}

#[tokio::test]
async fn a_message_below_the_limit_is_taken() {
    let daemon = start().await;
    let mut events = EventStream::connect(&daemon).await;
    events.hello().await;
    let asked = json!({ "type": "ping", "more": "x".repeat(1_000_000) });
    assert_eq!(events.ask(&asked).await, json!({ "type": "pong" }));
}

#[tokio::test]
async fn ten_clients_see_the_same_events_in_the_same_order_as_the_log() {
    let daemon = patient().await;
    let session_ids = [session(&daemon).await, session(&daemon).await, session(&daemon).await];
    let mut streams = Vec::new();
    for _ in 0..10 {
        let mut events = EventStream::connect(&daemon).await;
        events.hello().await;
        streams.push(events);
    }
    clients_are(&daemon, 10).await;
    let mut turn_ids = Vec::new();
    for session_id in &session_ids {
        turn_ids.push(turn(&daemon, session_id, "deltas=300 reasoning plan diff command").await);
    }
    for session_id in &session_ids {
        idle(&daemon, session_id).await;
    }
    let mut seen: Vec<Vec<Value>> = Vec::new();
    for mut events in streams {
        let mut open = turn_ids.clone();
        let all = events.collect_until("the end of all turns", |event| {
            open.retain(|turn_id| !ends(event, turn_id));
            open.is_empty()
        });
        seen.push(all.await);
    }
    let first = seen[0][0]["seq"].as_u64();
    let log: Vec<Value> =
        daemon.events_on_disk().into_iter().filter(|event| event["seq"].as_u64() >= first).collect();
    for events in &seen {
        assert_eq!(events[0]["seq"].as_u64(), first, "a client began elsewhere");
        assert!(events.iter().eq(log.iter().take(events.len())), "a client saw another order than the log");
    }
    let deltas = log.iter().filter(|event| event["type"] == "app-server.turn.message.delta").count();
    assert_eq!(deltas, 900);
}

/// The most that the daemon ever had in memory, in bytes.
#[cfg(target_os = "linux")]
fn peak_bytes(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn a_client_that_never_reads_delays_nobody_and_costs_no_memory() {
    let daemon = patient().await;
    let session_id = session(&daemon).await;
    let mut deaf = EventStream::connect(&daemon).await;
    deaf.hello().await;
    let mut other = EventStream::connect(&daemon).await;
    other.hello().await;
    // More than 30 MB of frames, far more than the buffers of two sockets take.
    let turn_id = turn(&daemon, &session_id, "deltas=10000 chars=3000").await;
    let last = other.wait_for("the end of the turn", |event| ends(event, &turn_id)).await;
    assert_eq!(idle(&daemon, &session_id).await["lastTurnStatus"], "completed");
    clients_are(&daemon, 2).await;
    #[cfg(target_os = "linux")]
    {
        let peak = peak_bytes(&daemon);
        assert!(peak < 150_000_000, "the daemon had {peak} bytes in memory at its peak");
    }
    // It was not forgotten either: when it reads at last, all of it is there.
    let mut count = 0;
    let end = deaf.wait_for("the end of the turn", |event| {
        count += usize::from(event["type"] == "app-server.turn.message.delta");
        ends(event, &turn_id)
    });
    assert_eq!(end.await, last);
    assert_eq!(count, 10_000);
}

#[tokio::test]
async fn a_daemon_that_stops_says_so_to_every_client() {
    let mut daemon = start().await;
    let session_id = session(&daemon).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut events = EventStream::connect(&daemon).await;
        events.hello().await;
        streams.push(events);
    }
    let turn_id = turn(&daemon, &session_id, "hang").await;
    logged(&daemon, "the turn", |event| {
        event["type"] == "app-server.turn.started" && event["detail"]["turnId"] == turn_id
    })
    .await;
    let stopping = tokio::spawn(async move {
        daemon.stop().await;
        daemon
    });
    for mut events in streams {
        assert_eq!(events.close_code().await, GOING_AWAY);
    }
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_client_that_never_reads_does_not_keep_the_daemon_from_stopping() {
    let mut daemon = start().await;
    let session_id = session(&daemon).await;
    let mut deaf = EventStream::connect(&daemon).await;
    deaf.hello().await;
    // More than the buffers of the two sockets take.
    turn(&daemon, &session_id, "deltas=30000").await;
    idle(&daemon, &session_id).await;
    assert!(daemon.stop().await.status.success());
}

/// A handshake with these headers changed; an empty value leaves the header out.
async fn handshake(daemon: &Daemon, changes: &[(&str, &str)]) -> crate::support::http::Answer {
    let whole = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let headers: Vec<_> = whole
        .into_iter()
        .map(|(name, value)| *changes.iter().find(|(changed, _)| *changed == name).unwrap_or(&(name, value)))
        .filter(|(_, value)| !value.is_empty())
        .collect();
    request(daemon, Method::GET, EVENTS_PATH, &headers, "").await
}

#[tokio::test]
async fn a_handshake_that_is_wrong_is_refused_with_a_sentence() {
    let daemon = start().await;
    for version in ["12", "8", ""] {
        let answer = handshake(&daemon, &[("sec-websocket-version", version)]).await;
        answer.error(426, "bad_request");
        assert_eq!(answer.headers.get(SEC_WEBSOCKET_VERSION).unwrap(), "13");
    }
    for (header, value) in [("sec-websocket-key", ""), ("connection", "close")] {
        let answer = handshake(&daemon, &[(header, value)]).await;
        let message = answer.error(400, "bad_request");
        assert!(message.ends_with('.'), "{header}: {message}");
    }
    // Who does not ask for a WebSocket gets a page.
    for value in ["", "h2c"] {
        let page = handshake(&daemon, &[("upgrade", value)]).await;
        assert!(page.data(200)["events"].is_array(), "{value}");
    }
    assert!(get(&daemon, EVENTS_PATH).await.data(200)["events"].is_array());
}
