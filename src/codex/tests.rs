//! One generation without a process: what it says is read from a channel, what it hears is written into a pipe.

mod calls;
mod hearing;
mod silence;
mod writing;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::listener::{Backlog, Heard, Listener};
use crate::codex::rpc::call_error::CallError;
use crate::codex::rpc::client::Client;
use crate::codex::rpc::liveness::Pulse;
use crate::codex::rpc::pending::Pending;
use crate::codex::rpc::reader::{Ear, StreamEnd};

/// Longer than anything here takes: the clock of these tests stands still unless they wait for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much the pipe holds, in bytes.
const PIPE: usize = 1024 * 1024;

/// What was heard and what was settled, in one order.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn add(&self, note: impl Into<String>) {
        self.0.lock().unwrap().push(note.into());
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// Takes notes of what is passed on.
struct NoteTaker {
    notes: Notes,
    held_back: Vec<String>,
}

impl Listener for NoteTaker {
    fn hear(&mut self, heard: Heard<'_>) {
        self.held_back.push(match heard {
            Heard::Notification { method, params } => format!("{method} {params}"),
            Heard::Request { id, method, params } => format!("request {id} {method} {params}"),
            Heard::Garbage { reason, bytes } => format!("garbage of {bytes} bytes: {reason}"),
            Heard::Skipped { bytes, cap, outline } => {
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
    /// What the client says, line by line.
    said: mpsc::UnboundedReceiver<Vec<u8>>,
    /// What the client will hear; dropped, the stream ends.
    stdout: DuplexStream,
    reader: JoinHandle<StreamEnd>,
    notes: Notes,
    backlog: Arc<Backlog>,
    pulse: Arc<Pulse>,
}

impl Connection {
    fn new() -> Self {
        Self::with_cap(PIPE)
    }

    /// One that skips lines of more than `cap` bytes.
    fn with_cap(cap: usize) -> Self {
        let (client, pending, said) = Client::new(1, Duration::from_secs(30));
        let (stdout, stream) = tokio::io::duplex(PIPE);
        let (notes, backlog) = (Notes::default(), Backlog::new());
        let listener = NoteTaker { notes: notes.clone(), held_back: Vec::new() };
        let mut ear = Ear::new(Arc::clone(&pending), listener, Arc::clone(&backlog));
        let pulse = ear.pulse();
        let reader = tokio::spawn(async move { ear.read_lines(stream, cap).await });
        Self { client, pending, said, stdout, reader, notes, backlog, pulse }
    }

    /// Makes a call that is answered as soon as its answer is heard.
    fn call(&self, method: &'static str) -> JoinHandle<Result<String, CallError>> {
        let client = self.client.clone();
        tokio::spawn(async move {
            let result = client.call(method, &json!({}), PATIENCE).await?;
            Ok(result.get().to_owned())
        })
    }

    /// The next thing that the client says.
    async fn next_said(&mut self) -> Value {
        serde_json::from_slice(&self.said.recv().await.unwrap()).unwrap()
    }

    /// The number of the next call; its method must be this one.
    async fn next_call(&mut self, method: &str) -> u64 {
        let call = self.next_said().await;
        assert_eq!(call["method"], method);
        call["id"].as_u64().unwrap()
    }

    /// Makes these bytes be read in one piece, and waits until everybody has done what follows from them.
    async fn hear(&mut self, bytes: impl AsRef<[u8]>) {
        self.stdout.write_all(bytes.as_ref()).await.unwrap();
        until_idle().await;
    }

    /// Answers the call of this number.
    async fn answer(&mut self, id: u64, result: &str) {
        self.hear(format!("{{\"id\":{id},\"result\":{result}}}\n")).await;
    }

    /// Ends the stream; returns how it ended and what was noted.
    async fn end(self) -> (StreamEnd, Vec<String>) {
        let Self { stdout, reader, notes, .. } = self;
        drop(stdout);
        (reader.await.unwrap(), notes.all())
    }
}

/// Waits until no task can go on: only then does a clock that stands still move by itself.
async fn until_idle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}
