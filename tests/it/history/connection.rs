//! Event clients for the three transports; each tolerates that the daemon is killed at any moment.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::StreamExt;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::record::Filter;
use crate::support::http::Target;
use crate::support::wait::DEADLINE;
use crate::support::websocket::EVENTS_PATH;

/// The delay between requests for pages when there are no new events.
const EMPTY_PAGE_DELAY: Duration = Duration::from_millis(15);

/// How a client receives events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    WebSocket,
    Sse,
    Pages,
}

/// A message that a client receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Received {
    /// The greeting with a cursor that covers everything before it.
    Hello { epoch: String, seq: u64 },
    /// The JSON of an event, and the epoch of the log if the transport sends it.
    Event { epoch: Option<String>, text: String },
    /// The daemon has processed everything through this cursor.
    Bookmark { epoch: String, seq: u64 },
    /// Events are missing, for this reason.
    Gap(String),
}

/// One connection, or a series of page requests.
pub(super) enum Connection {
    WebSocket(Box<WebSocketStream<MaybeTlsStream<TcpStream>>>),
    Sse { body: Incoming, text: String, received: VecDeque<Received> },
    Pages { base: String, query: String, after: String, limit: u64, received: VecDeque<Received> },
}

impl Connection {
    /// Connects after this cursor; a WebSocket without one starts at the newest event. Returns `None` when the daemon is
    /// not reachable.
    pub(super) async fn open(
        transport: Transport,
        base: &str,
        after: Option<&str>,
        filter: &Filter,
        limit: u64,
    ) -> Option<Self> {
        in_time("a connection", async {
            let query = query(filter);
            let after_query = after.map(|cursor| format!("after={cursor}&")).unwrap_or_default();
            match transport {
                Transport::WebSocket => {
                    let url = format!("ws://{}{EVENTS_PATH}?{after_query}{query}", base.authority());
                    let (socket, _) = connect_async(url).await.ok()?;
                    Some(Self::WebSocket(Box::new(socket)))
                }
                Transport::Sse => {
                    let path = format!("{EVENTS_PATH}?{after_query}{query}");
                    let response = fetch(base, &path, "text/event-stream").await?;
                    if response.status() == 410 {
                        let gap = json_of(response).await?;
                        let reason = gap["details"]["reason"].as_str().unwrap_or("gone").to_owned();
                        let received = VecDeque::from([Received::Gap(reason)]);
                        return Some(Self::Pages {
                            base: base.to_owned(),
                            query,
                            after: String::new(),
                            limit,
                            received,
                        });
                    }
                    if response.status() == 503 {
                        return None;
                    }
                    assert_eq!(response.status(), 200, "{path}");
                    let body = response.into_body();
                    Some(Self::Sse { body, text: String::new(), received: VecDeque::new() })
                }
                Transport::Pages => Some(Self::Pages {
                    base: base.to_owned(),
                    query,
                    after: after.unwrap_or_default().to_owned(),
                    limit,
                    received: VecDeque::new(),
                }),
            }
        })
        .await
    }

    /// Returns the next message, or `None` when the connection has ended.
    pub(super) async fn next(&mut self) -> Option<Received> {
        match self {
            Self::WebSocket(socket) => loop {
                match socket.next().await?.ok()? {
                    Message::Text(text) => {
                        if let Some(received) = read_message(&text) {
                            return Some(received);
                        }
                    }
                    Message::Close(_) => return None,
                    _ => {}
                }
            },
            Self::Sse { body, text, received } => loop {
                if let Some(received) = received.pop_front() {
                    return Some(received);
                }
                if let Ok(data) = body.frame().await?.ok()?.into_data() {
                    // A frame that ends within a character means that the daemon split it, which is an error.
                    text.push_str(std::str::from_utf8(&data).unwrap());
                }
                while let Some((block, rest)) = text.split_once("\n\n") {
                    received.extend(read_block(block));
                    *text = rest.to_owned();
                }
            },
            Self::Pages { base, query, after, limit, received } => loop {
                if let Some(received) = received.pop_front() {
                    return Some(received);
                }
                let after_query = if after.is_empty() { String::new() } else { format!("after={after}&") };
                let path = format!("{EVENTS_PATH}?{after_query}limit={limit}&{query}");
                let response = fetch(base, &path, "application/json").await?;
                let status = response.status();
                let body = json_of(response).await?;
                if status == 410 {
                    let reason = body["details"]["reason"].as_str().unwrap_or("gone");
                    received.push_back(Received::Gap(reason.to_owned()));
                    continue;
                }
                // The daemon cannot read the files: the disk has failed, and the test will end the daemon.
                if status == 503 {
                    return None;
                }
                assert_eq!(status, 200, "{path}: {body}");
                let page = &body["data"];
                let events = page["events"].as_array().unwrap();
                received.extend(
                    events.iter().map(|event| Received::Event { epoch: None, text: event.to_string() }),
                );
                let cursor = page["cursor"].as_str().unwrap();
                if cursor != after.as_str() {
                    let (epoch, seq) = split(cursor);
                    received.push_back(Received::Bookmark { epoch, seq });
                    cursor.clone_into(after);
                }
                if events.is_empty() {
                    tokio::time::sleep(EMPTY_PAGE_DELAY).await;
                    // There is no event; return, so that the client can do something else.
                    let (epoch, seq) = split(after);
                    received.push_back(Received::Bookmark { epoch, seq });
                }
            },
        }
    }
}

/// Reads all pages from the oldest event through the newest; returns the epoch and the events.
pub(super) async fn read_all(base: &str) -> (String, Vec<String>) {
    read_after(base, "").await.unwrap_or_else(|reason| panic!("the oldest event is not available: {reason}"))
}

/// Reads all pages after a cursor; returns the epoch and the events, or the reason why the cursor is invalid.
pub(super) async fn read_after(base: &str, after: &str) -> Result<(String, Vec<String>), String> {
    let mut after = after.to_owned();
    let mut events = Vec::new();
    loop {
        let after_query = if after.is_empty() { String::new() } else { format!("after={after}&") };
        let path = format!("{EVENTS_PATH}?{after_query}limit=1000");
        let response = in_time("a page", fetch(base, &path, "application/json")).await.unwrap();
        let body = json_of(response).await.unwrap();
        if let Some(reason) = body["details"]["reason"].as_str() {
            return Err(reason.to_owned());
        }
        let page = &body["data"];
        assert!(page.is_object(), "{path}: {body}");
        events.extend(page["events"].as_array().unwrap().iter().map(Value::to_string));
        let cursor = page["cursor"].as_str().unwrap();
        let (epoch, seq) = split(cursor);
        if seq >= page["latest"].as_u64().unwrap() || cursor == after {
            return Ok((epoch, events));
        }
        cursor.clone_into(&mut after);
    }
}

/// Reads all pages from the oldest event through the newest and skips lost ranges; returns the epoch and the events.
pub(super) async fn read_kept(base: &str) -> (String, Vec<String>) {
    let (mut after, mut events) = (String::new(), Vec::new());
    loop {
        let after_query = if after.is_empty() { String::new() } else { format!("after={after}&") };
        let path = format!("{EVENTS_PATH}?{after_query}limit=1000");
        let response = in_time("a page", fetch(base, &path, "application/json")).await.unwrap();
        let body = json_of(response).await.unwrap();
        if let Some(behind) = body["details"]["cursor"].as_str() {
            assert_eq!(body["details"]["reason"], "lost", "{path}: {body}");
            assert!(behind != after, "{path}: {body}");
            behind.clone_into(&mut after);
            continue;
        }
        let page = &body["data"];
        events.extend(page["events"].as_array().unwrap().iter().map(Value::to_string));
        let cursor = page["cursor"].as_str().unwrap();
        let (epoch, seq) = split(cursor);
        if seq >= page["latest"].as_u64().unwrap() {
            return (epoch, events);
        }
        cursor.clone_into(&mut after);
    }
}

/// Sends a GET; returns `None` when the daemon is not reachable or ends.
async fn fetch(base: &str, path: &str, accept: &str) -> Option<Response<Incoming>> {
    let stream = TcpStream::connect(base.authority()).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let request = Request::get(path).header("host", base.authority()).header("accept", accept);
    sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.ok()
}

async fn json_of(response: Response<Incoming>) -> Option<Value> {
    let body = response.into_body().collect().await.ok()?.to_bytes();
    serde_json::from_slice(&body).ok()
}

async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(DEADLINE, future).await;
    waited.unwrap_or_else(|_| panic!("timed out after {} s waiting for {what}", DEADLINE.as_secs()))
}

fn query(filter: &Filter) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for start in &filter.types {
        query.append_pair("type", start);
    }
    if let Some((session_id, _)) = &filter.session {
        query.append_pair("sessionId", session_id);
    }
    query.finish()
}

/// Parses a text message; returns `None` for types that the tests ignore.
fn read_message(text: &str) -> Option<Received> {
    if let Some(event) = text.strip_prefix("{\"type\":\"event\",\"event\":") {
        return Some(Received::Event { epoch: None, text: event.strip_suffix("}\n").unwrap().to_owned() });
    }
    let message: Value = serde_json::from_str(text).unwrap();
    let cursor = || split(message["cursor"].as_str().unwrap_or_else(|| panic!("no cursor in {text}")));
    match message["type"].as_str() {
        Some("hello") => {
            let (epoch, seq) = cursor();
            Some(Received::Hello { epoch, seq })
        }
        Some("bookmark") => {
            let (epoch, seq) = cursor();
            Some(Received::Bookmark { epoch, seq })
        }
        Some("gap") => Some(Received::Gap(message["reason"].as_str().unwrap().to_owned())),
        _ => None,
    }
}

/// Parses a block of server-sent event lines; returns `None` for a block without data.
fn read_block(block: &str) -> Option<Received> {
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let data = field("data")?;
    match field("event") {
        None => {
            let (epoch, seq) = split(field("id").unwrap_or_else(|| panic!("no id in {block}")));
            assert!(data.starts_with(&format!("{{\"seq\":{seq},")), "the id is not the cursor in {block}");
            Some(Received::Event { epoch: Some(epoch), text: data.to_owned() })
        }
        Some("bookmark") => {
            let (epoch, seq) = split(field("id").unwrap_or_else(|| panic!("no id in {block}")));
            Some(Received::Bookmark { epoch, seq })
        }
        Some("gap") => {
            let gap: Value = serde_json::from_str(data).unwrap();
            Some(Received::Gap(gap["reason"].as_str().unwrap().to_owned()))
        }
        Some(other) => panic!("unexpected event name {other}"),
    }
}

fn split(cursor: &str) -> (String, u64) {
    let parts = cursor.rsplit_once('-').and_then(|(epoch, seq)| Some((epoch.to_owned(), seq.parse().ok()?)));
    parts.unwrap_or_else(|| panic!("{cursor} is not a cursor"))
}
