//! Server-sent events: what a browser gets, and how the stream ends.

use serde_json::json;

use super::{connect, cursor, ends, events_path, number, seq};
use crate::api::{session, start, turn};
use crate::support::daemon::Daemon;
use crate::support::http::{get, request};
use crate::support::sse::EventSource;

#[tokio::test]
async fn an_event_has_its_cursor_as_its_id_and_is_that_of_the_log() {
    let daemon = start().await;
    let session_id = session(&daemon).await;
    let (_stream, hello) = connect(&daemon, "").await;
    let mut source =
        EventSource::connect(&daemon, &events_path(&format!("after={}", cursor(&hello))), None).await;
    let turn_id = turn(&daemon, &session_id, "deltas=3 text=line\u{2028}é").await;
    let mut seen = Vec::new();
    while !seen.last().is_some_and(|event| ends(event, &turn_id)) {
        seen.push(source.next_event().await);
    }
    let log = daemon.events_on_disk();
    let from = number(&cursor(&hello)) as usize;
    assert_eq!(seen, log[from..][..seen.len()]);
    let last = seq(seen.last().unwrap());
    assert_eq!(source.last_event_id, format!("{}-{last}", super::epoch(&cursor(&hello))));
    assert_eq!(source.retry, Some(1000));
}

#[tokio::test]
async fn the_header_decides_between_a_stream_and_a_page() {
    let daemon = start().await;
    for accept in ["text/event-stream", "text/html, text/event-stream;q=0.9"] {
        let path = events_path("after=wrong");
        let answer = request(&daemon, hyper::Method::GET, &path, &[("accept", accept)], "").await;
        answer.error(400, "bad_request");
    }
    for accept in ["application/json", "*/*", "text/plain"] {
        let path = events_path("");
        let answer = request(&daemon, hyper::Method::GET, &path, &[("accept", accept)], "").await;
        assert!(answer.data(200)["events"].is_array(), "{accept}");
    }
}

#[tokio::test]
async fn a_quiet_stream_is_kept_alive_and_a_stop_ends_it() {
    let mut daemon = Daemon::builder().arg("--ping-interval").arg("1").start().await;
    crate::api::ready(&daemon).await;
    let mut source = EventSource::connect(&daemon, &events_path(""), None).await;
    while source.comments < 2 {
        source.block().await;
    }
    // It is no WebSocket, so it does not count as one.
    assert_eq!(get(&daemon, "/healthz").await.json["service"]["websocketClients"], json!(0));
    let stopping = tokio::spawn(async move { daemon.stop().await });
    while source.next().await.is_some() {}
    assert!(stopping.await.unwrap().status.success());
}
