//! A client of the event stream that holds every message to the rules of the stream.

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async, connect_async};

use super::http::Target;
use super::wait::DEADLINE;

/// Where the events are unless the daemon was told otherwise.
pub(crate) const EVENTS_PATH: &str = "/v1/codexd/events";

/// How many of the messages seen a failure prints, newest last, and how much of each, in characters.
const PRINTED_MESSAGES: usize = 40;
const PRINTED_CHARACTERS: usize = 400;

/// The codes that stand for a goodbye without a code and for an end without a goodbye (RFC 6455, section 7.4.1).
const NO_STATUS: u16 = 1005;
const ABNORMAL_CLOSURE: u16 = 1006;

/// One connection to the event stream.
pub(crate) struct EventStream {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// All text messages so far, for the message of a failure.
    seen: Vec<String>,
    last_seq: Option<u64>,
}

enum Received {
    Json(Value),
    Closed(u16),
}

impl EventStream {
    /// Connects to the usual path.
    pub(crate) async fn connect(target: &(impl Target + ?Sized)) -> Self {
        Self::connect_to(target, EVENTS_PATH, &[]).await
    }

    /// Connects to this path (and query), with additional headers.
    pub(crate) async fn connect_to(
        target: &(impl Target + ?Sized),
        path: &str,
        headers: &[(&str, &str)],
    ) -> Self {
        let url = format!("ws://{}{path}", target.authority());
        let mut request = url.as_str().into_client_request().unwrap();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            request.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
        }
        let connected = tokio::time::timeout(DEADLINE, connect_async(request)).await;
        let connected =
            connected.unwrap_or_else(|_| panic!("no handshake with {url} in {} s", DEADLINE.as_secs()));
        let (socket, _) = connected.unwrap_or_else(|error| panic!("no event stream at {url}: {error}"));
        Self { socket, seen: Vec::new(), last_seq: None }
    }

    /// Connects to this path (and query) with a socket that holds about this many bytes; when it holds few, a client that
    /// does not read is soon noticed by the other side.
    pub(crate) async fn connect_with_room(target: &(impl Target + ?Sized), path: &str, bytes: u32) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(bytes).unwrap();
        let connected = async {
            let stream = socket.connect(target.authority().parse().unwrap()).await.unwrap();
            let url = format!("ws://{}{path}", target.authority());
            client_async(url, MaybeTlsStream::Plain(stream)).await.unwrap().0
        };
        let socket = tokio::time::timeout(DEADLINE, connected).await.expect("no handshake");
        Self { socket, seen: Vec::new(), last_seq: None }
    }

    /// The greeting, which is the first message of every connection.
    pub(crate) async fn hello(&mut self) -> Value {
        let hello = self.next_message().await;
        assert_eq!(hello["type"], "hello", "the first message");
        for part in ["cursor", "recentEvents", "service", "snapshot"] {
            assert!(hello.get(part).is_some(), "no {part} in {hello}");
        }
        hello
    }

    /// The next message, whatever its type.
    pub(crate) async fn next_message(&mut self) -> Value {
        match tokio::time::timeout(DEADLINE, self.receive()).await {
            Ok(Received::Json(message)) => message,
            Ok(Received::Closed(code)) => {
                self.fail(&format!("the stream closed with {code}, no message came"))
            }
            Err(_) => self.lost("a message"),
        }
    }

    /// The next event; messages of other types in between are passed over.
    pub(crate) async fn next_event(&mut self) -> Value {
        self.wait_for("an event", |_| true).await
    }

    /// Passes over events until one satisfies `wanted`, and returns that one.
    pub(crate) async fn wait_for(&mut self, what: &str, wanted: impl FnMut(&Value) -> bool) -> Value {
        self.collect_until(what, wanted).await.pop().unwrap()
    }

    /// All events up to and with the first that satisfies `last`.
    pub(crate) async fn collect_until(&mut self, what: &str, last: impl FnMut(&Value) -> bool) -> Vec<Value> {
        match tokio::time::timeout(DEADLINE, self.receive_until(last)).await {
            Ok(Ok(events)) => events,
            Ok(Err(code)) => self.fail(&format!("the stream closed with {code} while waiting for {what}")),
            Err(_) => self.lost(what),
        }
    }

    /// Sends a JSON message and returns the next message that is not an event: the answer.
    pub(crate) async fn ask(&mut self, message: &Value) -> Value {
        self.send(Message::text(message.to_string())).await;
        loop {
            let answer = self.next_message().await;
            if answer["type"] != "event" {
                return answer;
            }
        }
    }

    /// Sends any message.
    pub(crate) async fn send(&mut self, message: Message) {
        match tokio::time::timeout(DEADLINE, self.socket.send(message)).await {
            Ok(sent) => {
                sent.unwrap_or_else(|error| self.fail(&format!("the stream takes no message: {error}")))
            }
            Err(_) => self.lost("a message to be sent"),
        }
    }

    /// Passes over all messages until the server ends the stream; returns the code of the close.
    ///
    /// 1005 is a close without a code, 1006 a connection that was cut.
    pub(crate) async fn close_code(&mut self) -> u16 {
        match tokio::time::timeout(DEADLINE, self.receive_until(|_| false)).await {
            Ok(Ok(_)) => unreachable!("no event was the last one"),
            Ok(Err(code)) => code,
            Err(_) => self.lost("the end of the stream"),
        }
    }

    /// All events that still come until the server ends the stream, and the code of the close.
    pub(crate) async fn rest(&mut self) -> (Vec<Value>, u16) {
        let (messages, code) = self.last_messages().await;
        let events = messages.into_iter().filter(|message| message["type"] == "event");
        (events.map(|mut message| message["event"].take()).collect(), code)
    }

    /// All messages of any type that still come until the server ends the stream, and the code of the close.
    pub(crate) async fn last_messages(&mut self) -> (Vec<Value>, u16) {
        let mut messages = Vec::new();
        let all = async {
            loop {
                match self.receive().await {
                    Received::Json(message) => messages.push(message),
                    Received::Closed(code) => return code,
                }
            }
        };
        match tokio::time::timeout(DEADLINE, all).await {
            Ok(code) => (messages, code),
            Err(_) => self.lost("the end of the stream"),
        }
    }

    /// All events up to and with the first that satisfies `last`, or the code of the close that came before.
    async fn receive_until(&mut self, mut last: impl FnMut(&Value) -> bool) -> Result<Vec<Value>, u16> {
        let mut events = Vec::new();
        loop {
            match self.receive().await {
                Received::Json(mut message) if message["type"] == "event" => {
                    let event = message["event"].take();
                    let found = last(&event);
                    events.push(event);
                    if found {
                        return Ok(events);
                    }
                }
                Received::Json(_) => {}
                Received::Closed(code) => return Err(code),
            }
        }
    }

    async fn receive(&mut self) -> Received {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return Received::Json(self.check(text.as_str())),
                Some(Ok(Message::Close(frame))) => {
                    return Received::Closed(frame.map_or(NO_STATUS, |frame| frame.code.into()));
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(other)) => self.fail(&format!("codexd sends only text, not {other:?}")),
                Some(Err(_)) | None => return Received::Closed(ABNORMAL_CLOSURE),
            }
        }
    }

    /// What holds for every message: a JSON object with a type and a newline at its end, numbers only ever rising.
    fn check(&mut self, text: &str) -> Value {
        self.seen.push(text.to_owned());
        let Ok(message) = serde_json::from_str::<Value>(text) else { self.fail("a message is not JSON") };
        if !message["type"].is_string() || !text.ends_with('\n') {
            self.fail("a message has no type or no newline at its end");
        }
        if message["type"] == "event" {
            let seq = message["event"]["seq"].as_u64();
            if seq.is_none() || seq <= self.last_seq {
                self.fail(&format!("an event has seq {seq:?} after {:?}", self.last_seq));
            }
            self.last_seq = seq;
        }
        message
    }

    fn lost(&self, what: &str) -> ! {
        self.fail(&format!("waited {} s in vain for {what}", DEADLINE.as_secs()))
    }

    /// Fails the test with what was seen so far.
    fn fail(&self, why: &str) -> ! {
        let skipped = self.seen.len().saturating_sub(PRINTED_MESSAGES);
        let shown: Vec<String> = self
            .seen
            .iter()
            .skip(skipped)
            .map(|text| text.trim_end().chars().take(PRINTED_CHARACTERS).collect())
            .collect();
        panic!("{why}; seen so far, after {skipped} others:\n{}", shown.join("\n"));
    }
}
