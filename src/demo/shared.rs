//! The state that the connection and the running turns share, and the messages to the client.

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::Sender;

use serde_json::{Value, json};

use super::signal::Signal;
use super::threads::{Threads, lock, now_ms};

/// The state that the reader and the turns share.
pub(super) struct Shared {
    pub(super) out: Mutex<Box<dyn Write + Send>>,
    pub(super) store: Option<PathBuf>,
    pub(super) threads: Mutex<Threads>,
    /// Where the answers to the requests to the client go.
    pub(super) open: Mutex<HashMap<i64, Sender<Signal>>>,
    pub(super) next_id: AtomicI64,
}

impl Shared {
    pub(super) fn send(&self, message: &Value) {
        // Without a client, stdin has ended too.
        let _ = lock(&self.out).write_all(format!("{message}\n").as_bytes());
    }

    pub(super) fn notify(&self, method: &str, params: &Value) {
        self.send(&json!({ "method": method, "params": params, "emittedAtMs": now_ms() }));
    }

    /// Sends a request to the client, whose answer becomes a signal.
    pub(super) fn request(&self, method: &str, params: &Value, signals: &Sender<Signal>) -> i64 {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        lock(&self.open).insert(id, signals.clone());
        self.send(&json!({ "method": method, "id": id, "params": params }));
        id
    }
}
