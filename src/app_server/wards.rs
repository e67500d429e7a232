//! The children that somebody waits for, told from the orphans that were handed to us.
//!
//! A child must be waited for exactly once: tokio waits for those that we start, and everything else that ends as our
//! child is an orphan, which nobody would wait for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::Pid;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::task::AbortOnDropHandle;

use super::processes;

/// The children that have an owner; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wards(Arc<Mutex<Vec<Pid>>>);

impl Wards {
    /// Starts a child that its owner waits for.
    ///
    /// Nobody reaps from before it exists until its number is known: one that ends at once would pass for an orphan.
    pub(crate) fn start(&self, command: &mut Command) -> std::io::Result<Child> {
        let mut wards = self.lock();
        let child = command.spawn()?;
        wards.extend(child.id().and_then(processes::pid_of));
        Ok(child)
    }

    /// The child was waited for; its number may now be another's.
    pub(crate) fn release(&self, pid: Pid) {
        self.lock().retain(|&ward| ward != pid);
    }

    /// Their numbers.
    pub(crate) fn pids(&self) -> Vec<Pid> {
        self.lock().clone()
    }

    /// Waits for orphans whenever one has ended; `None` where orphans are not ours.
    pub(crate) fn reap_orphans(&self) -> Option<AbortOnDropHandle<()>> {
        if !processes::are_orphans_ours() {
            return None;
        }
        let mut ended = signal(SignalKind::child())
            .inspect_err(|error| tracing::warn!(%error, "orphans that end stay in the process table"))
            .ok()?;
        let wards = self.clone();
        Some(AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                let wards = wards.clone();
                // The process table is a folder of files, so looking through it may block.
                let _ = tokio::task::spawn_blocking(move || processes::reap(&wards.lock())).await;
                if ended.recv().await.is_none() {
                    return;
                }
            }
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Pid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
