//! Bringing the records to disk, when they changed, at most once a second and at the end.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use super::recorder::View;
use crate::config::Paths;
use crate::state::snapshot::{self, DaemonFile, RecentFile, RegistryFile};

/// The shortest time between two rounds.
const PAUSE: Duration = Duration::from_secs(1);
/// A round may take this part of the time at most, however many sessions there are.
const SHARE: u32 = 20;

/// The thread that writes the snapshots.
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    wanted: Mutex<Wanted>,
    changed: Condvar,
    registry: PathBuf,
    daemon: PathBuf,
    recent: PathBuf,
    view: Arc<View>,
    log: Arc<File>,
}

/// What is to be written.
#[derive(Debug, Clone, Copy, Default)]
struct Wanted {
    records: bool,
    sessions: bool,
    stopping: bool,
}

impl Keeper {
    pub(crate) fn start(paths: &Paths, view: Arc<View>, log: Arc<File>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            wanted: Mutex::default(),
            changed: Condvar::new(),
            registry: paths.session_registry.clone(),
            daemon: paths.daemon_state.clone(),
            recent: paths.recent_events.clone(),
            view,
            log,
        });
        let worker = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("keeper".to_owned()).spawn(move || worker.work())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Says that the records changed, and whether the sessions are among them.
    pub(crate) fn changed(&self, sessions: bool) {
        let mut wanted = self.shared.lock();
        let first = !wanted.records;
        wanted.records = true;
        wanted.sessions |= sessions;
        if first {
            self.shared.changed.notify_one();
        }
    }

    /// Writes what changed and ends.
    pub(crate) fn stop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn work(&self) {
        loop {
            let wanted = self.wait();
            let begun = Instant::now();
            if let Err(error) = self.write(wanted.sessions || wanted.stopping) {
                tracing::error!(%error, "the state files cannot be written");
                let mut again = self.lock();
                again.records = true;
                again.sessions |= wanted.sessions;
            }
            if wanted.stopping {
                return;
            }
            self.pause(PAUSE.max(begun.elapsed() * SHARE));
        }
    }

    /// Waits for a change or the end, and takes over what is to be written.
    fn wait(&self) -> Wanted {
        let mut wanted = self.lock();
        while !wanted.records && !wanted.stopping {
            wanted = self.changed.wait(wanted).unwrap_or_else(PoisonError::into_inner);
        }
        let taken = *wanted;
        wanted.records = false;
        wanted.sessions = false;
        taken
    }

    fn pause(&self, length: Duration) {
        let until = Instant::now() + length;
        let mut wanted = self.lock();
        while !wanted.stopping {
            let Some(left) = until.checked_duration_since(Instant::now()) else { return };
            wanted = self.changed.wait_timeout(wanted, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn write(&self, sessions: bool) -> io::Result<()> {
        let (registry, daemon, recent) = {
            let state = self.view.state();
            let registry = sessions.then(|| RegistryFile::of(&state));
            (registry, DaemonFile::of(&state), self.view.recent_events())
        };
        // The log first: a snapshot must not know more than the log.
        self.log.sync_data()?;
        if let Some(registry) = registry {
            snapshot::save(&self.registry, &registry)?;
        }
        let events: Vec<&RawValue> =
            recent.iter().filter_map(|line| serde_json::from_slice(line.json()).ok()).collect();
        let recent = RecentFile {
            format_version: snapshot::VERSION,
            through_seq: daemon.through_seq,
            max_entries: self.view.recent,
            updated_at: daemon.daemon.updated_at.clone(),
            events,
        };
        snapshot::save(&self.recent, &recent)?;
        snapshot::save(&self.daemon, &daemon)
    }

    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
