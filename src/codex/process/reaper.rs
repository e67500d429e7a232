//! The children that somebody waits for, told from the orphans that were handed to us.
//!
//! A child must be waited for exactly once: tokio waits for those that we start, and everything else that ends as our
//! child is an orphan, which nobody would wait for.

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

/// How long a search for orphans that have ended may take.
const REAP: Duration = Duration::from_secs(10);
/// How long the start of a process may take: its program or its directory may lie on a file system that does not answer.
const START: Duration = Duration::from_secs(10);

/// The children that have an owner; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wards(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Held while a child is started and while orphans are waited for, both on threads that may hang.
    starting: Mutex<()>,
    /// Held for a moment only.
    pids: Mutex<Vec<Pid>>,
}

impl Wards {
    /// Makes `start` start children by [`Wards::start`] on a thread that may hang; the error says so.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        start: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, Unanswered> {
        let (wards, runtime) = (self.clone(), Handle::current());
        let start = move || {
            // tokio's children are watched by the runtime in which they are started.
            let _entered = runtime.enter();
            start(&wards)
        };
        POOL.run(START, start).await
    }

    /// Starts a child that its owner waits for; blocks.
    ///
    /// Nobody reaps from before it exists until its number is known: one that ends at once would pass for an orphan.
    #[expect(clippy::disallowed_methods, reason = "it is called on a thread of the pool, by Wards::run")]
    pub(crate) fn start(&self, command: &mut Command) -> std::io::Result<Child> {
        let _starting = lock(&self.0.starting);
        let child = command.spawn()?;
        lock(&self.0.pids).extend(child.id().and_then(pid_of));
        Ok(child)
    }

    /// The child was waited for; its number may now be another's.
    pub(crate) fn release(&self, pid: Pid) {
        lock(&self.0.pids).retain(|&ward| ward != pid);
    }

    /// Their numbers.
    pub(crate) fn pids(&self) -> Vec<Pid> {
        lock(&self.0.pids).clone()
    }

    /// Waits for orphans whenever one has ended; `None` where orphans are not ours.
    pub(crate) fn reap_orphans(&self) -> Option<AbortOnDropHandle<()>> {
        if !platform::are_orphans_ours() {
            return None;
        }
        let mut ended = signal(SignalKind::child())
            .inspect_err(|error| tracing::warn!(%error, "orphans that end stay in the process table"))
            .ok()?;
        let wards = self.clone();
        Some(AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                let wards = wards.clone();
                let reap = move || {
                    let _starting = lock(&wards.0.starting);
                    platform::reap(&wards.pids());
                };
                // The process table is a directory of files, so looking through it may block.
                let _ = POOL.run(REAP, reap).await;
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
