//! Clients that do not read, read slowly, or do not answer.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{connect, cursor, ends, epoch, events_path, number, seq};
use crate::api::{idle, session, turn};
use crate::support::daemon::Daemon;
use crate::support::http::{Target, get};
use crate::support::skip::runs_long;
use crate::support::wait::{DEADLINE, wait_until_async};
use crate::support::websocket::EventStream;

const TOO_SLOW: u16 = 4408;

/// The receive buffer of a client that is to be noticed soon, in bytes.
const LITTLE: u32 = 16 * 1024;

async fn daemon_with(arguments: &[&str]) -> Daemon {
    let builder = Daemon::builder();
    arguments.iter().fold(builder, |builder, argument| builder.arg(argument)).start().await
}

async fn clients_are(daemon: &Daemon, count: usize) {
    wait_until_async("the clients to be counted", async || {
        let health = get(daemon, "/healthz").await.json;
        (health["service"]["websocketClients"] == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_told_so_and_goes_on_at_its_cursor() {
    let daemon = daemon_with(&["--client-timeout", "4"]).await;
    let session_id = session(&daemon).await;
    let mut deaf = EventStream::connect_with_receive_buffer(&daemon, &events_path(""), LITTLE).await;
    let at = cursor(&deaf.hello().await);
    // More than 12 MB, far more than the buffers of the two sockets take.
    let turn_id = turn(&daemon, &session_id, "deltas=1200 chars=10000").await;
    idle(&daemon, &session_id).await;
    // From then on the close frame is kept for the client for another 4 s.
    wait_until_async("the stream to be closed", async || {
        daemon.stderr().contains("closing a WebSocket whose client reads nothing").then_some(())
    })
    .await;
    let (mut seen, code) = deaf.rest().await;
    assert_eq!(code, TOO_SLOW);
    assert!(seen.len() < 1200, "all of it was read");
    let last = seen.last().map_or(number(&at), seq);
    let (mut again, _) = connect(&daemon, &format!("after={}-{last}", epoch(&at))).await;
    seen.extend(again.collect_until("the end of the turn", |event| ends(event, &turn_id)).await);
    let log = daemon.events_on_disk();
    assert_eq!(seen, log[number(&at) as usize..][..seen.len()]);
}

#[tokio::test]
async fn a_client_that_never_reads_again_is_let_go() {
    let daemon = daemon_with(&["--client-timeout", "1"]).await;
    let session_id = session(&daemon).await;
    let mut deaf = EventStream::connect_with_receive_buffer(&daemon, &events_path(""), LITTLE).await;
    deaf.hello().await;
    clients_are(&daemon, 1).await;
    turn(&daemon, &session_id, "deltas=1200 chars=10000").await;
    clients_are(&daemon, 0).await;
}

#[tokio::test]
async fn a_client_of_server_sent_events_that_never_reads_again_is_let_go() {
    let daemon = daemon_with(&["--client-timeout", "1"]).await;
    let session_id = session(&daemon).await;
    let mut stream = TcpStream::connect(daemon.authority()).await.unwrap();
    let head = format!(
        "GET {} HTTP/1.1\r\nhost: {}\r\naccept: text/event-stream\r\n\r\n",
        events_path(""),
        daemon.authority()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let turn_id = turn(&daemon, &session_id, "deltas=1200 chars=10000").await;
    idle(&daemon, &session_id).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    // What is still in the buffers comes, and then the end, not the rest.
    let mut text = Vec::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut text)).await;
    assert!(read.is_ok(), "the connection is still open");
    let end = format!("App-server turn {turn_id} completed.");
    assert!(memchr::memmem::find(&text, end.as_bytes()).is_none(), "all of it came");
}

#[tokio::test]
async fn a_client_that_reads_slowly_but_reads_is_not_slow() {
    if !runs_long() {
        return;
    }
    let daemon = daemon_with(&["--client-timeout", "10", "--ping-interval", "3"]).await;
    let session_id = session(&daemon).await;
    // Its socket holds as much as it reads in several seconds, and a ping stands behind all of that.
    let mut slow = EventStream::connect_with_receive_buffer(&daemon, &events_path(""), 192 * 1024).await;
    let at = number(&cursor(&slow.hello().await));
    let turn_id = turn(&daemon, &session_id, "deltas=1200 chars=10000").await;
    let began = Instant::now();
    let mut seen = Vec::new();
    // Several times as long as a client may take nothing, and as it may leave a ping unanswered.
    while began.elapsed() < Duration::from_secs(21) {
        seen.push(slow.next_event().await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(seen.len() < 1000, "the client was fast");
    seen.extend(slow.collect_until("the end of the turn", |event| ends(event, &turn_id)).await);
    let log = daemon.events_on_disk();
    assert_eq!(seen, log[at as usize..][..seen.len()]);
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_gone_and_one_that_does_stays() {
    let daemon = daemon_with(&["--ping-interval", "1"]).await;
    crate::api::ready(&daemon).await;
    let (mut answering, _) = connect(&daemon, "").await;
    let mut silent = TcpStream::connect(daemon.authority()).await.unwrap();
    let head = format!(
        "GET {} HTTP/1.1\r\nhost: {}\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        events_path(""),
        daemon.authority()
    );
    silent.write_all(head.as_bytes()).await.unwrap();
    clients_are(&daemon, 2).await;
    let mut received = Vec::new();
    let gone = async {
        let _ = silent.read_to_end(&mut received).await;
    };
    let stays = async {
        // Reading is what answers pings; the stream must not end meanwhile.
        let ended = tokio::time::timeout(Duration::from_secs(5), answering.rest()).await;
        assert!(ended.is_err(), "{ended:?}");
    };
    let both = tokio::time::timeout(DEADLINE, async { tokio::join!(gone, stays) }).await;
    assert!(both.is_ok(), "the silent client is still there");
    // Two bytes: a ping without a payload (RFC 6455 section 5.5.2).
    assert!(memchr::memmem::find(&received, &[0x89, 0]).is_some(), "it was not asked");
    clients_are(&daemon, 1).await;
    let pong = answering.ask(&serde_json::json!({ "type": "ping" })).await;
    assert_eq!(pong["type"], "pong");
}
