//! A client of server-sent events that reads them as a browser does (HTML living standard, section 9.2.6).

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HOST};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::http::Target;
use super::wait::DEADLINE;

/// One event as a page receives it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sent {
    /// `message` when the stream names none.
    pub(crate) event: String,
    pub(crate) data: Value,
}

/// One connection; it ends when this is dropped.
pub(crate) struct EventSource {
    response: Response<Incoming>,
    received: Vec<u8>,
    /// The value that a browser would send as `Last-Event-ID`.
    pub(crate) last_event_id: String,
    /// The delay before a browser reconnects, in ms.
    pub(crate) retry: Option<u64>,
    /// The number of comment lines.
    pub(crate) comments: usize,
    last_seq: Option<u64>,
}

impl EventSource {
    /// Connects to this path and query; resumes after `last_event_id` if it is given.
    pub(crate) async fn connect(
        target: &(impl Target + ?Sized),
        path: &str,
        last_event_id: Option<&str>,
    ) -> Self {
        let mut request = Request::builder().uri(path).header(HOST, target.authority());
        request = request.header(ACCEPT, "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let connected = async {
            let stream = TcpStream::connect(target.authority()).await.unwrap();
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
            // The connection ends with its sender and its response.
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        };
        let response = tokio::time::timeout(DEADLINE, connected).await.expect("no response");
        assert_eq!(response.status(), 200, "{path}");
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        assert_eq!(header(CONTENT_TYPE), Some("text/event-stream; charset=utf-8"));
        assert_eq!(header(CACHE_CONTROL), Some("no-store"));
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        Self {
            response,
            received: Vec::new(),
            last_event_id: last_event_id.unwrap_or_default().to_owned(),
            retry: None,
            comments: 0,
            last_seq: None,
        }
    }

    /// Waits for the next event; returns `None` when the server has ended the stream.
    pub(crate) async fn next(&mut self) -> Option<Sent> {
        let next = tokio::time::timeout(DEADLINE, self.receive()).await;
        next.unwrap_or_else(|_| panic!("no event in {} s after {}", DEADLINE.as_secs(), self.last_event_id))
    }

    /// Waits for the next event of the log and checks that its ID is the cursor.
    pub(crate) async fn next_event(&mut self) -> Value {
        let sent = self.next().await.expect("the stream ended");
        assert_eq!(sent.event, "message", "{sent:?}");
        let seq = sent.data["seq"].as_u64();
        assert!(seq > self.last_seq, "{seq:?} after {:?}", self.last_seq);
        assert!(self.last_event_id.ends_with(&format!("-{}", seq.unwrap())), "{}", self.last_event_id);
        self.last_seq = seq;
        sent.data
    }

    /// Waits for the next line, which must be a comment or the delay before a browser reconnects.
    pub(crate) async fn block(&mut self) {
        let line = async {
            loop {
                if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                    return String::from_utf8(self.received.drain(..=end).collect()).unwrap();
                }
                assert!(self.read().await, "the stream ended");
            }
        };
        let line = tokio::time::timeout(DEADLINE, line).await.expect("no line arrived");
        match line.trim_end().split_once(':') {
            Some(("", _)) => self.comments += 1,
            Some(("retry", value)) => self.retry = value.trim().parse().ok(),
            _ => panic!("an event instead of a comment: {line:?}"),
        }
    }

    async fn receive(&mut self) -> Option<Sent> {
        loop {
            while self.end_of_block().is_some() {
                if let Some(sent) = self.take_block() {
                    return Some(sent);
                }
            }
            if !self.read().await {
                return None;
            }
        }
    }

    async fn read(&mut self) -> bool {
        // An incomplete event at the end of a stream is ignored, as in a browser.
        let Some(Ok(frame)) = self.response.frame().await else { return false };
        if let Ok(data) = frame.into_data() {
            self.received.extend_from_slice(&data);
        }
        true
    }

    fn end_of_block(&self) -> Option<usize> {
        memchr::memmem::find(&self.received, b"\n\n").map(|at| at + 2)
    }

    fn take_block(&mut self) -> Option<Sent> {
        let end = self.end_of_block()?;
        let block = String::from_utf8(self.received.drain(..end).collect()).unwrap();
        let (mut event, mut data) = ("message".to_owned(), String::new());
        for line in block.lines().filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "" => self.comments += 1,
                "id" => value.clone_into(&mut self.last_event_id),
                "event" => value.clone_into(&mut event),
                "data" => data.push_str(value),
                "retry" => self.retry = value.parse().ok(),
                other => panic!("a field {other} in {block:?}"),
            }
        }
        let data = (!data.is_empty()).then(|| serde_json::from_str(&data).unwrap())?;
        Some(Sent { event, data })
    }
}
