//! Remembers the processes that an app-server starts, while it can be seen that it started them.
//!
//! On macOS an orphan goes to launchd, and the environment of the system's own programs, the shells of commands among them,
//! cannot be read. So when the app-server ends by itself, a command that goes on can be recognized only if it was seen before.
//! Each generation of the supervisor has one [`Descendants`] where the system needs it. The listing is made while messages
//! arrive: nothing is started without one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::filter::ProcessFilter;
use super::info::{KnownProcess, pid_of};
use super::limits::POOL;
use super::platform;

/// The time between two listings; each costs the system some milliseconds.
const LISTING_INTERVAL: Duration = Duration::from_secs(2);
/// How long one listing may take.
const LISTING_TIMEOUT: Duration = Duration::from_secs(1);

/// The processes that were seen; the task that looks for them ends with this value.
#[derive(Debug)]
pub(crate) struct Descendants {
    seen: Arc<Mutex<Vec<KnownProcess>>>,
    task: JoinHandle<()>,
}

impl Descendants {
    /// Remembers those of the process `leader`, and calls `record` whenever they have changed; `record` may block.
    ///
    /// `newest_message` changes with every message from it.
    pub(crate) fn watch(
        leader: u32,
        filter: ProcessFilter,
        newest_message: impl Fn() -> u64 + Send + 'static,
        record: impl Fn(&[KnownProcess]) + Send + Sync + 'static,
    ) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (shared, record) = (Arc::clone(&seen), Arc::new(record));
        let task = tokio::spawn(async move {
            let mut newest = None;
            loop {
                tokio::time::sleep(LISTING_INTERVAL).await;
                let message = newest_message();
                if newest.replace(message) == Some(message) {
                    continue;
                }
                let (filter, known, record) = (filter.clone(), lock(&shared).clone(), Arc::clone(&record));
                let listing = POOL.run(LISTING_TIMEOUT, move || {
                    let now = list(&filter, leader, &known).ok()?;
                    if now != known {
                        record(&now);
                    }
                    Some(now)
                });
                if let Ok(Some(now)) = listing.await {
                    *lock(&shared) = now;
                }
            }
        });
        Self { seen, task }
    }

    /// Those that ran at the last listing.
    pub(crate) fn seen(&self) -> Vec<KnownProcess> {
        lock(&self.seen).clone()
    }
}

impl Drop for Descendants {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The process `leader`, what it has started, and what those of `known` have started.
pub(super) fn list(
    filter: &ProcessFilter,
    leader: u32,
    known: &[KnownProcess],
) -> std::io::Result<Vec<KnownProcess>> {
    let mut known = known.to_vec();
    if known.is_empty() {
        let all = platform::list(&filter.mark)?;
        known.extend(all.iter().filter(|one| Some(one.pid) == pid_of(leader)).map(KnownProcess::of));
    }
    Ok(filter.running_with(&known, false)?.0.iter().map(KnownProcess::of).collect())
}

fn lock(seen: &Mutex<Vec<KnownProcess>>) -> std::sync::MutexGuard<'_, Vec<KnownProcess>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
