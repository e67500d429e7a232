//! Connection and WebSocket limits, and the timeouts of slow clients: other clients are served quickly meanwhile.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::raw_connection::{HANDSHAKE, RawConnection, head};
use super::slow_clients::{ClientKind, ClosedClient, ProbeClient, SlowClients, p99};
use crate::api::{new_session, request_bytes, session_record, start_turn, wait_until_idle, wait_until_ready};
use crate::support::daemon::Daemon;
use crate::support::http::{Target, get, post};
use crate::support::skip::runs_long;
use crate::support::sse::EventSource;
use crate::support::wait::wait_until_async;
use crate::support::websocket::{EVENTS_PATH, EventStream};

/// The number of slow clients of each kind.
const CLIENTS_PER_KIND: usize = 200;
/// The pause of the probe client between two requests.
const PROBE_PAUSE: Duration = Duration::from_millis(5);
/// The limit for the 99th percentile of the response times of the probe client.
const MAX_P99: Duration = Duration::from_millis(500);
/// The number of attempts, because other processes on the machine may delay one.
const ATTEMPTS: usize = 3;
/// The time limit for a request head, from the start of the connection or the end of the previous response.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The time limit for a request body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The tolerance for a timer of the daemon that starts later than the clock of the test, or expires early.
const TIMER_TOLERANCE: Duration = Duration::from_millis(100);

/// Lets one load test run at a time: two would influence each other's measurements.
static LOAD_TEST_LOCK: Mutex<()> = Mutex::const_new(());

/// Connects slow clients until the daemon has closed them; returns the 99th percentile of the response times of the
/// probe client, whose requests must all succeed, and the closed clients.
async fn measure_probe(kinds: &[ClientKind]) -> (Duration, Vec<ClosedClient>) {
    let daemon = Daemon::builder().arg("--connection-limit").arg("256").start().await;
    wait_until_ready(&daemon).await;
    if kinds.contains(&ClientKind::SlowReader) {
        let session_id = new_session(&daemon).await;
        // A page of these events is large; the hello message of a WebSocket, which has the newest events, is small.
        for prompt in ["deltas=16 chars=300000", "deltas=60 chars=10"] {
            start_turn(&daemon, &session_id, prompt).await;
            wait_until_idle(&daemon, &session_id).await;
        }
    }
    let probe = ProbeClient::start(&daemon, PROBE_PAUSE);
    let mut clients = SlowClients::connect(&daemon, kinds, CLIENTS_PER_KIND).await;
    let closed = clients.wait_until_closed().await;
    probe.wait_for_more(200).await;
    let responses = probe.finish().await;
    let refused = responses.iter().filter(|(status, _)| *status != 200).count();
    assert_eq!(refused, 0, "of {} probe requests", responses.len());
    drop(clients);
    assert_eq!(get(&daemon, "/healthz").await.status, 200);
    (p99(&responses), closed)
}

/// Asserts that the probe client is served quickly beside these slow clients; returns the closed clients.
#[expect(
    clippy::print_stderr,
    reason = "the test runner prints the measurement when the test fails, or with --nocapture"
)]
async fn assert_probe_is_fast(kinds: &[ClientKind]) -> Vec<ClosedClient> {
    let _lock = LOAD_TEST_LOCK.lock().await;
    let mut all = Vec::new();
    for _ in 0..ATTEMPTS {
        let (p99, closed) = measure_probe(kinds).await;
        eprintln!("{kinds:?}: the 99th percentile of the probe requests is {p99:?}");
        if p99 < MAX_P99 {
            return closed;
        }
        all.push(p99);
    }
    panic!("the 99th percentiles of the probe requests are {all:?}");
}

/// Asserts that every client of one kind was closed after this time, and not much later.
fn assert_closed_after(closed: &[ClosedClient], time: Duration) {
    assert_eq!(closed.len(), CLIENTS_PER_KIND);
    for client in closed {
        assert!(client.open_for > time - TIMER_TOLERANCE && client.open_for < time * 2, "{client:?}");
    }
}

/// Asserts that a client got a 408 response that announces the close.
fn assert_request_timeout(client: &ClosedClient) {
    let received = client.received.to_ascii_lowercase();
    assert!(
        received.starts_with("http/1.1 408 ") && received.contains("connection: close\r\n"),
        "{client:?}"
    );
    assert!(received.contains("\"error\": \"request_timeout\""), "{client:?}");
}

#[tokio::test]
async fn head_timeout_closes_silent_connections_and_probe_is_fast() {
    let closed = assert_probe_is_fast(&[ClientKind::Silent]).await;
    assert_closed_after(&closed, HEAD_TIMEOUT);
    assert!(closed.iter().all(|client| client.received.is_empty()), "{closed:?}");
}

#[tokio::test]
async fn head_timeout_closes_half_a_head_and_probe_is_fast() {
    if !runs_long() {
        return;
    }
    let closed = assert_probe_is_fast(&[ClientKind::HalfHead]).await;
    assert_closed_after(&closed, HEAD_TIMEOUT);
    assert!(closed.iter().all(|client| client.received.is_empty()), "{closed:?}");
}

#[tokio::test]
async fn body_timeout_sends_408_for_a_slow_body_and_probe_is_fast() {
    if !runs_long() {
        return;
    }
    let closed = assert_probe_is_fast(&[ClientKind::SlowBody]).await;
    assert_closed_after(&closed, BODY_TIMEOUT);
    closed.iter().for_each(assert_request_timeout);
}

#[tokio::test]
async fn probe_is_fast_beside_clients_that_do_not_read() {
    assert_probe_is_fast(&[ClientKind::SlowReader]).await;
}

#[tokio::test]
async fn connection_limiter_evicts_slow_clients_and_probe_is_fast() {
    let kinds = [ClientKind::Silent, ClientKind::HalfHead, ClientKind::SlowBody, ClientKind::SlowReader];
    let closed = assert_probe_is_fast(&kinds).await;
    // Some were evicted for others, and none stayed longer than its timeout.
    assert!(closed.iter().all(|client| client.open_for < BODY_TIMEOUT * 2), "{closed:?}");
    assert!(
        closed.iter().any(|client| client.open_for < HEAD_TIMEOUT - TIMER_TOLERANCE),
        "no client was evicted"
    );
    let of = |kind| closed.iter().filter(|client| client.kind == kind).count();
    assert_eq!(kinds.map(of), [CLIENTS_PER_KIND, CLIENTS_PER_KIND, CLIENTS_PER_KIND, 0]);
}

#[tokio::test]
async fn connection_flood_leaves_no_descriptors_open_and_probe_succeeds() {
    const CONNECTIONS: usize = 5000;
    /// The connections that are open at once, more than the limit, so that the daemon must evict some.
    const OPEN_AT_ONCE: usize = 300;
    let _lock = LOAD_TEST_LOCK.lock().await;
    let daemon = Daemon::builder().arg("--connection-limit").arg("256").start().await;
    wait_until_ready(&daemon).await;
    #[cfg(target_os = "linux")]
    let before = super::process_usage::open_descriptors(daemon.pid());
    // This raises the descriptor limit of the test process.
    drop(SlowClients::connect(&daemon, &[ClientKind::Silent], 1).await);
    let probe = ProbeClient::start(&daemon, PROBE_PAUSE);
    let mut open = VecDeque::new();
    for _ in 0..CONNECTIONS {
        open.push_back(TcpStream::connect(daemon.authority()).await.unwrap());
        if open.len() > OPEN_AT_ONCE {
            open.pop_front();
        }
    }
    probe.wait_for_more(20).await;
    let responses = probe.finish().await;
    assert!(responses.iter().all(|(status, _)| *status == 200), "{responses:?}");
    drop(open);
    #[cfg(target_os = "linux")]
    crate::support::wait::wait_until("the descriptors of the connections to be closed", || {
        (super::process_usage::open_descriptors(daemon.pid()) <= before).then_some(())
    })
    .await;
    assert_eq!(get(&daemon, "/healthz").await.status, 200);
}

/// Asserts that the daemon answers new connections with 503 and Retry-After, and closes them.
async fn assert_full(daemon: &Daemon) {
    for _ in 0..20 {
        let response = get(daemon, "/healthz").await;
        response.error(503, "overloaded");
        assert_eq!(response.headers["connection"], "close");
        let retry_after = response.headers["retry-after"].to_str().unwrap();
        assert!(retry_after.parse::<u32>().unwrap() > 0, "{retry_after}");
    }
    // A silent connection is closed too, with or without a response.
    let refused = RawConnection::connect(daemon).await.read_to_end().await;
    assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 503 "), "{refused:?}");
}

async fn wait_for_free_connection(daemon: &Daemon) {
    wait_until_async("a free connection", async || {
        (get(daemon, "/healthz").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn connection_limiter_rejects_new_connections_when_none_can_be_evicted() {
    // No request was sent before, so no connection that is about to close counts towards the limit.
    let daemon = Daemon::builder().arg("--connection-limit").arg("4").start().await;
    let mut streams = Vec::new();
    for _ in 0..4 {
        let mut stream = EventStream::connect(&daemon).await;
        stream.hello().await;
        streams.push(stream);
    }
    assert_full(&daemon).await;
    // The open streams still work.
    for stream in &mut streams {
        let pong = stream.ask(&json!({ "type": "ping" })).await;
        assert_eq!(pong["type"], "pong");
    }
    streams.pop();
    wait_for_free_connection(&daemon).await;
    streams.push(EventStream::connect(&daemon).await);
    assert_full(&daemon).await;
}

#[tokio::test]
async fn connection_limiter_never_evicts_event_sources() {
    // No request was sent before, so no connection that is about to close counts towards the limit.
    let daemon = Daemon::builder().arg("--connection-limit").arg("2").start().await;
    let mut first = EventSource::connect(&daemon, EVENTS_PATH, None).await;
    let second = EventSource::connect(&daemon, EVENTS_PATH, None).await;
    assert_full(&daemon).await;
    drop(second);
    wait_for_free_connection(&daemon).await;
    new_session(&daemon).await;
    first.next_event().await;
}

#[tokio::test]
async fn connection_limiter_evicts_longest_idle() {
    // No request was sent before, so no connection that is about to close counts towards the limit.
    let daemon = Daemon::builder().arg("--connection-limit").arg("4").start().await;
    // Two in use, one that waits for its next request, and one that waits for the rest of its first.
    let mut sources = Vec::new();
    for _ in 0..2 {
        sources.push(EventSource::connect(&daemon, EVENTS_PATH, None).await);
    }
    let mut first = RawConnection::connect(&daemon).await;
    first.send(head(&daemon, "GET /healthz", "")).await;
    assert_eq!(first.response().await.status, 200);
    let mut second = RawConnection::connect(&daemon).await;
    second.send("GET /healthz HTTP/1.1\r\n").await;
    let mut third = RawConnection::connect(&daemon).await;
    third.send(head(&daemon, "GET /healthz", "")).await;
    assert_eq!(third.response().await.status, 200);
    assert_eq!(
        first.read_to_end().await,
        "",
        "the connection that was idle longest is closed without a response"
    );
    // The other connection is still open.
    second.send(format!("Host: {}\r\n\r\n", daemon.authority())).await;
    assert_eq!(second.response().await.status, 200);
}

#[tokio::test]
async fn connection_limiter_evicts_clients_that_left_while_they_waited() {
    let daemon = Daemon::builder().arg("--connection-limit").arg("4").start().await;
    wait_until_ready(&daemon).await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let session_id = new_session(&daemon).await;
        let turn = json!({ "sessionId": session_id, "input": "hang" });
        let mut connection = RawConnection::connect(&daemon).await;
        connection.send(request_bytes(&daemon, "/v1/codexd/turn?wait=600", &turn)).await;
        wait_until_async("the start of the turn", async || {
            session_record(&daemon, &session_id).await["currentTurnId"].as_str().map(drop)
        })
        .await;
        waiting.push((session_id, connection));
    }
    let mut stream = EventStream::connect(&daemon).await;
    stream.hello().await;
    let is_full = async || (get(&daemon, "/healthz").await.status == 503).then_some(());
    wait_until_async("all connections to be in use", is_full).await;
    // Two clients leave.
    waiting.drain(..2);
    wait_for_free_connection(&daemon).await;
    // The third sends no more, and still reads.
    let (session_id, mut connection) = waiting.remove(0);
    connection.stream.shutdown().await.unwrap();
    post(&daemon, "/v1/codexd/turn/interrupt", &json!({ "sessionId": session_id })).await.data(202);
    assert_eq!(connection.response().await.status, 202);
}

#[tokio::test]
async fn websocket_limit_rejects_with_503_until_one_closes() {
    let daemon = Daemon::builder().arg("--websocket-limit").arg("2").start().await;
    let handshake = async || {
        let mut connection = RawConnection::connect(&daemon).await;
        connection.send(head(&daemon, &format!("GET {EVENTS_PATH}"), HANDSHAKE)).await;
        let response = connection.response().await;
        (connection, response)
    };
    let first = handshake().await;
    let second = handshake().await;
    assert_eq!([first.1.status, second.1.status], [101, 101]);
    let (_, third) = handshake().await;
    third.assert_error(503, "overloaded");
    assert!(third.head.to_ascii_lowercase().contains("\r\nretry-after: "), "{third:?}");
    assert_eq!(get(&daemon, "/healthz").await.status, 200, "other requests are answered");
    let _source = EventSource::connect(&daemon, EVENTS_PATH, None).await;
    drop(first);
    wait_until_async("a free connection", async || (handshake().await.1.status == 101).then_some(())).await;
}

#[tokio::test]
async fn websocket_limit_is_64_by_default() {
    let daemon = Daemon::builder().start().await;
    let mut streams = Vec::new();
    for _ in 0..64 {
        streams.push(EventStream::connect(&daemon).await);
    }
    let mut connection = RawConnection::connect(&daemon).await;
    connection.send(head(&daemon, &format!("GET {EVENTS_PATH}"), HANDSHAKE)).await;
    connection.response().await.assert_error(503, "overloaded");
}

#[tokio::test]
async fn head_timeout_closes_kept_alive_connection() {
    if !runs_long() {
        return;
    }
    let daemon = Daemon::builder().start().await;
    let mut connection = RawConnection::connect(&daemon).await;
    connection.send(head(&daemon, "GET /healthz", "")).await;
    let response = connection.response().await;
    assert_eq!(response.status, 200);
    assert!(!response.has_line("connection: close"), "{response:?}");
    let started = Instant::now();
    assert_eq!(connection.read_to_end().await, "", "the idle connection gets no response");
    let open_for = started.elapsed();
    assert!(open_for > HEAD_TIMEOUT - TIMER_TOLERANCE && open_for < HEAD_TIMEOUT * 2, "{open_for:?}");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let daemon = Daemon::builder().start().await;
    let mut connection = RawConnection::connect(&daemon).await;
    let session = request_bytes(&daemon, "/v1/codexd/sessions", &json!({}));
    let session = session.replace("connection: close\r\n", "");
    let requests = [
        head(&daemon, "GET /healthz", ""),
        session,
        head(&daemon, "GET /nowhere", ""),
        head(&daemon, "GET /v1/codexd/sessions", "Connection: close\r\n"),
    ];
    connection.send(requests.concat()).await;
    let mut responses = Vec::new();
    for _ in &requests {
        responses.push(connection.response().await);
    }
    assert_eq!(responses.iter().map(|response| response.status).collect::<Vec<_>>(), [200, 201, 404, 200]);
    assert!(responses[3].body.contains("session-"), "{:?}", responses[3]);
    assert!(responses[3].has_line("connection: close"), "{:?}", responses[3]);
    assert_eq!(connection.read_to_end().await, "");
}

#[cfg(target_os = "linux")]
#[expect(
    clippy::print_stderr,
    reason = "the test runner prints the measurement when the test fails, or with --nocapture"
)]
#[tokio::test]
async fn idle_websocket_uses_at_most_40_kib() {
    use super::process_usage::resident_kib;

    const COUNT: usize = 60;
    const MAX_KIB_EACH: u64 = 40;
    let daemon = Daemon::builder().start().await;
    wait_until_ready(&daemon).await;
    // The memory that the first WebSocket allocates once is not measured.
    let mut streams = vec![EventStream::connect(&daemon).await];
    streams[0].hello().await;
    let before = resident_kib(daemon.pid());
    for _ in 0..COUNT {
        let mut stream = EventStream::connect(&daemon).await;
        stream.hello().await;
        streams.push(stream);
    }
    let growth = resident_kib(daemon.pid()).saturating_sub(before);
    eprintln!("a WebSocket takes {} KiB", growth / COUNT as u64);
    assert!(growth < MAX_KIB_EACH * COUNT as u64, "{growth} KiB for {COUNT} WebSockets");
}
