//! All hooks of a daemon: adding, removing, testing and listing them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::hook::{Hook, NewHook, TargetView};
use super::payload;
use super::status::{Counts, HookState, Status};
use super::store::{FoundHooks, Progress, Store};
use super::surroundings::Surroundings;
use super::worker::Worker;
use crate::ids::HookId;
use crate::state::{EventFilter, HookEvent};
use crate::time::rfc3339_now;
use crate::timestamp::Timestamp;

/// The largest number of hooks.
const MAX_HOOKS: usize = 32;

/// Why an operation on a hook failed.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The hook is not valid; a sentence.
    #[error("{0}")]
    Invalid(String),
    /// Another hook has the name.
    #[error("There is a hook \"{0}\" already; remove it first, or choose another name.")]
    Exists(String),
    /// There are as many hooks as there can be.
    #[error("There are {MAX_HOOKS} hooks already; remove one first.")]
    TooMany,
    /// There is no such hook.
    #[error("Unknown codexd hook \"{0}\".")]
    Unknown(HookId),
    /// The files cannot be written.
    #[error("The hooks cannot be written to the state directory ({0}); check its disk and try again.")]
    Storage(std::io::Error),
    /// The daemon stops.
    #[error("codexd is shutting down; try again when it is back.")]
    Stopping,
}

/// The hooks; clones share them.
#[derive(Clone)]
pub struct Hooks(Arc<Inner>);

struct Inner {
    surroundings: Arc<Surroundings>,
    store: Store,
    running: Mutex<Vec<Running>>,
    /// Locked while a hook is added or removed.
    changes: tokio::sync::Mutex<()>,
    stopping: CancellationToken,
    cancelled: CancellationToken,
}

/// A hook and its task.
struct Running {
    hook: Arc<Hook>,
    status: Arc<Status>,
    stopping: CancellationToken,
    cancelled: CancellationToken,
    task: JoinHandle<()>,
}

/// A hook as others see it: without secrets.
#[derive(Debug, Clone)]
pub struct HookView {
    /// The hook.
    pub hook: Arc<Hook>,
    /// What may be known about its target.
    pub target: TargetView,
    /// The last event that it is done with: `<epoch>-<seq>`.
    pub cursor: Option<String>,
    /// Whether something is being delivered.
    pub is_delivering: bool,
    /// Whether its deliveries fail repeatedly.
    pub is_failing: bool,
    /// How often the next delivery has failed.
    pub failures: u32,
    /// When it is tried again.
    pub retry_at: Option<Timestamp>,
    /// Why the last attempt failed; `None` when it succeeded.
    pub error: Option<String>,
    /// When the last delivery succeeded in this run of the daemon.
    pub delivered_at: Option<Timestamp>,
    /// What happened in this run of the daemon.
    pub counts: Counts,
}

/// The result of a test.
#[derive(Debug, Clone)]
pub struct TestResult {
    /// Why the delivery failed, as a clause; `None` when it succeeded.
    pub error: Option<String>,
    /// How long it took.
    pub took: Duration,
}

impl Hooks {
    /// Starts the tasks of the hooks that were found.
    ///
    /// No delivery begins once `stopping` is cancelled.
    pub fn start(surroundings: Surroundings, found: FoundHooks, stopping: &CancellationToken) -> Self {
        let store = Store::new(
            surroundings.disk.clone(),
            surroundings.hooks_path.clone(),
            surroundings.cursors_path.clone(),
            &found,
        );
        let hooks = Self(Arc::new(Inner {
            surroundings: Arc::new(surroundings),
            store,
            running: Mutex::default(),
            changes: tokio::sync::Mutex::default(),
            stopping: stopping.clone(),
            cancelled: CancellationToken::new(),
        }));
        for hook in found.hooks.unwrap_or_default().hooks {
            let progress = hooks.0.store.progress(&hook.hook_id).unwrap_or_default();
            hooks.run(hook, progress);
        }
        hooks
    }

    /// All hooks, in the order in which they were added.
    pub fn list(&self) -> Vec<HookView> {
        self.running().iter().map(|running| view(&running.hook, &running.status)).collect()
    }

    /// Adds a hook that gets the events from now on.
    pub async fn add(&self, hook: NewHook) -> Result<HookView, HookError> {
        let hook = hook.check(rfc3339_now()).map_err(HookError::Invalid)?;
        let _change = self.0.changes.lock().await;
        if self.0.stopping.is_cancelled() {
            return Err(HookError::Stopping);
        }
        let mut hooks = self.hooks();
        if hooks.iter().any(|other| other.name == hook.name) {
            return Err(HookError::Exists(hook.name));
        }
        if hooks.len() >= MAX_HOOKS {
            return Err(HookError::TooMany);
        }
        let bounds = self.0.surroundings.log.bounds();
        let progress = Progress { cursor: Some(bounds.cursor(bounds.latest)), ..Progress::default() };
        // The cursor first: a hook without one would be told of a gap.
        let saved = self.0.store.save_progress(&hook.hook_id, progress.clone()).await;
        hooks.push(hook.clone());
        let saved = match saved {
            Ok(()) => self.0.store.save_hooks(hooks).await,
            failed => failed,
        };
        if let Err(error) = saved {
            self.0.store.forget(&hook.hook_id);
            return Err(HookError::Storage(error));
        }
        let (hook_id, name) = (hook.hook_id.clone(), hook.name.clone());
        let added =
            HookEvent::Added { hook_id, name, on: hook.on.clone(), session_id: hook.session_id.clone() };
        self.0.surroundings.record(added).await;
        Ok(self.run(hook, progress))
    }

    /// Removes a hook; a delivery that is under way is ended.
    pub async fn remove(&self, hook_id: &HookId) -> Result<HookView, HookError> {
        let _change = self.0.changes.lock().await;
        let mut hooks = self.hooks();
        let Some(index) = hooks.iter().position(|hook| hook.hook_id == *hook_id) else {
            return Err(HookError::Unknown(hook_id.clone()));
        };
        let hook = hooks.remove(index);
        self.0.store.save_hooks(hooks).await.map_err(HookError::Storage)?;
        let removed = {
            let mut running = self.running();
            let index = running.iter().position(|running| running.hook.hook_id == *hook_id);
            index.map(|index| running.remove(index))
        };
        let Some(removed) = removed else { return Err(HookError::Unknown(hook_id.clone())) };
        removed.stopping.cancel();
        removed.cancelled.cancel();
        let _ = removed.task.await;
        self.0.store.forget(hook_id);
        self.0.surroundings.record(HookEvent::Removed { hook_id: hook.hook_id, name: hook.name }).await;
        Ok(view(&removed.hook, &removed.status))
    }

    /// Delivers a test, after what is being delivered now; a success makes a failed delivery try again at once.
    pub async fn test(&self, hook_id: &HookId) -> Result<TestResult, HookError> {
        let found = self.running().iter().find(|running| running.hook.hook_id == *hook_id).map(|running| {
            (Arc::clone(&running.hook), Arc::clone(&running.status), running.cancelled.clone())
        });
        let Some((hook, status, cancelled)) = found else { return Err(HookError::Unknown(hook_id.clone())) };
        let now = rfc3339_now();
        let id = format!("test-{}", uuid::Uuid::new_v4());
        let payload = payload::of_test(&hook, &id, &now.text());
        let began = Instant::now();
        let delivered =
            status.deliver(&hook, &self.0.surroundings.deliveries, &id, payload, &cancelled).await;
        if delivered.is_ok() {
            status.retry_now.notify_waiters();
        }
        Ok(TestResult { error: delivered.err(), took: began.elapsed() })
    }

    /// Ends the deliveries that are under way and writes the cursors; no delivery begins any more.
    pub async fn stop(&self) {
        self.0.stopping.cancel();
        self.0.cancelled.cancel();
        let _change = self.0.changes.lock().await;
        let tasks: Vec<_> = self.running().drain(..).map(|running| running.task).collect();
        for task in tasks {
            let _ = task.await;
        }
    }

    /// Starts the task of a hook.
    fn run(&self, hook: Hook, progress: Progress) -> HookView {
        let (hook, status) = (Arc::new(hook), Arc::new(Status::new(progress.clone())));
        let (stopping, cancelled) = (self.0.stopping.child_token(), self.0.cancelled.child_token());
        let thread_id =
            hook.session_id.as_ref().and_then(|session_id| (self.0.surroundings.thread_of)(session_id));
        let worker = Worker {
            hook: Arc::clone(&hook),
            surroundings: Arc::clone(&self.0.surroundings),
            store: self.0.store.clone(),
            status: Arc::clone(&status),
            progress,
            filter: EventFilter::new(&hook.on, hook.session_id.as_ref(), thread_id.as_ref()),
            position: None,
            stopping: stopping.clone(),
            cancelled: cancelled.clone(),
            unsaved_bytes: 0,
            is_unsaved: false,
        };
        let view = view(&hook, &status);
        let task = tokio::spawn(worker.run());
        self.running().push(Running { hook, status, stopping, cancelled, task });
        view
    }

    fn hooks(&self) -> Vec<Hook> {
        self.running().iter().map(|running| Hook::clone(&running.hook)).collect()
    }

    fn running(&self) -> MutexGuard<'_, Vec<Running>> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn view(hook: &Arc<Hook>, status: &Status) -> HookView {
    let HookState { progress, is_delivering, delivered_at, counts } = status.state();
    HookView {
        target: hook.target_view(),
        hook: Arc::clone(hook),
        cursor: progress.cursor,
        is_delivering,
        is_failing: progress.is_failing,
        failures: progress.failures,
        retry_at: progress.retry_at,
        error: progress.error,
        delivered_at,
        counts,
    }
}
