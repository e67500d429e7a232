//! The event stream in its three forms: resuming, pages, filters, what is gone, and clients that are slow.

mod filter;
mod gap;
mod page;
mod replay;
mod slow;
mod sse;

use serde_json::Value;

use crate::support::daemon::Daemon;
use crate::support::http::{Answer, Target, get, request};
use crate::support::websocket::{EVENTS_PATH, EventStream};

/// The address of the events with this query.
fn events_path(query: &str) -> String {
    format!("{EVENTS_PATH}?{query}")
}

/// A page of the log.
async fn page(target: &(impl Target + ?Sized), query: &str) -> Value {
    get(target, &events_path(query)).await.data(200).clone()
}

/// All events of the log that pass the filter in `query`, page by page.
async fn all_pages(target: &(impl Target + ?Sized), query: &str) -> Vec<Value> {
    let (mut events, mut after) = (Vec::new(), String::new());
    loop {
        let page = page(target, &format!("{query}&limit=1000{after}")).await;
        events.extend_from_slice(page["events"].as_array().unwrap());
        // The log may grow meanwhile; a page that reaches its end is the last.
        if ends_with(&page["cursor"], &page["latest"]) {
            return events;
        }
        after = format!("&after={}", page["cursor"].as_str().unwrap());
    }
}

/// Whether this is the cursor of this number.
fn ends_with(cursor: &Value, seq: &Value) -> bool {
    cursor.as_str().unwrap().rsplit_once('-').unwrap().1.parse().ok() == seq.as_u64()
}

/// What is answered to a request for server-sent events that is refused.
async fn refused_source(daemon: &Daemon, query: &str, last_event_id: Option<&str>) -> Answer {
    let mut headers = vec![("accept", "text/event-stream")];
    headers.extend(last_event_id.map(|id| ("last-event-id", id)));
    request(daemon, hyper::Method::GET, &events_path(query), &headers, "").await
}

/// A WebSocket with this query, and its greeting.
async fn connect(target: &(impl Target + ?Sized), query: &str) -> (EventStream, Value) {
    let mut stream = EventStream::connect_to(target, &events_path(query), &[]).await;
    let hello = stream.hello().await;
    (stream, hello)
}

/// The cursor in a greeting.
fn cursor(hello: &Value) -> String {
    hello["cursor"].as_str().unwrap().to_owned()
}

fn epoch(cursor: &str) -> &str {
    cursor.rsplit_once('-').unwrap().0
}

fn number(cursor: &str) -> u64 {
    cursor.rsplit_once('-').unwrap().1.parse().unwrap()
}

fn seq(event: &Value) -> u64 {
    event["seq"].as_u64().unwrap()
}

fn seqs(events: &[Value]) -> Vec<u64> {
    events.iter().map(seq).collect()
}

/// Whether this is the end of this turn.
fn ends(event: &Value, turn_id: &str) -> bool {
    event["type"] == "app-server.turn.completed" && event["detail"]["turnId"] == turn_id
}
