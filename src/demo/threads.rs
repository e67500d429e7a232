//! The threads and their files.
//!
//! A thread is stored in `THREAD_ID.json` when an item of its first turn is complete, and again after each item and turn.
//! A rename replaces the file, so a process that is killed leaves the previous one.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::objects;

pub(super) type SharedThread = Arc<Mutex<Thread>>;
pub(super) type Threads = BTreeMap<String, SharedThread>;

/// A message of the reader to a running turn.
pub(super) enum Signal {
    Interrupt,
    /// The item of further input.
    Steer(Value),
    /// The result of a request to the client; null if the client responded with an error.
    Response(Value),
}

/// A thread; its serialized form is its file.
#[derive(Serialize, Deserialize)]
pub(super) struct Thread {
    /// The result of `thread/start`, with the current settings and the current `Thread` object.
    pub(super) start: Value,
    /// The `Turn` objects with all their items.
    pub(super) turns: Vec<Value>,
    /// Input and output tokens.
    pub(super) tokens: [u64; 2],
    /// The goal; null if there is none.
    #[serde(default)]
    pub(super) goal: Value,
    /// The ID of the running turn, and the sender of its signals.
    #[serde(skip)]
    pub(super) running: Option<(String, Sender<Signal>)>,
}

impl Thread {
    /// A new thread with the settings in the params.
    pub(super) fn new(params: &Value, store: Option<&Path>) -> Self {
        let (id, ephemeral) = (Uuid::new_v4().to_string(), params["ephemeral"] == true);
        let path = store.filter(|_| !ephemeral).map(|store| store.join(format!("{id}.json")));
        let cwd = std::env::current_dir().unwrap_or_default();
        let start = objects::new_thread(&id, now_ms() / 1000, &cwd, ephemeral, path.as_deref());
        let mut thread = Self { start, turns: Vec::new(), tokens: [0, 0], goal: Value::Null, running: None };
        thread.apply(params);
        thread
    }

    /// Applies the settings in the params of a request.
    pub(super) fn apply(&mut self, params: &Value) {
        for name in ["cwd", "model", "effort", "approvalPolicy"].iter().filter(|name| !params[name].is_null())
        {
            let field = if *name == "effort" { "reasoningEffort" } else { name };
            self.start[field] = params[name].clone();
            if let Some(shown) = self.start["thread"].get_mut(field) {
                *shown = params[name].clone();
            }
        }
        if let Some(mode) = params["sandbox"].as_str().or_else(|| params["sandboxPolicy"]["type"].as_str()) {
            self.start["sandbox"] = objects::sandbox(mode);
        }
    }

    /// The `Thread` object, with its turns in this view.
    pub(super) fn object(&self, view: Option<&str>) -> Value {
        let mut object = self.start["thread"].clone();
        if let Some(view) = view {
            object["turns"] = self.turns.iter().map(|turn| objects::turn_view(turn, view)).collect();
        }
        object
    }

    /// Writes the file of the thread, unless the thread is ephemeral or there is no store.
    pub(super) fn save(&self) {
        let Some(path) = self.start["thread"]["path"].as_str().map(Path::new) else { return };
        let part = path.with_extension("part");
        if let Err(error) = fs::write(&part, json!(self).to_string()).and_then(|()| fs::rename(part, path)) {
            let _ = writeln!(io::stderr(), "failed to write {}: {error}", path.display());
        }
    }
}

/// Creates a store, or reads all its files. A turn that was running when its file was written is interrupted.
pub(super) fn stored(store: &Path) -> Threads {
    // If the directory cannot be created, each thread reports it when it is saved.
    let _ = DirBuilder::new().recursive(true).mode(0o700).create(store);
    let files = fs::read_dir(store).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let threads = files.filter_map(|path| serde_json::from_slice::<Thread>(&fs::read(path).ok()?).ok());
    let load = |mut thread: Thread| {
        thread.start["thread"]["status"] = json!({ "type": "idle" });
        for turn in thread.turns.iter_mut().filter(|turn| turn["status"] == "inProgress") {
            turn["status"] = json!("interrupted");
            turn["completedAt"] = thread.start["thread"]["updatedAt"].clone();
        }
        let id = thread.start["thread"]["id"].as_str().unwrap_or_default().to_owned();
        (id, Arc::new(Mutex::new(thread)))
    };
    threads.map(load).collect()
}

/// Milliseconds since the epoch.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Locks a mutex, also after a panic of another thread.
pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
