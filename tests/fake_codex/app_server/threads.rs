//! Threads: their state in memory and, with a store, their files, which outlive the process.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::control::Turn;
use super::items;
use super::params::{Refusal, present};
use super::wire::{locked, now_ms};

/// The settings of a thread and its turns.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Settings {
    pub(super) cwd: String,
    pub(super) model: String,
    pub(super) model_provider: String,
    pub(super) service_tier: Option<String>,
    pub(super) approval_policy: Value,
    pub(super) sandbox: Value,
    pub(super) reasoning_effort: Option<String>,
}

impl Settings {
    /// The default settings of a thread.
    pub(super) fn new() -> Self {
        let cwd = std::env::current_dir().unwrap_or_default();
        Self {
            cwd: cwd.to_string_lossy().into_owned(),
            model: "embedded-model".to_owned(),
            model_provider: "embedded".to_owned(),
            service_tier: None,
            approval_policy: json!("never"),
            sandbox: json!({ "type": "dangerFullAccess" }),
            reasoning_effort: None,
        }
    }

    /// Applies the settings in the params of a request. Null means absent, but it resets the service tier.
    pub(super) fn apply(&mut self, params: &Value) {
        let text = |field: &str| present(params, field).and_then(Value::as_str).map(str::to_owned);
        if let Some(cwd) = text("cwd") {
            // A relative path is relative to the working directory of the process.
            let base = std::env::current_dir().unwrap_or_default();
            self.cwd = base.join(cwd).to_string_lossy().into_owned();
        }
        if let Some(model) = text("model") {
            self.model = model;
        }
        if let Some(provider) = text("modelProvider") {
            self.model_provider = provider;
        }
        match params.get("serviceTier") {
            None => {}
            Some(Value::String(tier)) if tier == "flex" || tier == "default" => {
                self.service_tier = Some(tier.clone());
            }
            Some(Value::Null) => self.service_tier = Some("default".to_owned()),
            // A tier that the model does not have is ignored without an error.
            Some(_) => self.service_tier = None,
        }
        if let Some(policy) = present(params, "approvalPolicy") {
            self.approval_policy = policy.clone();
        }
        let mode = present(params, "sandbox").and_then(Value::as_str);
        let policy = present(params, "sandboxPolicy").and_then(|policy| policy.get("type")?.as_str());
        match mode.or(policy) {
            None => {}
            Some("read-only" | "readOnly") => {
                self.sandbox = json!({ "type": "readOnly", "networkAccess": false });
            }
            Some("workspace-write" | "workspaceWrite") => {
                self.sandbox = json!({
                    "type": "workspaceWrite",
                    "writableRoots": [],
                    "networkAccess": false,
                    "excludeTmpdirEnvVar": false,
                    "excludeSlashTmp": false,
                });
            }
            Some("externalSandbox") => {
                self.sandbox = json!({ "type": "externalSandbox", "networkAccess": "restricted" });
            }
            Some(_) => self.sandbox = json!({ "type": "dangerFullAccess" }),
        }
        let configured = present(params, "config").and_then(|config| config.get("model_reasoning_effort"));
        if let Some(effort) = present(params, "effort").or(configured).and_then(Value::as_str) {
            self.reasoning_effort = Some(effort.to_owned());
        }
    }
}

/// A thread as it is stored; times in seconds since the epoch.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) created_at: u64,
    pub(super) updated_at: u64,
    pub(super) preview: String,
    pub(super) forked_from: Option<String>,
    pub(super) ephemeral: bool,
    pub(super) source: Value,
    pub(super) settings: Settings,
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
    pub(super) turns: Vec<TurnRecord>,
}

impl Record {
    /// The input tokens of every turn, besides one output token per delta.
    pub(super) const INPUT_TOKENS_PER_TURN: u64 = 100;

    /// A new thread.
    pub(super) fn new(settings: Settings) -> Self {
        let now = now_ms() / 1000;
        Self {
            id: items::new_id(),
            created_at: now,
            updated_at: now,
            preview: String::new(),
            forked_from: None,
            ephemeral: false,
            source: json!("vscode"),
            settings,
            input_tokens: 0,
            output_tokens: 0,
            turns: Vec::new(),
        }
    }

    /// Marks turns that were running when the record was written as interrupted.
    pub(super) fn interrupt_open_turns(&mut self) {
        for turn in &mut self.turns {
            if turn.status == "inProgress" {
                turn.status = "interrupted".to_owned();
                turn.completed_at = Some(self.updated_at);
                turn.duration_ms = Some(self.updated_at.saturating_sub(turn.started_at) * 1000);
            }
        }
    }
}

/// One turn of a stored thread, with its completed items.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TurnRecord {
    pub(super) id: String,
    pub(super) status: String,
    pub(super) items: Vec<Value>,
    pub(super) error: Value,
    pub(super) started_at: u64,
    pub(super) completed_at: Option<u64>,
    pub(super) duration_ms: Option<u64>,
}

/// A loaded thread. Its lock is taken before that of a turn, and a turn's before that of the wire.
pub(super) struct Thread {
    pub(super) id: String,
    pub(super) state: Mutex<ThreadState>,
    /// Cleared by `thread/unsubscribe`: the turns of the thread continue without notifications.
    pub(super) subscribed: AtomicBool,
}

/// The mutable state of a loaded thread.
pub(super) struct ThreadState {
    pub(super) record: Record,
    pub(super) active: Option<Arc<Turn>>,
    /// What a running turn waits for, as flags of the protocol.
    pub(super) flags: Vec<&'static str>,
    /// The last turn failed.
    pub(super) failed: bool,
    writer: Option<File>,
}

impl ThreadState {
    /// The `status` object.
    pub(super) fn status(&self) -> Value {
        if self.active.is_some() {
            json!({ "type": "active", "activeFlags": self.flags })
        } else if self.failed {
            json!({ "type": "systemError" })
        } else {
            json!({ "type": "idle" })
        }
    }
}

/// All loaded threads, and the directory in which they are stored.
pub(super) struct Threads {
    loaded: Mutex<BTreeMap<String, Arc<Thread>>>,
    store: Option<PathBuf>,
}

impl Threads {
    /// Creates an empty table; without a `store` no thread is stored.
    pub(super) fn new(store: Option<PathBuf>) -> Self {
        Self { loaded: Mutex::new(BTreeMap::new()), store }
    }

    /// Adds `record` as a loaded thread.
    pub(super) fn add(&self, record: Record) -> Arc<Thread> {
        self.insert(record, None)
    }

    /// A loaded thread.
    pub(super) fn get(&self, id: &str) -> Option<Arc<Thread>> {
        locked(&self.loaded).get(id).cloned()
    }

    /// The ids of all loaded threads.
    pub(super) fn ids(&self) -> Vec<String> {
        locked(&self.loaded).keys().cloned().collect()
    }

    /// Loads a stored thread and takes its writer lock.
    ///
    /// # Errors
    ///
    /// The thread has no file, or another process has its writer lock.
    pub(super) fn load(&self, id: &str) -> Result<Arc<Thread>, Refusal> {
        let record = self.stored(id)?;
        let writer = self.writer(id)?;
        Ok(self.insert(record, writer))
    }

    /// Reads a stored thread without loading it.
    ///
    /// # Errors
    ///
    /// The thread has no file, or one that cannot be read.
    pub(super) fn stored(&self, id: &str) -> Result<Record, Refusal> {
        let missing = || Refusal::invalid(format!("no rollout found for thread id {id}"));
        let path = self.path(id, "json").ok_or_else(missing)?;
        let text = std::fs::read(path).map_err(|_| missing())?;
        let mut record: Record = serde_json::from_slice(&text)
            .map_err(|error| Refusal::invalid(format!("failed to read thread {id}: {error}")))?;
        record.interrupt_open_turns();
        Ok(record)
    }

    /// Writes a thread that had a turn; others are not stored.
    ///
    /// # Errors
    ///
    /// The file cannot be written, or another process has the writer lock.
    pub(super) fn save(&self, state: &mut ThreadState) -> io::Result<()> {
        let record = &state.record;
        if record.ephemeral || record.turns.is_empty() {
            return Ok(());
        }
        let (Some(path), Some(part)) = (self.path(&record.id, "json"), self.path(&record.id, "part")) else {
            return Ok(());
        };
        if state.writer.is_none() {
            state.writer = self.writer(&record.id).map_err(io::Error::other)?;
        }
        // A process that is killed between the two steps leaves the previous record.
        std::fs::write(&part, serde_json::to_vec(record)?)?;
        std::fs::rename(part, path)
    }

    /// The file of the thread, if the thread is stored.
    pub(super) fn path_of(&self, record: &Record) -> Option<String> {
        let path = self.path(&record.id, "json").filter(|_| !record.ephemeral)?;
        Some(path.to_string_lossy().into_owned())
    }

    /// The directory of the store, or a placeholder if there is none.
    pub(super) fn home(&self) -> String {
        match &self.store {
            Some(store) => store.to_string_lossy().into_owned(),
            None => "/nowhere".to_owned(),
        }
    }

    fn insert(&self, record: Record, writer: Option<File>) -> Arc<Thread> {
        let id = record.id.clone();
        let state = ThreadState { record, active: None, flags: Vec::new(), failed: false, writer };
        let thread =
            Arc::new(Thread { id: id.clone(), state: Mutex::new(state), subscribed: AtomicBool::new(true) });
        locked(&self.loaded).insert(id, Arc::clone(&thread));
        thread
    }

    /// Takes the writer lock. The end of the process releases it, so a writer that was killed does not block the next
    /// one.
    fn writer(&self, id: &str) -> Result<Option<File>, Refusal> {
        let Some(path) = self.path(id, "lock") else { return Ok(None) };
        let open = || {
            std::fs::create_dir_all(path.parent()?).ok()?;
            OpenOptions::new().create(true).truncate(false).write(true).open(&path).ok()
        };
        let Some(file) = open() else {
            return Err(Refusal::invalid(format!("cannot lock {}", path.display())));
        };
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => {
                Err(Refusal::invalid(format!("thread {id} already has an active writer")))
            }
            Err(TryLockError::Error(error)) => {
                Err(Refusal::invalid(format!("cannot lock {}: {error}", path.display())))
            }
        }
    }

    fn path(&self, id: &str, extension: &str) -> Option<PathBuf> {
        Some(self.store.as_ref()?.join(format!("{id}.{extension}")))
    }
}
