//! Server-sent events: their format, content negotiation, keep-alive, and the end of the stream.

use serde_json::json;

use super::{connect, cursor, cursor_seq, events_path, is_turn_end, seq};
use crate::api::{new_session, start_daemon, start_turn};
use crate::support::daemon::Daemon;
use crate::support::http::{get, request};
use crate::support::sse::EventSource;

#[tokio::test]
async fn server_sent_event_has_cursor_as_id_and_equals_the_log() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let (_stream, hello) = connect(&daemon, "").await;
    let mut source =
        EventSource::connect(&daemon, &events_path(&format!("after={}", cursor(&hello))), None).await;
    let turn_id = start_turn(&daemon, &session_id, "deltas=3 text=line\u{2028}é").await;
    let mut events = Vec::new();
    while !events.last().is_some_and(|event| is_turn_end(event, &turn_id)) {
        events.push(source.next_event().await);
    }
    let log = daemon.events_on_disk();
    let from = cursor_seq(&cursor(&hello)) as usize;
    assert_eq!(events, log[from..][..events.len()]);
    let last = seq(events.last().unwrap());
    assert_eq!(source.last_event_id, format!("{}-{last}", super::epoch(&cursor(&hello))));
    assert_eq!(source.retry, Some(1000));
}

#[tokio::test]
async fn accept_header_selects_stream_or_page() {
    let daemon = start_daemon().await;
    for accept in ["text/event-stream", "text/html, text/event-stream;q=0.9"] {
        let path = events_path("after=wrong");
        let response = request(&daemon, hyper::Method::GET, &path, &[("accept", accept)], "").await;
        response.error(400, "bad_request");
    }
    for accept in ["application/json", "*/*", "text/plain"] {
        let path = events_path("");
        let response = request(&daemon, hyper::Method::GET, &path, &[("accept", accept)], "").await;
        assert!(response.data(200)["events"].is_array(), "{accept}");
    }
}

#[tokio::test]
async fn idle_event_source_is_kept_alive_and_ended_by_stop() {
    let mut daemon = Daemon::builder().arg("--ping-interval").arg("1").start().await;
    crate::api::wait_until_ready(&daemon).await;
    let mut source = EventSource::connect(&daemon, &events_path(""), None).await;
    while source.comments < 2 {
        source.block().await;
    }
    // An event source does not count as a WebSocket.
    assert_eq!(get(&daemon, "/healthz").await.json["service"]["websocketClients"], json!(0));
    let stopping = tokio::spawn(async move { daemon.stop().await });
    while source.next().await.is_some() {}
    assert!(stopping.await.unwrap().status.success());
}
