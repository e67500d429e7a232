//! The threads and their files.
//!
//! A thread is stored in `THREAD_ID.json` when an item of its first turn is complete, and again after each item and turn.
//! A rename replaces the file, so a process that is killed leaves the previous one.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::objects;
use super::signal::Signal;

pub(super) type Threads = BTreeMap<String, Arc<Mutex<Thread>>>;

/// A thread; what is serialized is its file.
#[derive(Serialize, Deserialize)]
pub(super) struct Thread {
    /// The result of `thread/start`, with the settings and the `Thread` object as they are now.
    pub(super) start: Value,
    /// The `Turn` objects with all their items.
    pub(super) turns: Vec<Value>,
    /// Input and output tokens.
    pub(super) tokens: [u64; 2],
    /// The id of the running turn, and its signals.
    #[serde(skip)]
    pub(super) running: Option<(String, Sender<Signal>)>,
}

impl Thread {
    /// A new thread with the settings that the params name.
    pub(super) fn new(params: &Value, store: Option<&Path>) -> Self {
        let (id, ephemeral) = (Uuid::new_v4().to_string(), params["ephemeral"] == true);
        let path = store.filter(|_| !ephemeral).map(|store| store.join(format!("{id}.json")));
        let cwd = std::env::current_dir().unwrap_or_default();
        let start = objects::new_thread(&id, now_ms() / 1000, &cwd, ephemeral, path.as_deref());
        let mut thread = Self { start, turns: Vec::new(), tokens: [0, 0], running: None };
        thread.apply(params);
        thread
    }

    /// Takes over the settings that a request names.
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

    pub(super) fn is_loaded(&self) -> bool {
        self.start["thread"]["status"]["type"] != "notLoaded"
    }

    /// Writes the file of a thread that has one.
    pub(super) fn save(&self) -> io::Result<()> {
        let Some(path) = self.start["thread"]["path"].as_str().map(Path::new) else { return Ok(()) };
        if let Some(store) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(store)?;
        }
        let part = path.with_extension("part");
        fs::write(&part, serde_json::to_vec(self)?)?;
        fs::rename(part, path)
    }
}

/// Reads all files of a store; a turn that ran when its file was written has been interrupted since.
pub(super) fn stored(store: &Path) -> Threads {
    let files = fs::read_dir(store).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let threads = files.filter_map(|path| serde_json::from_slice::<Thread>(&fs::read(path).ok()?).ok());
    let load = |mut thread: Thread| {
        thread.start["thread"]["status"] = json!({ "type": "notLoaded" });
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

/// The guard of a mutex, also after a panic elsewhere.
pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
