//! The children that have an owner in this process, and the reaping of all others.
//!
//! Each child must be waited for exactly once. tokio waits for those that we start; every other child that exits is an
//! orphan that the system gave to us, and the reaper waits for it. A registry of owned PIDs keeps the two apart.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Pid;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::task::AbortOnDropHandle;

use super::info::pid_of;
use super::limits::POOL;
use super::platform;
use crate::blocking::{Pool, Unanswered};

/// How long one search for exited orphans may take.
const REAP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long starting a process may take: its program or directory may be on a file system that does not respond.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// The PIDs of the children that have an owner; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChildRegistry(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Held while a child is started and while orphans are reaped, both on threads that may hang.
    starting: Mutex<()>,
    /// How many starts have begun.
    begun: AtomicU64,
    /// How many of them are done.
    done: AtomicU64,
    /// Never held across a blocking call.
    pids: Mutex<Vec<Pid>>,
}

/// How many children were started at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Starts {
    begun: u64,
    done: u64,
}

impl Starts {
    /// Whether no child was being started.
    pub(crate) fn are_done(self) -> bool {
        self.begun == self.done
    }
}

impl ChildRegistry {
    /// Runs `start`, which starts children by [`ChildRegistry::start`], on a thread that may hang; the error reports it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        start: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, Unanswered> {
        self.run_on(&POOL, start).await
    }

    /// [`ChildRegistry::run`] on a thread of this pool.
    pub(crate) async fn run_on<T: Send + 'static>(
        &self,
        pool: &'static Pool,
        start: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, Unanswered> {
        let (children, runtime) = (self.clone(), Handle::current());
        let start = move || {
            // tokio's children belong to the runtime in which they are started.
            let _entered = runtime.enter();
            start(&children)
        };
        pool.run(START_TIMEOUT, start).await
    }

    /// Starts a child that its owner waits for; blocks.
    ///
    /// Nothing is reaped until its PID is registered: a child that exits at once would look like an orphan.
    #[expect(clippy::disallowed_methods, reason = "ChildRegistry::run calls it on a thread of the pool")]
    pub(crate) fn start(&self, command: &mut Command) -> std::io::Result<Child> {
        let _starting = lock(&self.0.starting);
        self.0.begun.fetch_add(1, Ordering::AcqRel);
        let child = command.spawn();
        if let Ok(child) = &child {
            lock(&self.0.pids).extend(child.id().and_then(pid_of));
        }
        self.0.done.fetch_add(1, Ordering::AcqRel);
        child
    }

    /// How many children have been started; a child is registered before its start is done.
    pub(crate) fn starts(&self) -> Starts {
        let done = self.0.done.load(Ordering::Acquire);
        Starts { begun: self.0.begun.load(Ordering::Acquire), done }
    }

    /// Reaps orphans now, unless a child is being started; blocks.
    pub(crate) fn reap(&self) {
        if let Ok(_starting) = self.0.starting.try_lock() {
            platform::reap(&self.pids());
        }
    }

    /// Removes a child whose exit status was collected; its PID may be reused now.
    pub(crate) fn release(&self, pid: Pid) {
        lock(&self.0.pids).retain(|&child| child != pid);
    }

    /// The PIDs of the owned children.
    pub(crate) fn pids(&self) -> Vec<Pid> {
        lock(&self.0.pids).clone()
    }

    /// Reaps orphans whenever a child exits; `None` where orphans do not come to us.
    pub(crate) fn reap_orphans(&self) -> Option<AbortOnDropHandle<()>> {
        if !platform::is_subreaper() {
            return None;
        }
        let mut ended = signal(SignalKind::child())
            .inspect_err(|error| tracing::warn!(%error, "failed to watch SIGCHLD; exited orphans stay in the process table"))
            .ok()?;
        let children = self.clone();
        Some(AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                let children = children.clone();
                let reap = move || {
                    let _starting = lock(&children.0.starting);
                    platform::reap(&children.pids());
                };
                // The process table is a directory of files, so reading it may block.
                let _ = POOL.run(REAP_TIMEOUT, reap).await;
                if ended.recv().await.is_none() {
                    return;
                }
            }
        })))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
