//! The messages as lines of JSON, and the writer of all of them.

use std::collections::HashSet;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// Deltas are collected up to about this many bytes before they are written. It is the size of a pipe, so one system
/// call writes some hundred messages.
const BLOCK_BYTES: usize = 64 * 1024;

const DELTA_METHOD: &str = "item/agentMessage/delta";

/// Stdout, shared by the dispatcher and every turn; each message is written with one call.
pub(super) struct Wire {
    out: Mutex<Box<dyn Write + Send>>,
    opted_out: OnceLock<HashSet<String>>,
}

impl Wire {
    /// A writer of messages to `out`, which should be unbuffered.
    pub(super) fn new(out: Box<dyn Write + Send>) -> Self {
        Self { out: Mutex::new(out), opted_out: OnceLock::new() }
    }

    /// Suppresses these notifications (`optOutNotificationMethods`, once per connection).
    pub(super) fn opt_out(&self, methods: HashSet<String>) {
        // A second `initialize` is refused, so the list is set once.
        let _ = self.opted_out.set(methods);
    }

    /// Writes a notification with the current time.
    pub(super) fn notify(&self, method: &str, params: Value) {
        if self.is_enabled(method) {
            self.message(&json!({ "method": method, "params": params, "emittedAtMs": now_ms() }));
        }
    }

    /// Writes one message and its newline.
    pub(super) fn message(&self, message: &Value) {
        let mut line = message.to_string();
        line.push('\n');
        self.bytes(line.as_bytes());
    }

    /// Writes the bytes with one call; `false` when stdout is closed.
    pub(super) fn bytes(&self, bytes: &[u8]) -> bool {
        locked(&self.out).write_all(bytes).is_ok()
    }

    fn is_enabled(&self, method: &str) -> bool {
        self.opted_out.get().is_none_or(|opted_out| !opted_out.contains(method))
    }
}

/// A response to the request `id`.
pub(super) fn response(id: &Value, result: &Value) -> Value {
    json!({ "id": id, "result": result })
}

/// An error response to the request `id`, with the key order of Codex.
pub(super) fn error_response(id: &Value, code: i64, message: &str) -> Value {
    json!({ "error": { "code": code, "message": message }, "id": id })
}

/// Delta notifications of one item, rendered into a reused buffer.
pub(super) struct DeltaLines {
    prefix: Vec<u8>,
    suffix: Vec<u8>,
    buffer: Vec<u8>,
}

impl DeltaLines {
    /// Renders everything but the text and the time, once.
    pub(super) fn new(thread_id: &str, turn_id: &str, item_id: &str) -> Self {
        let prefix = format!(
            r#"{{"method":"{DELTA_METHOD}","params":{{"threadId":"{thread_id}","turnId":"{turn_id}","itemId":"{item_id}","delta":""#
        );
        let mut lines = Self {
            prefix: prefix.into_bytes(),
            suffix: Vec::new(),
            buffer: Vec::with_capacity(BLOCK_BYTES + 4096),
        };
        lines.stamp();
        lines
    }

    /// Adds a delta; `text` must already be escaped for JSON.
    pub(super) fn push(&mut self, text: &[u8]) {
        self.buffer.extend_from_slice(&self.prefix);
        self.buffer.extend_from_slice(text);
        self.buffer.extend_from_slice(&self.suffix);
    }

    /// Whether the block is large enough to be written.
    pub(super) fn is_full(&self) -> bool {
        self.buffer.len() >= BLOCK_BYTES
    }

    /// Writes the collected lines; `false` when stdout is closed. Without a subscription they are discarded.
    pub(super) fn flush(&mut self, wire: &Wire, subscribed: bool) -> bool {
        let open = if subscribed && !self.buffer.is_empty() && wire.is_enabled(DELTA_METHOD) {
            wire.bytes(&self.buffer)
        } else {
            true
        };
        self.buffer.clear();
        self.stamp();
        open
    }

    /// The first half of one delta message, for a process that ends during a write.
    pub(super) fn half_line(&self) -> &[u8] {
        let middle = self.prefix.len() / 2;
        self.prefix.get(..middle).unwrap_or_default()
    }

    /// Renders the time. All messages of a block have the time at which the block was begun.
    fn stamp(&mut self) {
        self.suffix.clear();
        self.suffix.extend_from_slice(format!("\"}},\"emittedAtMs\":{}}}\n", now_ms()).as_bytes());
    }
}

/// Milliseconds since the epoch.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Locks `mutex`, also after a panic of another thread: every state behind these locks is consistent between two
/// statements.
pub(super) fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
