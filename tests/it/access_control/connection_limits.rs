//! Too many clients, slow ones, and ones that only take: the others do not notice.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::raw_connection::{HANDSHAKE, Wire, head};
use super::slow_clients::{Crowd, End, Honest, Kind, p99};
use crate::api::{idle, ready, request_bytes, session, turn};
use crate::support::daemon::Daemon;
use crate::support::http::{Target, get};
use crate::support::skip::runs_long;
use crate::support::sse::EventSource;
use crate::support::wait::wait_until_async;
use crate::support::websocket::{EVENTS_PATH, EventStream};

/// How many peers of each kind there are.
const EACH: usize = 200;
/// The rest of the honest client between two requests.
const REST: Duration = Duration::from_millis(5);
/// What 99 of 100 honest requests take at most.
const P99: Duration = Duration::from_millis(100);
/// How often a crowd may come again because the machine had other things to do.
const ROUNDS: usize = 3;
/// How long a head may take.
const HEAD: Duration = Duration::from_secs(5);
/// How long a body may take.
const BODY: Duration = Duration::from_secs(10);
/// How long a connection may wait for its next request.
const IDLE: Duration = Duration::from_secs(30);
/// A timer of the daemon may begin a little after the clock of the test, or be read a little before its time.
const EARLY: Duration = Duration::from_millis(100);

/// One crowd at a time: two of them would measure each other.
static ONE_CROWD: Mutex<()> = Mutex::const_new(());

/// Lets a crowd come and go; how long 99 of 100 honest requests took, all of which have to be answered.
async fn crowded(kinds: &[Kind]) -> (Duration, Vec<End>) {
    let daemon = Daemon::builder().start().await;
    ready(&daemon).await;
    if kinds.contains(&Kind::SlowReader) {
        let session_id = session(&daemon).await;
        // A page of these is large, and the greeting of a WebSocket, which has the newest events, is not.
        for prompt in ["deltas=16 chars=300000", "deltas=60 chars=10"] {
            turn(&daemon, &session_id, prompt).await;
            idle(&daemon, &session_id).await;
        }
    }
    let honest = Honest::start(&daemon, REST);
    let mut crowd = Crowd::gather(&daemon, kinds, EACH).await;
    let ends = crowd.closed().await;
    honest.more(500).await;
    let answers = honest.finish().await;
    let refused = answers.iter().filter(|(status, _)| *status != 200).count();
    assert_eq!(refused, 0, "of {} honest requests", answers.len());
    drop(crowd);
    assert_eq!(get(&daemon, "/healthz").await.status, 200);
    (p99(&answers), ends)
}

/// Asserts that the others do not notice such a crowd; how its peers ended.
#[expect(
    clippy::print_stderr,
    reason = "the figure is shown with the failure of the test, or when it is asked for"
)]
async fn goes_unnoticed(kinds: &[Kind]) -> Vec<End> {
    let _alone = ONE_CROWD.lock().await;
    let mut all = Vec::new();
    for _ in 0..ROUNDS {
        let (p99, ends) = crowded(kinds).await;
        eprintln!("{kinds:?}: 99 of 100 honest requests took {p99:?} at most");
        if p99 < P99 {
            return ends;
        }
        all.push(p99);
    }
    panic!("99 of 100 honest requests took {all:?}");
}

/// Asserts that every peer of a crowd of one kind was given this time, and not much more.
fn assert_in_time(ends: &[End], time: Duration) {
    assert_eq!(ends.len(), EACH);
    for end in ends {
        assert!(end.after > time - EARLY && end.after < time * 2, "{end:?}");
    }
}

/// Asserts that a peer was told that it was too slow, and that the connection closes.
fn assert_told(end: &End) {
    let said = end.said.to_ascii_lowercase();
    assert!(said.starts_with("http/1.1 408 ") && said.contains("connection: close\r\n"), "{end:?}");
    assert!(said.contains("\"error\": \"request_timeout\""), "{end:?}");
}

#[tokio::test]
async fn silent_peers_are_closed_and_go_unnoticed() {
    let ends = goes_unnoticed(&[Kind::Silent]).await;
    assert_in_time(&ends, HEAD);
    assert!(ends.iter().all(|end| end.said.is_empty()), "{ends:?}");
}

#[tokio::test]
async fn half_a_head_is_given_up_and_goes_unnoticed() {
    if !runs_long() {
        return;
    }
    let ends = goes_unnoticed(&[Kind::HalfHead]).await;
    assert_in_time(&ends, HEAD);
    ends.iter().for_each(assert_told);
}

#[tokio::test]
async fn a_slow_body_is_given_up_and_goes_unnoticed() {
    if !runs_long() {
        return;
    }
    let ends = goes_unnoticed(&[Kind::SlowBody]).await;
    assert_in_time(&ends, BODY);
    ends.iter().for_each(assert_told);
}

#[tokio::test]
async fn peers_that_do_not_read_go_unnoticed() {
    goes_unnoticed(&[Kind::SlowReader]).await;
}

#[tokio::test]
async fn more_peers_than_there_is_room_for_go_unnoticed() {
    let kinds = [Kind::Silent, Kind::HalfHead, Kind::SlowBody, Kind::SlowReader];
    let ends = goes_unnoticed(&kinds).await;
    // Some had to leave early, so that there was room for others, and nobody stayed longer than when alone.
    assert!(ends.iter().all(|end| end.after < BODY * 2), "{ends:?}");
    assert!(ends.iter().any(|end| end.after < HEAD - EARLY), "there was room for everybody");
    let of = |kind| ends.iter().filter(|end| end.kind == kind).count();
    assert_eq!(kinds.map(of), [EACH, EACH, EACH, 0]);
}

#[tokio::test]
async fn a_flood_of_connections_goes_unnoticed_and_leaves_nothing_behind() {
    const FLOOD: usize = 5000;
    /// More than there is room for, so that the daemon has to make some.
    const HELD: usize = 300;
    let _alone = ONE_CROWD.lock().await;
    let daemon = Daemon::builder().start().await;
    ready(&daemon).await;
    #[cfg(target_os = "linux")]
    let before = super::process_usage::descriptors(daemon.pid());
    // For the limit of the tests' own files.
    drop(Crowd::gather(&daemon, &[Kind::Silent], 1).await);
    let honest = Honest::start(&daemon, REST);
    let mut held = VecDeque::new();
    for _ in 0..FLOOD {
        held.push_back(TcpStream::connect(daemon.authority()).await.unwrap());
        if held.len() > HELD {
            held.pop_front();
        }
    }
    honest.more(20).await;
    let answers = honest.finish().await;
    assert!(answers.iter().all(|(status, _)| *status == 200), "{answers:?}");
    drop(held);
    #[cfg(target_os = "linux")]
    crate::support::wait::wait_until("the descriptors of the crowd to be given back", || {
        (super::process_usage::descriptors(daemon.pid()) <= before).then_some(())
    })
    .await;
    assert_eq!(get(&daemon, "/healthz").await.status, 200);
}

/// Asserts that whoever comes is told to come again, and is not kept.
async fn assert_full(daemon: &Daemon) {
    for _ in 0..20 {
        let answer = get(daemon, "/healthz").await;
        answer.error(503, "overloaded");
        assert_eq!(answer.headers["connection"], "close");
        let retry_after = answer.headers["retry-after"].to_str().unwrap();
        assert!(retry_after.parse::<u32>().unwrap() > 0, "{retry_after}");
    }
    // One that says nothing is not kept either, whether it is told so or not.
    let refused = Wire::connect(daemon).await.rest().await;
    assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 503 "), "{refused:?}");
}

async fn room(daemon: &Daemon) {
    wait_until_async("room for one", async || (get(daemon, "/healthz").await.status == 200).then_some(()))
        .await;
}

#[tokio::test]
async fn where_nobody_can_leave_the_next_one_is_told_to_come_again() {
    // Nobody has asked anything before, so that no connection that is about to close has a place.
    let daemon = Daemon::builder().arg("--connection-limit").arg("4").start().await;
    let mut streams = Vec::new();
    for _ in 0..4 {
        let mut stream = EventStream::connect(&daemon).await;
        stream.hello().await;
        streams.push(stream);
    }
    assert_full(&daemon).await;
    // Those that are inside notice nothing.
    for stream in &mut streams {
        let pong = stream.ask(&serde_json::json!({ "type": "ping" })).await;
        assert_eq!(pong["type"], "pong");
    }
    streams.pop();
    room(&daemon).await;
    streams.push(EventStream::connect(&daemon).await);
    assert_full(&daemon).await;
}

#[tokio::test]
async fn a_reader_of_events_has_its_place_until_it_leaves() {
    // Nobody has asked anything before, so that no connection that is about to close has a place.
    let daemon = Daemon::builder().arg("--connection-limit").arg("2").start().await;
    let mut first = EventSource::connect(&daemon, EVENTS_PATH, None).await;
    let second = EventSource::connect(&daemon, EVENTS_PATH, None).await;
    assert_full(&daemon).await;
    drop(second);
    room(&daemon).await;
    session(&daemon).await;
    first.next_event().await;
}

#[tokio::test]
async fn one_that_waits_leaves_for_one_that_comes() {
    // Nobody has asked anything before, so that no connection that is about to close has a place.
    let daemon = Daemon::builder().arg("--connection-limit").arg("4").start().await;
    // Two that are in use, one that has waited for its next request, and one for its first.
    let mut sources = Vec::new();
    for _ in 0..2 {
        sources.push(EventSource::connect(&daemon, EVENTS_PATH, None).await);
    }
    let mut first = Wire::connect(&daemon).await;
    first.send(head(&daemon, "GET /healthz", "")).await;
    assert_eq!(first.answer().await.status, 200);
    let mut second = Wire::connect(&daemon).await;
    second.send("GET /healthz HTTP/1.1\r\n").await;
    let mut third = Wire::connect(&daemon).await;
    third.send(head(&daemon, "GET /healthz", "")).await;
    assert_eq!(third.answer().await.status, 200);
    assert_eq!(first.rest().await, "", "the one that has waited longest is closed without a word");
    // The other one is still there.
    second.send(format!("Host: {}\r\n\r\n", daemon.authority())).await;
    assert_eq!(second.answer().await.status, 200);
}

#[tokio::test]
async fn there_are_only_so_many_websockets() {
    let daemon = Daemon::builder().arg("--websocket-limit").arg("2").start().await;
    let handshake = async || {
        let mut wire = Wire::connect(&daemon).await;
        wire.send(head(&daemon, &format!("GET {EVENTS_PATH}"), HANDSHAKE)).await;
        let answer = wire.answer().await;
        (wire, answer)
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
    wait_until_async("room for one", async || (handshake().await.1.status == 101).then_some(())).await;
}

#[tokio::test]
async fn there_are_64_websockets_by_default() {
    let daemon = Daemon::builder().start().await;
    let mut streams = Vec::new();
    for _ in 0..64 {
        streams.push(EventStream::connect(&daemon).await);
    }
    let mut wire = Wire::connect(&daemon).await;
    wire.send(head(&daemon, &format!("GET {EVENTS_PATH}"), HANDSHAKE)).await;
    wire.answer().await.assert_error(503, "overloaded");
}

#[tokio::test]
async fn a_connection_without_a_next_request_is_closed_after_a_while() {
    if !runs_long() {
        return;
    }
    let daemon = Daemon::builder().start().await;
    let mut wire = Wire::connect(&daemon).await;
    wire.send(head(&daemon, "GET /healthz", "")).await;
    let answer = wire.answer().await;
    assert_eq!(answer.status, 200);
    assert!(!answer.run("connection: close"), "{answer:?}");
    let began = Instant::now();
    assert_eq!(wire.rest().await, "", "it is closed without a word");
    let after = began.elapsed();
    assert!(after > IDLE - EARLY && after < IDLE * 2, "{after:?}");
}

#[tokio::test]
async fn requests_may_come_before_the_answers_to_those_before_them() {
    let daemon = Daemon::builder().start().await;
    let mut wire = Wire::connect(&daemon).await;
    let session = request_bytes(&daemon, "/v1/codexd/sessions", &serde_json::json!({}));
    let session = session.replace("connection: close\r\n", "");
    let requests = [
        head(&daemon, "GET /healthz", ""),
        session,
        head(&daemon, "GET /nowhere", ""),
        head(&daemon, "GET /v1/codexd/sessions", "Connection: close\r\n"),
    ];
    wire.send(requests.concat()).await;
    let mut answers = Vec::new();
    for _ in &requests {
        answers.push(wire.answer().await);
    }
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 201, 404, 200]);
    assert!(answers[3].body.contains("session-"), "{:?}", answers[3]);
    assert!(answers[3].run("connection: close"), "{:?}", answers[3]);
    assert_eq!(wire.rest().await, "");
}

#[cfg(target_os = "linux")]
#[expect(
    clippy::print_stderr,
    reason = "the figure is shown with the failure of the test, or when it is asked for"
)]
#[tokio::test]
async fn a_websocket_that_has_nothing_to_hear_costs_little() {
    use super::process_usage::resident;

    const COUNT: usize = 60;
    const KIB_EACH: u64 = 40;
    let daemon = Daemon::builder().start().await;
    ready(&daemon).await;
    // What the first one brings with it is for all.
    let mut streams = vec![EventStream::connect(&daemon).await];
    streams[0].hello().await;
    let before = resident(daemon.pid());
    for _ in 0..COUNT {
        let mut stream = EventStream::connect(&daemon).await;
        stream.hello().await;
        streams.push(stream);
    }
    let growth = resident(daemon.pid()).saturating_sub(before);
    eprintln!("a WebSocket takes {} KiB", growth / COUNT as u64);
    assert!(growth < KIB_EACH * COUNT as u64, "{growth} KiB for {COUNT} WebSockets");
}
