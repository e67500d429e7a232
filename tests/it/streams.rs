//! The event stream as pages, server-sent events and WebSocket: cursors, filters, gaps, and slow clients.

mod filter;
mod gap;
mod page;
mod replay;
mod slow;
mod sse;

use serde_json::Value;

use crate::support::daemon::Daemon;
use crate::support::http::{ApiResponse, Target, get, request};
use crate::support::websocket::{EVENTS_PATH, EventStream};

/// The path of the event stream with this query.
fn events_path(query: &str) -> String {
    format!("{EVENTS_PATH}?{query}")
}

/// Requests a page of the log.
async fn page(target: &(impl Target + ?Sized), query: &str) -> Value {
    get(target, &events_path(query)).await.data(200).clone()
}

/// Reads all events of the log that match the filter in `query`, page by page.
async fn all_pages(target: &(impl Target + ?Sized), query: &str) -> Vec<Value> {
    let (mut events, mut after) = (Vec::new(), String::new());
    loop {
        let page = page(target, &format!("{query}&limit=1000{after}")).await;
        events.extend_from_slice(page["events"].as_array().unwrap());
        // The log may grow meanwhile; a page that reaches the end is the last one.
        if is_cursor_of(&page["cursor"], &page["latest"]) {
            return events;
        }
        after = format!("&after={}", page["cursor"].as_str().unwrap());
    }
}

/// Whether this cursor has this sequence number.
fn is_cursor_of(cursor: &Value, seq: &Value) -> bool {
    cursor.as_str().unwrap().rsplit_once('-').unwrap().1.parse().ok() == seq.as_u64()
}

/// Requests server-sent events; returns the response of a refused request.
async fn refused_event_source(daemon: &Daemon, query: &str, last_event_id: Option<&str>) -> ApiResponse {
    let mut headers = vec![("accept", "text/event-stream")];
    headers.extend(last_event_id.map(|id| ("last-event-id", id)));
    request(daemon, hyper::Method::GET, &events_path(query), &headers, "").await
}

/// Connects a WebSocket with this query; returns it with its hello message.
async fn connect(target: &(impl Target + ?Sized), query: &str) -> (EventStream, Value) {
    let mut stream = EventStream::connect_to(target, &events_path(query), &[]).await;
    let hello = stream.hello().await;
    (stream, hello)
}

/// The cursor in a hello message.
fn cursor(hello: &Value) -> String {
    hello["cursor"].as_str().unwrap().to_owned()
}

fn epoch(cursor: &str) -> &str {
    cursor.rsplit_once('-').unwrap().0
}

fn cursor_seq(cursor: &str) -> u64 {
    cursor.rsplit_once('-').unwrap().1.parse().unwrap()
}

fn seq(event: &Value) -> u64 {
    event["seq"].as_u64().unwrap()
}

fn seqs(events: &[Value]) -> Vec<u64> {
    events.iter().map(seq).collect()
}

/// Whether this event reports the end of this turn.
fn is_turn_end(event: &Value, turn_id: &str) -> bool {
    event["type"] == "app-server.turn.completed" && event["detail"]["turnId"] == turn_id
}
