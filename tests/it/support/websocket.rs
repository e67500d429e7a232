//! A client of the event stream that checks in every message what holds for all messages.

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async, connect_async};

use super::http::Target;
use super::wait::DEADLINE;

/// The default path of the event stream.
pub(crate) const EVENTS_PATH: &str = "/v1/codexd/events";

/// How many of the received messages a failure prints, newest last.
const PRINTED_MESSAGES: usize = 40;
/// How many characters of each message a failure prints.
const PRINTED_CHARACTERS: usize = 400;

/// The code for a close frame without a code (RFC 6455, section 7.4.1).
const NO_STATUS: u16 = 1005;
/// The code for the end of a connection without a close frame.
const ABNORMAL_CLOSURE: u16 = 1006;

/// One connection to the event stream.
pub(crate) struct EventStream {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// All text messages so far, for the message of a failure.
    received: Vec<String>,
    last_seq: Option<u64>,
}

enum Received {
    Json(Value),
    Closed(u16),
}

impl EventStream {
    /// Connects to the default path.
    pub(crate) async fn connect(target: &(impl Target + ?Sized)) -> Self {
        Self::connect_to(target, EVENTS_PATH, &[]).await
    }

    /// Connects to this path and query with additional headers.
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
        Self { socket, received: Vec::new(), last_seq: None }
    }

    /// Connects to this path and query with about this receive buffer size.
    ///
    /// With a small buffer, the daemon soon detects a client that does not read.
    pub(crate) async fn connect_with_receive_buffer(
        target: &(impl Target + ?Sized),
        path: &str,
        bytes: u32,
    ) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(bytes).unwrap();
        let connected = async {
            let stream = socket.connect(target.authority().parse().unwrap()).await.unwrap();
            let url = format!("ws://{}{path}", target.authority());
            client_async(url, MaybeTlsStream::Plain(stream)).await.unwrap().0
        };
        let socket = tokio::time::timeout(DEADLINE, connected).await.expect("no handshake");
        Self { socket, received: Vec::new(), last_seq: None }
    }

    /// Receives the hello, which is the first message of every connection.
    pub(crate) async fn hello(&mut self) -> Value {
        let hello = self.next_message().await;
        assert_eq!(hello["type"], "hello", "the first message");
        for part in ["cursor", "recentEvents", "service", "snapshot"] {
            assert!(hello.get(part).is_some(), "no {part} in {hello}");
        }
        hello
    }

    /// Receives the next message of any type.
    pub(crate) async fn next_message(&mut self) -> Value {
        match tokio::time::timeout(DEADLINE, self.receive()).await {
            Ok(Received::Json(message)) => message,
            Ok(Received::Closed(code)) => {
                self.fail(&format!("the stream closed with {code} instead of a message"))
            }
            Err(_) => self.lost("a message"),
        }
    }

    /// Receives the next event and skips messages of other types.
    pub(crate) async fn next_event(&mut self) -> Value {
        self.wait_for("an event", |_| true).await
    }

    /// Skips events until one satisfies `condition`; returns that event.
    pub(crate) async fn wait_for(&mut self, what: &str, condition: impl FnMut(&Value) -> bool) -> Value {
        self.collect_until(what, condition).await.pop().unwrap()
    }

    /// Receives all events up to and including the first that satisfies `last`.
    pub(crate) async fn collect_until(&mut self, what: &str, last: impl FnMut(&Value) -> bool) -> Vec<Value> {
        match tokio::time::timeout(DEADLINE, self.receive_until(last)).await {
            Ok(Ok(events)) => events,
            Ok(Err(code)) => self.fail(&format!("the stream closed with {code} while waiting for {what}")),
            Err(_) => self.lost(what),
        }
    }

    /// Sends a JSON message; returns the next message that is not an event, which is the response.
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
            Ok(sent) => sent.unwrap_or_else(|error| self.fail(&format!("sending a message failed: {error}"))),
            Err(_) => self.lost("a message to be sent"),
        }
    }

    /// Skips all messages until the server ends the stream; returns the close code.
    ///
    /// 1005 is a close frame without a code, 1006 the end of a connection without a close frame.
    pub(crate) async fn close_code(&mut self) -> u16 {
        match tokio::time::timeout(DEADLINE, self.receive_until(|_| false)).await {
            Ok(Ok(_)) => unreachable!("no event was the last one"),
            Ok(Err(code)) => code,
            Err(_) => self.lost("the end of the stream"),
        }
    }

    /// Receives all remaining events until the server ends the stream; returns them and the close code.
    pub(crate) async fn rest(&mut self) -> (Vec<Value>, u16) {
        let (messages, code) = self.last_messages().await;
        let events = messages.into_iter().filter(|message| message["type"] == "event");
        (events.map(|mut message| message["event"].take()).collect(), code)
    }

    /// Receives all remaining messages until the server ends the stream; returns them and the close code.
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

    /// Receives all events through the first that satisfies `last`; the error is the code of an earlier close.
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

    /// Checks what holds for every message: a JSON object with a type, a final newline, increasing sequence numbers.
    fn check(&mut self, text: &str) -> Value {
        self.received.push(text.to_owned());
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
        self.fail(&format!("timed out after {} s waiting for {what}", DEADLINE.as_secs()))
    }

    /// Fails the test and prints the newest messages.
    fn fail(&self, cause: &str) -> ! {
        let skipped = self.received.len().saturating_sub(PRINTED_MESSAGES);
        let shown: Vec<String> = self
            .received
            .iter()
            .skip(skipped)
            .map(|text| text.trim_end().chars().take(PRINTED_CHARACTERS).collect())
            .collect();
        panic!("{cause}; received so far, after {skipped} earlier messages:\n{}", shown.join("\n"));
    }
}
