//! One generation without a process: the app-server's side is a channel and a pipe.

mod calls;
mod receiving;
mod silence;
mod writing;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::listener::{AppServerEvent, Backlog, Listener};
use crate::codex::rpc::call_error::CallError;
use crate::codex::rpc::client::Client;
use crate::codex::rpc::liveness::LastReceived;
use crate::codex::rpc::pending::Pending;
use crate::codex::rpc::reader::{MessageReader, StreamEnd};

/// Longer than anything here takes: the paused clock moves only when all tasks wait.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// The capacity of the pipe.
const PIPE_BYTES: usize = 1024 * 1024;

/// Received events and settled calls, in one order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn add(&self, note: impl Into<String>) {
        self.0.lock().unwrap().push(note.into());
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// Records what the reader passes on.
struct RecordingListener {
    notes: Log,
    held_back: Vec<String>,
}

impl Listener for RecordingListener {
    fn on_event(&mut self, event: AppServerEvent<'_>) {
        self.held_back.push(match event {
            AppServerEvent::Notification { method, params } => format!("{method} {params}"),
            AppServerEvent::MessageDelta { delta, .. } => format!("delta {}", delta.delta),
            AppServerEvent::Request { id, method, params } => format!("request {id} {method} {params}"),
            AppServerEvent::InvalidMessage { reason, bytes } => {
                format!("invalid message of {bytes} bytes: {reason}")
            }
            AppServerEvent::Skipped { bytes, cap, outline } => {
                let (id, method) = (outline.id.as_ref().map(|id| id.get()), outline.method.as_deref());
                format!("skipped {bytes} of {cap} bytes: {id:?} {method:?}")
            }
            _ => return,
        });
    }

    fn flush(&mut self) {
        self.held_back.drain(..).for_each(|note| self.notes.add(note));
    }
}

/// A client, and the app-server's side of its connection.
struct Connection {
    client: Client,
    pending: Arc<Pending>,
    /// The lines that the client sends.
    sent: mpsc::UnboundedReceiver<Vec<u8>>,
    /// What the client receives; dropping it ends the stream.
    stdout: DuplexStream,
    reader: JoinHandle<StreamEnd>,
    notes: Log,
    backlog: Arc<Backlog>,
    last_received: Arc<LastReceived>,
}

impl Connection {
    fn new() -> Self {
        Self::with_cap(PIPE_BYTES)
    }

    /// A connection that skips lines of more than `cap` bytes.
    fn with_cap(cap: usize) -> Self {
        let (client, pending, sent) = Client::new(1, Duration::from_secs(30));
        let (stdout, stream) = tokio::io::duplex(PIPE_BYTES);
        let (notes, backlog) = (Log::default(), Backlog::new());
        let listener = RecordingListener { notes: notes.clone(), held_back: Vec::new() };
        let mut messages = MessageReader::new(Arc::clone(&pending), listener, Arc::clone(&backlog));
        let last_received = messages.last_received();
        let reader = tokio::spawn(async move { messages.read_lines(stream, cap).await });
        Self { client, pending, sent, stdout, reader, notes, backlog, last_received }
    }

    /// Makes a call that ends when its response arrives.
    fn call(&self, method: &'static str) -> JoinHandle<Result<String, CallError>> {
        let client = self.client.clone();
        tokio::spawn(async move {
            let result = client.call(method, &json!({}), CALL_TIMEOUT).await?;
            Ok(result.get().to_owned())
        })
    }

    /// The next message that the client sends.
    async fn next_sent(&mut self) -> Value {
        serde_json::from_slice(&self.sent.recv().await.unwrap()).unwrap()
    }

    /// The ID of the next call, whose method must be this one.
    async fn next_call(&mut self, method: &str) -> u64 {
        let call = self.next_sent().await;
        assert_eq!(call["method"], method);
        call["id"].as_u64().unwrap()
    }

    /// Delivers these bytes in one piece and waits until they are processed.
    async fn receive(&mut self, bytes: impl AsRef<[u8]>) {
        self.stdout.write_all(bytes.as_ref()).await.unwrap();
        until_idle().await;
    }

    /// Responds to the call with this ID.
    async fn respond(&mut self, id: u64, result: &str) {
        self.receive(format!("{{\"id\":{id},\"result\":{result}}}\n")).await;
    }

    /// Ends the stream; returns how it ended and what was recorded.
    async fn end(self) -> (StreamEnd, Vec<String>) {
        let Self { stdout, reader, notes, .. } = self;
        drop(stdout);
        (reader.await.unwrap(), notes.all())
    }
}

/// Waits until no task can run: only then does the paused clock move.
async fn until_idle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}
