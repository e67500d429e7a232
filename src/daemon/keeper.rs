//! Bringing the records to disk, when they changed, at most once a second and at the end.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::value::RawValue;

use super::recorder::{Input, Recorder};
use crate::config::Paths;
use crate::disk::Disk;
use crate::journal::LogSync;
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
    disk: Disk,
    /// Files that are not written, because a newer codexd wrote them.
    frozen: Vec<PathBuf>,
    recorder: Recorder,
    log: Arc<LogSync>,
}

/// What is to be written.
#[derive(Debug, Clone, Copy, Default)]
struct Wanted {
    records: bool,
    sessions: bool,
    /// The log cannot be written, and the recorder is to try again.
    failing: bool,
    stopping: bool,
}

impl Keeper {
    pub(crate) fn start(
        disk: Disk,
        paths: &Paths,
        frozen: Vec<PathBuf>,
        log: Arc<LogSync>,
        recorder: Recorder,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            wanted: Mutex::default(),
            changed: Condvar::new(),
            registry: paths.session_registry.clone(),
            daemon: paths.daemon_state.clone(),
            recent: paths.recent_events.clone(),
            disk,
            frozen,
            recorder,
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

    /// Says whether the log is to be tried again from time to time.
    pub(crate) fn failing(&self, failing: bool) {
        self.shared.lock().failing = failing;
        self.shared.changed.notify_one();
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
        let mut said = false;
        loop {
            let wanted = self.wait();
            let begun = Instant::now();
            if wanted.failing {
                self.recorder.send(Input::Retry);
            }
            match self.write(wanted.sessions || wanted.stopping) {
                Ok(()) => said = false,
                Err(error) => {
                    if !said {
                        tracing::error!(%error, "the state files cannot be written");
                    }
                    said = true;
                    let mut again = self.lock();
                    again.records = true;
                    again.sessions |= wanted.sessions;
                }
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
        while !wanted.records && !wanted.failing && !wanted.stopping {
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
        let view = self.recorder.view();
        let (registry, daemon, recent) = {
            let state = view.state();
            let registry = sessions.then(|| RegistryFile::of(&state));
            (registry, DaemonFile::of(&state), view.recent_events())
        };
        // The log first: a snapshot must not know more than the log.
        if let Err(error) = self.log.sync() {
            self.recorder.send(Input::Retry);
            return Err(error);
        }
        // A log that cannot be written has nothing to sync, and that succeeds.
        if self.log.synced_through() < daemon.through_seq {
            return Err(io::Error::other("the event log is behind them"));
        }
        if let Some(registry) = registry {
            self.save(&self.registry, &registry)?;
        }
        let events: Vec<&RawValue> =
            recent.iter().filter_map(|line| serde_json::from_slice(line.json()).ok()).collect();
        let recent = RecentFile {
            format_version: snapshot::VERSION,
            through_seq: daemon.through_seq,
            max_entries: view.recent,
            updated_at: daemon.daemon.updated_at.clone(),
            events,
        };
        self.save(&self.recent, &recent)?;
        self.save(&self.daemon, &daemon)
    }

    fn save(&self, path: &Path, value: &impl Serialize) -> io::Result<()> {
        if self.frozen.iter().any(|frozen| frozen == path) {
            return Ok(());
        }
        snapshot::save(&self.disk, path, value)
    }

    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
