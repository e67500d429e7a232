//! The client that creates the threads and starts the turns.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Semaphore};

use crate::connection::Connection;

/// An app-server leaves requests unanswered if more are in flight on one connection; codexd has the same limit.
const IN_FLIGHT: usize = 64;

/// A thread, and how to start a turn in it.
#[derive(Clone)]
pub(crate) enum Thread {
    AppServer { connection: Arc<Connection>, in_flight: Arc<Semaphore>, thread_id: String },
    Daemon { connection: Arc<HttpConnection>, session_id: String, thread_id: String },
}

impl Thread {
    /// Starts `count` threads in a directory of an app-server, all on one connection.
    pub(crate) async fn of_app_server(connection: Connection, cwd: &str, count: usize) -> Vec<Self> {
        let connection = Arc::new(connection);
        let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
        let mut threads = Vec::new();
        for _ in 0..count {
            let started = connection.call("thread/start", json!({ "cwd": cwd })).await;
            let thread_id = text(&started["thread"]["id"]);
            let (connection, in_flight) = (Arc::clone(&connection), Arc::clone(&in_flight));
            threads.push(Self::AppServer { connection, in_flight, thread_id });
        }
        threads
    }

    /// Creates `count` sessions in a directory, each with its own HTTP connection.
    pub(crate) async fn of_daemon(authority: &str, cwd: &str, count: usize) -> Vec<Self> {
        let mut threads = Vec::new();
        for _ in 0..count {
            let connection = Arc::new(HttpConnection::open(authority).await);
            let created =
                connection.post("/v1/codexd/sessions", &json!({ "cwd": cwd }), StatusCode::CREATED).await;
            let session = &created["data"]["session"];
            let (session_id, thread_id) = (text(&session["sessionId"]), text(&session["threadId"]));
            threads.push(Self::Daemon { connection, session_id, thread_id });
        }
        threads
    }

    pub(crate) fn thread_id(&self) -> &str {
        match self {
            Self::AppServer { thread_id, .. } | Self::Daemon { thread_id, .. } => thread_id,
        }
    }

    /// Prepares for a turn after a pause of any length.
    pub(crate) async fn reopen(&self) {
        if let Self::Daemon { connection, .. } = self {
            connection.reopen().await;
        }
    }

    /// Starts a turn; returns when it is accepted.
    pub(crate) async fn start_turn(&self, prompt: &str) {
        match self {
            Self::AppServer { connection, in_flight, thread_id } => {
                let _permit = in_flight.acquire().await.unwrap();
                let input = json!([{ "type": "text", "text": prompt, "text_elements": [] }]);
                connection.call("turn/start", json!({ "threadId": thread_id, "input": input })).await;
            }
            Self::Daemon { connection, session_id, .. } => {
                let body = json!({ "sessionId": session_id, "input": prompt });
                connection.post("/v1/codexd/turn", &body, StatusCode::ACCEPTED).await;
            }
        }
    }
}

/// A kept HTTP connection to codexd.
pub(crate) struct HttpConnection {
    sender: Mutex<Sender>,
    authority: String,
}

type Sender = SendRequest<Full<Bytes>>;

impl HttpConnection {
    async fn open(authority: &str) -> Self {
        Self { sender: Mutex::new(connect(authority).await), authority: authority.to_owned() }
    }

    /// Connects again if codexd has closed the connection, as it does with idle ones.
    async fn reopen(&self) {
        let mut sender = self.sender.lock().await;
        if sender.ready().await.is_err() {
            *sender = connect(&self.authority).await;
        }
    }

    async fn post(&self, path: &str, body: &Value, status: StatusCode) -> Value {
        let request = Request::post(path)
            .header("host", &self.authority)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .unwrap();
        let mut sender = self.sender.lock().await;
        sender.ready().await.unwrap();
        let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        assert_eq!(parts.status, status, "{path}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    }
}

async fn connect(authority: &str) -> Sender {
    let stream = TcpStream::connect(authority).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    // The connection ends with its sender.
    tokio::spawn(connection);
    sender
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
