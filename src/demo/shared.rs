//! The state that the reader of requests and the running turns share, and the messages to the client.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::Sender;

use serde_json::{Value, json};

use super::threads::{Signal, Threads, lock, now_ms};

/// The state that the reader and the turns share.
pub(super) struct Shared {
    pub(super) out: Mutex<Box<dyn Write + Send>>,
    pub(super) store: Option<PathBuf>,
    pub(super) threads: Mutex<Threads>,
    /// For each request to the client, the turn that waits for its response; the index is the JSON-RPC ID.
    pub(super) requests: Mutex<Vec<Sender<Signal>>>,
}

impl Shared {
    pub(super) fn send(&self, message: &Value) {
        // A write fails only after the client has exited; stdin ends then too.
        let _ = lock(&self.out).write_all(format!("{message}\n").as_bytes());
    }

    pub(super) fn notify(&self, method: &str, params: &Value) {
        self.send(&json!({ "method": method, "params": params, "emittedAtMs": now_ms() }));
    }

    /// Sends a request to the client and returns its ID; the response becomes a signal.
    pub(super) fn request(&self, method: &str, params: &Value, signals: &Sender<Signal>) -> usize {
        let mut requests = lock(&self.requests);
        requests.push(signals.clone());
        let id = requests.len() - 1;
        self.send(&json!({ "method": method, "id": id, "params": params }));
        id
    }
}
