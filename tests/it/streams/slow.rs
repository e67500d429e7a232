//! Clients that do not read, read slowly, or do not answer pings.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{connect, cursor, cursor_seq, epoch, events_path, is_turn_end, seq};
use crate::api::{new_session, start_turn, wait_until_idle};
use crate::support::daemon::Daemon;
use crate::support::http::{Target, get};
use crate::support::skip::runs_long;
use crate::support::wait::{DEADLINE, wait_until_async};
use crate::support::websocket::EventStream;

const CLOSE_TOO_SLOW: u16 = 4408;

/// The receive buffer of a client that the daemon must soon detect as slow.
const SMALL_BUFFER_BYTES: u32 = 16 * 1024;

async fn daemon_with(arguments: &[&str]) -> Daemon {
    let builder = Daemon::builder();
    arguments.iter().fold(builder, |builder, argument| builder.arg(argument)).start().await
}

async fn wait_for_client_count(daemon: &Daemon, count: usize) {
    wait_until_async("the number of clients", async || {
        let health = get(daemon, "/healthz").await.json;
        (health["service"]["websocketClients"] == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn non_reading_websocket_is_closed_with_4408_and_resumes_at_its_cursor() {
    let daemon = daemon_with(&["--client-timeout", "4"]).await;
    let session_id = new_session(&daemon).await;
    let mut non_reading =
        EventStream::connect_with_receive_buffer(&daemon, &events_path(""), SMALL_BUFFER_BYTES).await;
    let cursor_at_start = cursor(&non_reading.hello().await);
    // More than 12 MB, far more than the buffers of both sockets hold.
    let turn_id = start_turn(&daemon, &session_id, "deltas=1200 chars=10000").await;
    wait_until_idle(&daemon, &session_id).await;
    // From then on, the daemon keeps the close frame for the client for another 4 s.
    wait_until_async("the stream to be closed", async || {
        daemon.stderr().contains("closing a WebSocket whose client reads nothing").then_some(())
    })
    .await;
    let (mut events, code) = non_reading.rest().await;
    assert_eq!(code, CLOSE_TOO_SLOW);
    assert!(events.len() < 1200, "the client received all events");
    let last = events.last().map_or(cursor_seq(&cursor_at_start), seq);
    let (mut resumed, _) = connect(&daemon, &format!("after={}-{last}", epoch(&cursor_at_start))).await;
    events.extend(resumed.collect_until("the end of the turn", |event| is_turn_end(event, &turn_id)).await);
    let log = daemon.events_on_disk();
    assert_eq!(events, log[cursor_seq(&cursor_at_start) as usize..][..events.len()]);
}

#[tokio::test]
async fn websocket_that_never_reads_again_is_dropped() {
    let daemon = daemon_with(&["--client-timeout", "1"]).await;
    let session_id = new_session(&daemon).await;
    let mut non_reading =
        EventStream::connect_with_receive_buffer(&daemon, &events_path(""), SMALL_BUFFER_BYTES).await;
    non_reading.hello().await;
    wait_for_client_count(&daemon, 1).await;
    start_turn(&daemon, &session_id, "deltas=1200 chars=10000").await;
    wait_for_client_count(&daemon, 0).await;
}

#[tokio::test]
async fn event_source_that_never_reads_again_is_dropped() {
    let daemon = daemon_with(&["--client-timeout", "1"]).await;
    let session_id = new_session(&daemon).await;
    let mut stream = TcpStream::connect(daemon.authority()).await.unwrap();
    let head = format!(
        "GET {} HTTP/1.1\r\nhost: {}\r\naccept: text/event-stream\r\n\r\n",
        events_path(""),
        daemon.authority()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let turn_id = start_turn(&daemon, &session_id, "deltas=1200 chars=10000").await;
    wait_until_idle(&daemon, &session_id).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    // The client gets the buffered bytes and then the end of the connection, not the other events.
    let mut text = Vec::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut text)).await;
    assert!(read.is_ok(), "the connection is still open");
    let end = format!("App-server turn {turn_id} completed.");
    assert!(memchr::memmem::find(&text, end.as_bytes()).is_none(), "the client received all events");
}

#[tokio::test]
async fn slowly_reading_websocket_is_not_closed() {
    if !runs_long() {
        return;
    }
    let daemon = daemon_with(&["--client-timeout", "10", "--ping-interval", "3"]).await;
    let session_id = new_session(&daemon).await;
    // The socket buffers as much as the client reads in several seconds, and a ping waits after all of that.
    let mut slow = EventStream::connect_with_receive_buffer(&daemon, &events_path(""), 192 * 1024).await;
    let cursor_at_start = cursor_seq(&cursor(&slow.hello().await));
    let turn_id = start_turn(&daemon, &session_id, "deltas=1200 chars=10000").await;
    let started = Instant::now();
    let mut events = Vec::new();
    // Several times the client timeout and the ping timeout.
    while started.elapsed() < Duration::from_secs(21) {
        events.push(slow.next_event().await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(events.len() < 1000, "the client read too fast for this test");
    events.extend(slow.collect_until("the end of the turn", |event| is_turn_end(event, &turn_id)).await);
    let log = daemon.events_on_disk();
    assert_eq!(events, log[cursor_at_start as usize..][..events.len()]);
}

#[tokio::test]
async fn websocket_without_pong_is_closed_and_answering_one_stays_open() {
    let daemon = daemon_with(&["--ping-interval", "1"]).await;
    crate::api::wait_until_ready(&daemon).await;
    let (mut answering, _) = connect(&daemon, "").await;
    let mut silent = TcpStream::connect(daemon.authority()).await.unwrap();
    let head = format!(
        "GET {} HTTP/1.1\r\nhost: {}\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        events_path(""),
        daemon.authority()
    );
    silent.write_all(head.as_bytes()).await.unwrap();
    wait_for_client_count(&daemon, 2).await;
    let mut received = Vec::new();
    let silent_closes = async {
        let _ = silent.read_to_end(&mut received).await;
    };
    let answering_stays = async {
        // Reading answers the pings; the stream must not end meanwhile.
        let ended = tokio::time::timeout(Duration::from_secs(5), answering.rest()).await;
        assert!(ended.is_err(), "{ended:?}");
    };
    let both = tokio::time::timeout(DEADLINE, async { tokio::join!(silent_closes, answering_stays) }).await;
    assert!(both.is_ok(), "the silent client is still connected");
    // Two bytes: a ping without a payload (RFC 6455 section 5.5.2).
    assert!(memchr::memmem::find(&received, &[0x89, 0]).is_some(), "the silent client got no ping");
    wait_for_client_count(&daemon, 1).await;
    let pong = answering.ask(&serde_json::json!({ "type": "ping" })).await;
    assert_eq!(pong["type"], "pong");
}
