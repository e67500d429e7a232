//! The files of the hooks: `hooks.json` has the hooks with their secrets, `hook-cursors.json` how far each has got.
//!
//! Both are replaced as a whole, and only their owner can read them.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::gap::Gap;
use super::hook::Hook;
use crate::blocking::Pool;
use crate::ids::HookId;
use crate::state::snapshot::{Layout, text};
use crate::storage::Disk;
use crate::timestamp::Timestamp;

static POOL: Pool = Pool::new("hook files", 1, 3);
/// How long writing a file may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// What `hooks.json` holds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HooksFile {
    /// The layout's version.
    format_version: u32,
    /// In the order in which they were added.
    pub(super) hooks: Vec<Hook>,
}

/// What `hook-cursors.json` holds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CursorsFile {
    /// The layout's version.
    format_version: u32,
    hooks: BTreeMap<HookId, Progress>,
}

impl Layout for HooksFile {
    const VERSION: u32 = 1;

    fn head(&self) -> (u32, u64) {
        (self.format_version, 0)
    }
}

impl Layout for CursorsFile {
    const VERSION: u32 = 1;

    fn head(&self) -> (u32, u64) {
        (self.format_version, 0)
    }
}

/// What a start found.
#[derive(Debug, Clone, Default)]
pub struct FoundHooks {
    /// The hooks.
    pub hooks: Option<HooksFile>,
    /// Their cursors.
    pub cursors: Option<CursorsFile>,
}

/// How far a hook has got.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Progress {
    /// The last event that was delivered, was skipped, or does not concern the hook: `<epoch>-<seq>`.
    pub(super) cursor: Option<String>,
    /// The gap that is to be delivered before the next event.
    pub(super) gap: Option<Gap>,
    /// How often the next delivery has failed.
    pub(super) failures: u32,
    /// When it is tried again.
    pub(super) retry_at: Option<Timestamp>,
    /// Why it failed last.
    pub(super) error: Option<String>,
    /// Whether it was reported that the hook fails.
    pub(super) is_failing: bool,
}

/// Writes the files; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    disk: Disk,
    hooks_path: PathBuf,
    cursors_path: PathBuf,
    /// What `hook-cursors.json` has to hold, and the number of its changes.
    cursors: Mutex<(BTreeMap<HookId, Progress>, u64)>,
    /// The number of changes that are on disk; locked while one caller writes for all that wait.
    written: tokio::sync::Mutex<u64>,
    /// Locked while a thread writes, so that one whose caller has given up writes beside no other.
    writing: Mutex<()>,
}

impl Store {
    pub(super) fn new(disk: Disk, hooks_path: PathBuf, cursors_path: PathBuf, found: &FoundHooks) -> Self {
        let cursors = found.cursors.clone().unwrap_or_default().hooks;
        Self(Arc::new(Inner {
            disk,
            hooks_path,
            cursors_path,
            cursors: Mutex::new((cursors, 0)),
            written: tokio::sync::Mutex::default(),
            writing: Mutex::default(),
        }))
    }

    /// How far a hook has got; `None` if that is not known.
    pub(super) fn progress(&self, hook_id: &HookId) -> Option<Progress> {
        lock(&self.0.cursors).0.get(hook_id).cloned()
    }

    /// Forgets how far a hook has got; the file has it until the next write.
    pub(super) fn forget(&self, hook_id: &HookId) {
        lock(&self.0.cursors).0.remove(hook_id);
    }

    /// Sets how far a hook has got and returns when that is on disk; callers share writes.
    pub(super) async fn save_progress(&self, hook_id: &HookId, progress: Progress) -> io::Result<()> {
        let change = {
            let mut cursors = lock(&self.0.cursors);
            cursors.0.insert(hook_id.clone(), progress);
            cursors.1 += 1;
            cursors.1
        };
        let mut written = self.0.written.lock().await;
        if *written >= change {
            return Ok(());
        }
        let (file, through) = {
            let cursors = lock(&self.0.cursors);
            let hooks = cursors.0.clone();
            (CursorsFile { format_version: CursorsFile::VERSION, hooks }, cursors.1)
        };
        self.write(self.0.cursors_path.clone(), text(&file)?).await?;
        *written = through;
        Ok(())
    }

    /// Writes the hooks and returns when they are on disk.
    pub(super) async fn save_hooks(&self, hooks: Vec<Hook>) -> io::Result<()> {
        let file = HooksFile { format_version: HooksFile::VERSION, hooks };
        self.write(self.0.hooks_path.clone(), text(&file)?).await
    }

    async fn write(&self, path: PathBuf, text: Vec<u8>) -> io::Result<()> {
        let inner = Arc::clone(&self.0);
        #[expect(clippy::disallowed_methods, reason = "it runs on a thread of the pool")]
        let write = move || {
            let Ok(_writing) = inner.writing.try_lock() else {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "an earlier write has not ended"));
            };
            inner.disk.replace(&path, &text)
        };
        let late = |unanswered| io::Error::new(io::ErrorKind::TimedOut, format!("the disk {unanswered}"));
        POOL.run(WRITE_TIMEOUT, write).await.map_err(late)?
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
