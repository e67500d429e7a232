//! The messages as they stand on the wire, and the one writer they all go through.

use std::collections::HashSet;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// Deltas are collected to about this many bytes before they are written: the size of a pipe, so that one
/// system call carries some hundred messages.
const BLOCK_BYTES: usize = 64 * 1024;

const DELTA_METHOD: &str = "item/agentMessage/delta";

/// stdout, shared by the dispatcher and every turn; a message is always written whole.
pub(super) struct Wire {
    out: Mutex<Box<dyn Write + Send>>,
    muted: OnceLock<HashSet<String>>,
}

impl Wire {
    /// A writer of messages to `out`, which should be unbuffered.
    pub(super) fn new(out: Box<dyn Write + Send>) -> Self {
        Self { out: Mutex::new(out), muted: OnceLock::new() }
    }

    /// Leaves out these notifications from now on (`optOutNotificationMethods`, once per connection).
    pub(super) fn mute(&self, methods: HashSet<String>) {
        // `initialize` is refused the second time, so a list that is already there stays.
        let _ = self.muted.set(methods);
    }

    /// Writes a notification with the time of now.
    pub(super) fn notify(&self, method: &str, params: Value) {
        if self.hears(method) {
            self.message(&json!({ "method": method, "params": params, "emittedAtMs": now_ms() }));
        }
    }

    /// Writes one message and its newline.
    pub(super) fn message(&self, message: &Value) {
        let mut line = message.to_string();
        line.push('\n');
        self.bytes(line.as_bytes());
    }

    /// Writes bytes as they are, in one piece; `false` when nobody takes them any more.
    pub(super) fn bytes(&self, bytes: &[u8]) -> bool {
        locked(&self.out).write_all(bytes).is_ok()
    }

    fn hears(&self, method: &str) -> bool {
        self.muted.get().is_none_or(|muted| !muted.contains(method))
    }
}

/// An answer to the request `id`.
pub(super) fn answer(id: &Value, result: &Value) -> Value {
    json!({ "id": id, "result": result })
}

/// An error answer to the request `id`; the key order is that of the real one.
pub(super) fn error_answer(id: &Value, code: i64, message: &str) -> Value {
    json!({ "error": { "code": code, "message": message }, "id": id })
}

/// Delta notifications of one item, rendered one after the other into a buffer that is used again.
pub(super) struct DeltaLines {
    prefix: Vec<u8>,
    suffix: Vec<u8>,
    buffer: Vec<u8>,
}

impl DeltaLines {
    /// Everything but the text and the time is rendered here, once.
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

    /// Adds a delta; `text` has to be escaped for JSON already.
    pub(super) fn push(&mut self, text: &[u8]) {
        self.buffer.extend_from_slice(&self.prefix);
        self.buffer.extend_from_slice(text);
        self.buffer.extend_from_slice(&self.suffix);
    }

    /// Whether it is time to write the block.
    pub(super) fn is_full(&self) -> bool {
        self.buffer.len() >= BLOCK_BYTES
    }

    /// Writes what is collected; `false` when nobody takes it any more. `heard` is false for a thread that
    /// was unsubscribed.
    pub(super) fn flush(&mut self, wire: &Wire, heard: bool) -> bool {
        let taken = if heard && !self.buffer.is_empty() && wire.hears(DELTA_METHOD) {
            wire.bytes(&self.buffer)
        } else {
            true
        };
        self.buffer.clear();
        self.stamp();
        taken
    }

    /// The first half of one delta message, for a process that dies in the middle of a write.
    pub(super) fn half(&self) -> &[u8] {
        let middle = self.prefix.len() / 2;
        self.prefix.get(..middle).unwrap_or_default()
    }

    /// All messages of a block carry the time at which the block was begun.
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

/// The guard of `mutex`, also after a panic elsewhere: every state behind the locks of this module is whole
/// between two statements.
pub(super) fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
