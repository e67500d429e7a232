//! A WebSocket connection to an app-server or to the event stream of codexd, which notes when it receives what.
//!
//! It parses only what it needs, so that the clients take little time from what is measured.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What one client has received of one turn.
#[derive(Debug)]
pub(crate) struct SeenTurn {
    pub(crate) thread_id: String,
    pub(crate) first_delta: Instant,
    pub(crate) end: Instant,
    pub(crate) deltas: usize,
}

/// Where connections report the turns that they have received to the end.
pub(crate) type Seen = mpsc::UnboundedSender<SeenTurn>;

/// The requests whose response has not arrived.
type Pending = Arc<Mutex<HashMap<u64, oneshot::Sender<Value>>>>;

/// A connection; it ends when dropped.
pub(crate) struct Connection {
    sink: tokio::sync::Mutex<SplitSink<Socket, Message>>,
    pending: Pending,
    last_id: AtomicU64,
    reader: tokio::task::JoinHandle<()>,
}

impl Connection {
    /// Connects to a `ws://` URL.
    pub(crate) async fn open(url: &str, seen: &Seen) -> Self {
        let (socket, _) = connect_async_with_config(url, None, true).await.unwrap();
        let (sink, stream) = socket.split();
        let pending = Pending::default();
        let reader = tokio::spawn(read(stream, Arc::clone(&pending), seen.clone()));
        Self { sink: tokio::sync::Mutex::new(sink), pending, last_id: AtomicU64::new(0), reader }
    }

    /// Connects to an app-server as a client of its protocol.
    pub(crate) async fn open_app_server(url: &str, seen: &Seen) -> Self {
        let connection = Self::open(url, seen).await;
        let info = json!({ "name": "bench", "title": null, "version": "1" });
        connection.call("initialize", json!({ "clientInfo": info })).await;
        connection.send(&json!({ "method": "initialized" })).await;
        connection
    }

    /// Calls a method of an app-server; returns the result.
    pub(crate) async fn call(&self, method: &str, params: Value) -> Value {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, response) = oneshot::channel();
        self.pending.lock().unwrap().insert(id, sender);
        self.send(&json!({ "id": id, "method": method, "params": params })).await;
        let response = response.await.expect("the app-server closed the connection");
        assert!(response.get("error").is_none(), "{method}: {response}");
        response["result"].clone()
    }

    async fn send(&self, message: &Value) {
        self.sink.lock().await.send(Message::text(message.to_string())).await.unwrap();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// A message of an app-server or of codexd.
#[derive(Deserialize)]
struct Incoming<'a> {
    /// The number of a request of this client; the app-server's own may be of any type.
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<Subject<'a>>,
    #[serde(borrow)]
    event: Option<Event<'a>>,
}

/// An event of codexd.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, rename = "type")]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    detail: Option<Subject<'a>>,
}

/// The thread that a message is about.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Subject<'a> {
    #[serde(borrow)]
    thread_id: Option<Cow<'a, str>>,
}

enum Kind {
    Delta,
    End,
    Other,
}

impl Incoming<'_> {
    fn kind(&self) -> Kind {
        let name = self.method.as_deref().or(self.event.as_ref().map(|event| &*event.event_type));
        match name {
            Some("item/agentMessage/delta" | "app-server.turn.message.delta") => Kind::Delta,
            Some("turn/completed" | "app-server.turn.completed") => Kind::End,
            _ => Kind::Other,
        }
    }

    fn thread_id(&self) -> &str {
        let subject = self.params.as_ref().or(self.event.as_ref().and_then(|event| event.detail.as_ref()));
        subject.and_then(|subject| subject.thread_id.as_deref()).expect("a turn without a thread")
    }
}

/// The part of a turn that has been received.
struct Progress {
    first_delta: Instant,
    deltas: usize,
}

/// Reads until the connection ends; the requests without a response then fail.
async fn read(mut stream: SplitStream<Socket>, pending: Pending, seen: Seen) {
    let mut turns: HashMap<String, Progress> = HashMap::new();
    while let Some(Ok(message)) = stream.next().await {
        let Message::Text(text) = message else { continue };
        let now = Instant::now();
        let message: Incoming = serde_json::from_str(&text).unwrap();
        match message.kind() {
            Kind::Delta => match turns.get_mut(message.thread_id()) {
                Some(turn) => turn.deltas += 1,
                None => {
                    turns.insert(message.thread_id().to_owned(), Progress { first_delta: now, deltas: 1 });
                }
            },
            Kind::End => {
                let (thread_id, turn) =
                    turns.remove_entry(message.thread_id()).expect("a turn without deltas");
                let Progress { first_delta, deltas } = turn;
                // Nobody listens any more once the turns of a load are over.
                let _ = seen.send(SeenTurn { thread_id, first_delta, end: now, deltas });
            }
            Kind::Other => {
                let id = message.id.and_then(|id| id.get().parse().ok());
                if let Some(caller) = id.and_then(|id: u64| pending.lock().unwrap().remove(&id)) {
                    let _ = caller.send(serde_json::from_str(&text).unwrap());
                }
            }
        }
    }
    pending.lock().unwrap().clear();
}
