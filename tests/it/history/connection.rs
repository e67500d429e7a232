//! The three ways of reading events, all of them prepared for a daemon that dies at any moment.

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

/// How long a reader of pages rests when there was nothing new.
const REST: Duration = Duration::from_millis(15);

/// How a client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    WebSocket,
    ServerSent,
    Pages,
}

/// Something that a client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// The greeting: a cursor, with everything before it.
    Hello { epoch: String, seq: u64 },
    /// The JSON of an event, and the name of the log where the event brings it along.
    Event { epoch: Option<String>, text: String },
    /// Everything through this cursor was looked at.
    Bookmark { epoch: String, seq: u64 },
    /// Events are missing, for this reason.
    Gap(String),
}

/// One connection, or a row of requests for pages.
pub(super) enum Connection {
    WebSocket(Box<WebSocketStream<MaybeTlsStream<TcpStream>>>),
    ServerSent { body: Incoming, text: String, told: VecDeque<Told> },
    Pages { base: String, query: String, after: String, limit: u64, told: VecDeque<Told> },
}

impl Connection {
    /// Connects after this cursor, or with the present for a WebSocket without one; `None` when the daemon is away.
    pub(super) async fn open(
        kind: Kind,
        base: &str,
        after: Option<&str>,
        filter: &Filter,
        limit: u64,
    ) -> Option<Self> {
        in_time("a connection", async {
            let query = query(filter);
            let after_query = after.map(|cursor| format!("after={cursor}&")).unwrap_or_default();
            match kind {
                Kind::WebSocket => {
                    let url = format!("ws://{}{EVENTS_PATH}?{after_query}{query}", base.authority());
                    let (socket, _) = connect_async(url).await.ok()?;
                    Some(Self::WebSocket(Box::new(socket)))
                }
                Kind::ServerSent => {
                    let path = format!("{EVENTS_PATH}?{after_query}{query}");
                    let response = fetch(base, &path, "text/event-stream").await?;
                    if response.status() == 410 {
                        let gap = json_of(response).await?;
                        let reason = gap["details"]["reason"].as_str().unwrap_or("gone").to_owned();
                        let told = VecDeque::from([Told::Gap(reason)]);
                        return Some(Self::Pages {
                            base: base.to_owned(),
                            query,
                            after: String::new(),
                            limit,
                            told,
                        });
                    }
                    if response.status() == 503 {
                        return None;
                    }
                    assert_eq!(response.status(), 200, "{path}");
                    let body = response.into_body();
                    Some(Self::ServerSent { body, text: String::new(), told: VecDeque::new() })
                }
                Kind::Pages => Some(Self::Pages {
                    base: base.to_owned(),
                    query,
                    after: after.unwrap_or_default().to_owned(),
                    limit,
                    told: VecDeque::new(),
                }),
            }
        })
        .await
    }

    /// What the client is told next; `None` when the connection has ended.
    pub(super) async fn next(&mut self) -> Option<Told> {
        match self {
            Self::WebSocket(socket) => loop {
                match socket.next().await?.ok()? {
                    Message::Text(text) => {
                        if let Some(told) = read_message(&text) {
                            return Some(told);
                        }
                    }
                    Message::Close(_) => return None,
                    _ => {}
                }
            },
            Self::ServerSent { body, text, told } => loop {
                if let Some(told) = told.pop_front() {
                    return Some(told);
                }
                if let Ok(data) = body.frame().await?.ok()?.into_data() {
                    // Frames may end within a character only if the daemon cuts one, and that must not happen.
                    text.push_str(std::str::from_utf8(&data).unwrap());
                }
                while let Some((block, rest)) = text.split_once("\n\n") {
                    told.extend(read_block(block));
                    *text = rest.to_owned();
                }
            },
            Self::Pages { base, query, after, limit, told } => loop {
                if let Some(told) = told.pop_front() {
                    return Some(told);
                }
                let after_query = if after.is_empty() { String::new() } else { format!("after={after}&") };
                let path = format!("{EVENTS_PATH}?{after_query}limit={limit}&{query}");
                let response = fetch(base, &path, "application/json").await?;
                let status = response.status();
                let answer = json_of(response).await?;
                if status == 410 {
                    let reason = answer["details"]["reason"].as_str().unwrap_or("gone");
                    told.push_back(Told::Gap(reason.to_owned()));
                    continue;
                }
                // The files cannot be read: the disk is gone, and the daemon will be.
                if status == 503 {
                    return None;
                }
                assert_eq!(status, 200, "{path}: {answer}");
                let page = &answer["data"];
                let events = page["events"].as_array().unwrap();
                told.extend(events.iter().map(|event| Told::Event { epoch: None, text: event.to_string() }));
                let cursor = page["cursor"].as_str().unwrap();
                if cursor != after.as_str() {
                    let (epoch, seq) = split(cursor);
                    told.push_back(Told::Bookmark { epoch, seq });
                    cursor.clone_into(after);
                }
                if events.is_empty() {
                    tokio::time::sleep(REST).await;
                    // Nothing to tell, but the client may want to do something else now.
                    let (epoch, seq) = split(after);
                    told.push_back(Told::Bookmark { epoch, seq });
                }
            },
        }
    }
}

/// All pages from the oldest event through the newest; the name of the log and the events.
pub(super) async fn read_all(base: &str) -> (String, Vec<String>) {
    read_after(base, "").await.unwrap_or_else(|reason| panic!("the beginning is gone: {reason}"))
}

/// All pages after a cursor; the name of the log and the events, or why the cursor leads nowhere.
pub(super) async fn read_after(base: &str, after: &str) -> Result<(String, Vec<String>), String> {
    let mut after = after.to_owned();
    let mut events = Vec::new();
    loop {
        let after_query = if after.is_empty() { String::new() } else { format!("after={after}&") };
        let path = format!("{EVENTS_PATH}?{after_query}limit=1000");
        let response = in_time("a page", fetch(base, &path, "application/json")).await.unwrap();
        let answer = json_of(response).await.unwrap();
        if let Some(reason) = answer["details"]["reason"].as_str() {
            return Err(reason.to_owned());
        }
        let page = &answer["data"];
        assert!(page.is_object(), "{path}: {answer}");
        events.extend(page["events"].as_array().unwrap().iter().map(Value::to_string));
        let cursor = page["cursor"].as_str().unwrap();
        let (epoch, seq) = split(cursor);
        if seq >= page["latest"].as_u64().unwrap() || cursor == after {
            return Ok((epoch, events));
        }
        cursor.clone_into(&mut after);
    }
}

/// All pages from the oldest event through the newest, across what is missing; the name of the log and the events.
pub(super) async fn read_kept(base: &str) -> (String, Vec<String>) {
    let (mut after, mut events) = (String::new(), Vec::new());
    loop {
        let after_query = if after.is_empty() { String::new() } else { format!("after={after}&") };
        let path = format!("{EVENTS_PATH}?{after_query}limit=1000");
        let response = in_time("a page", fetch(base, &path, "application/json")).await.unwrap();
        let answer = json_of(response).await.unwrap();
        if let Some(behind) = answer["details"]["cursor"].as_str() {
            assert_eq!(answer["details"]["reason"], "lost", "{path}: {answer}");
            assert!(behind != after, "{path}: {answer}");
            behind.clone_into(&mut after);
            continue;
        }
        let page = &answer["data"];
        events.extend(page["events"].as_array().unwrap().iter().map(Value::to_string));
        let cursor = page["cursor"].as_str().unwrap();
        let (epoch, seq) = split(cursor);
        if seq >= page["latest"].as_u64().unwrap() {
            return (epoch, events);
        }
        cursor.clone_into(&mut after);
    }
}

/// GET that ends with `None` when the daemon is away or goes away.
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
    waited.unwrap_or_else(|_| panic!("waited {} s in vain for {what}", DEADLINE.as_secs()))
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

/// What a text message says, if it is of interest.
fn read_message(text: &str) -> Option<Told> {
    if let Some(event) = text.strip_prefix("{\"type\":\"event\",\"event\":") {
        return Some(Told::Event { epoch: None, text: event.strip_suffix("}\n").unwrap().to_owned() });
    }
    let message: Value = serde_json::from_str(text).unwrap();
    let cursor = || split(message["cursor"].as_str().unwrap_or_else(|| panic!("no cursor in {text}")));
    match message["type"].as_str() {
        Some("hello") => {
            let (epoch, seq) = cursor();
            Some(Told::Hello { epoch, seq })
        }
        Some("bookmark") => {
            let (epoch, seq) = cursor();
            Some(Told::Bookmark { epoch, seq })
        }
        Some("gap") => Some(Told::Gap(message["reason"].as_str().unwrap().to_owned())),
        _ => None,
    }
}

/// What a block of server-sent lines says, if anything.
fn read_block(block: &str) -> Option<Told> {
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let data = field("data")?;
    match field("event") {
        None => {
            let (epoch, seq) = split(field("id").unwrap_or_else(|| panic!("no id in {block}")));
            assert!(data.starts_with(&format!("{{\"seq\":{seq},")), "the id is not the cursor in {block}");
            Some(Told::Event { epoch: Some(epoch), text: data.to_owned() })
        }
        Some("bookmark") => {
            let (epoch, seq) = split(field("id").unwrap_or_else(|| panic!("no id in {block}")));
            Some(Told::Bookmark { epoch, seq })
        }
        Some("gap") => {
            let gap: Value = serde_json::from_str(data).unwrap();
            Some(Told::Gap(gap["reason"].as_str().unwrap().to_owned()))
        }
        Some(other) => panic!("an event called {other}"),
    }
}

fn split(cursor: &str) -> (String, u64) {
    let parts = cursor.rsplit_once('-').and_then(|(epoch, seq)| Some((epoch.to_owned(), seq.parse().ok()?)));
    parts.unwrap_or_else(|| panic!("{cursor} is no cursor"))
}
