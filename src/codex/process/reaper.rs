//! The children that have an owner in this process, and the reaping of all others.
//!
//! Each child must be waited for exactly once. tokio waits for those that we start; every other child that exits is an
//! orphan that the system gave to us, and the reaper waits for it. A registry of owned PIDs keeps the two apart.

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
use crate::blocking::Unanswered;

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
    /// Never held across a blocking call.
    pids: Mutex<Vec<Pid>>,
}

impl ChildRegistry {
    /// Runs `start`, which starts children by [`ChildRegistry::start`], on a thread that may hang; the error reports it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        start: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, Unanswered> {
        let (children, runtime) = (self.clone(), Handle::current());
        let start = move || {
            // tokio's children belong to the runtime in which they are started.
            let _entered = runtime.enter();
            start(&children)
        };
        POOL.run(START_TIMEOUT, start).await
    }

    /// Starts a child that its owner waits for; blocks.
    ///
    /// Nothing is reaped until its PID is registered: a child that exits at once would look like an orphan.
    #[expect(clippy::disallowed_methods, reason = "ChildRegistry::run calls it on a thread of the pool")]
    pub(crate) fn start(&self, command: &mut Command) -> std::io::Result<Child> {
        let _starting = lock(&self.0.starting);
        let child = command.spawn()?;
        lock(&self.0.pids).extend(child.id().and_then(pid_of));
        Ok(child)
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
