//! Writes the state files when the records have changed: at most once a second, and at the stop.
//!
//! Owns the writer thread; the recorder's worker notifies it. All files of one round show the same state.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use crate::config::Config;
use crate::daemon::recorder::handle::Recorder;
use crate::daemon::recorder::input::Input;
use crate::daemon::status::view::DaemonView;
use crate::journal::LogSync;
use crate::state::snapshot::{self, DaemonFile, Layout, RecentFile, RegistryFile};
use crate::storage::{DirectoryLock, Disk};

/// The shortest time between two rounds.
const MIN_WRITE_INTERVAL: Duration = Duration::from_secs(1);
/// A round may take this part of the time at most, however many sessions there are.
const MIN_INTERVAL_PER_WRITE_TIME: u32 = 20;

/// The thread that writes the snapshots.
pub(crate) struct SnapshotWriter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    requested: Mutex<Requested>,
    changed: Condvar,
    config: Config,
    identity: PathBuf,
    registry: PathBuf,
    daemon: PathBuf,
    recent: PathBuf,
    disk: Disk,
    recorder: Recorder,
    log: Arc<LogSync>,
    /// Of a directory that was made again.
    lock: Mutex<Option<DirectoryLock>>,
}

/// What is to be written.
#[derive(Debug, Clone, Copy, Default)]
struct Requested {
    records: bool,
    sessions: bool,
    /// The log cannot be written, and the recorder is to try again.
    failing: bool,
    stopping: bool,
}

impl SnapshotWriter {
    pub(crate) fn start(
        disk: Disk,
        config: &Config,
        log: Arc<LogSync>,
        recorder: Recorder,
    ) -> io::Result<Self> {
        let paths = &config.paths;
        let shared = Arc::new(Shared {
            requested: Mutex::default(),
            changed: Condvar::new(),
            config: config.clone(),
            identity: paths.identity.clone(),
            registry: paths.session_registry.clone(),
            daemon: paths.daemon_state.clone(),
            recent: paths.recent_events.clone(),
            disk,
            recorder,
            log,
            lock: Mutex::default(),
        });
        // From the start all files are there.
        if let Err(error) = shared.write(true) {
            tracing::error!(%error, "failed to write the state files");
        }
        let worker = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("snapshot-writer".to_owned()).spawn(move || worker.work())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Notes that the records changed, and whether the sessions did.
    pub(crate) fn changed(&self, sessions: bool) {
        let mut requested = self.shared.requested();
        let first = !requested.records;
        requested.records = true;
        requested.sessions |= sessions;
        if first {
            self.shared.changed.notify_one();
        }
    }

    /// Sets whether the log is retried periodically.
    pub(crate) fn failing(&self, failing: bool) {
        self.shared.requested().failing = failing;
        self.shared.changed.notify_one();
    }

    /// Writes what changed and ends.
    pub(crate) fn stop(&mut self) {
        self.shared.requested().stopping = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn work(&self) {
        let mut is_reported = false;
        loop {
            let requested = self.wait();
            let begun = Instant::now();
            if requested.failing {
                self.recorder.send(Input::Retry);
            }
            match self.write(requested.sessions || requested.stopping) {
                Ok(()) => is_reported = false,
                Err(error) => {
                    if !is_reported {
                        tracing::error!(%error, "failed to write the state files");
                    }
                    is_reported = true;
                    let mut again = self.requested();
                    again.records = true;
                    again.sessions |= requested.sessions;
                }
            }
            if requested.stopping {
                return;
            }
            self.pause(MIN_WRITE_INTERVAL.max(begun.elapsed() * MIN_INTERVAL_PER_WRITE_TIME));
        }
    }

    /// Waits for a change or the stop, and returns what to write.
    fn wait(&self) -> Requested {
        let mut requested = self.requested();
        while !requested.records && !requested.failing && !requested.stopping {
            requested = self.changed.wait(requested).unwrap_or_else(PoisonError::into_inner);
        }
        let taken = *requested;
        requested.records = false;
        requested.sessions = false;
        taken
    }

    fn pause(&self, length: Duration) {
        let until = Instant::now() + length;
        let mut requested = self.requested();
        while !requested.stopping {
            let Some(left) = until.checked_duration_since(Instant::now()) else { return };
            requested = self.changed.wait_timeout(requested, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Writes the state files, all from the records of one moment; the registry only when the sessions changed.
    fn write(&self, sessions: bool) -> io::Result<()> {
        let view = self.recorder.view();
        let is_missing = |path: &Path| std::fs::symlink_metadata(path).is_err();
        let (mut registry, mut daemon, recent) = {
            let state = view.state();
            let registry = (sessions || is_missing(&self.registry)).then(|| RegistryFile::of(&state));
            (
                registry,
                DaemonFile::of(&state, |daemon| DaemonView::of(&self.config, daemon)),
                view.recent_events(),
            )
        };
        // The log first: a snapshot states how much of it is on disk, so that the next start detects missing events.
        // A log that cannot be written is no reason to lose the records too.
        if self.log.sync().is_err() {
            self.recorder.send(Input::Retry);
        }
        let synced_through = Some(self.log.synced_through().min(daemon.through_seq));
        daemon.synced_through = synced_through;
        if let Some(registry) = &mut registry {
            registry.synced_through = synced_through;
        }
        view.log.check_files();
        let events: Vec<&RawValue> =
            recent.iter().filter_map(|line| serde_json::from_slice(line.json()).ok()).collect();
        let recent = RecentFile {
            format_version: RecentFile::<&RawValue>::VERSION,
            through_seq: daemon.through_seq,
            synced_through,
            max_entries: view.recent,
            updated_at: daemon.daemon.updated_at.clone(),
            events,
        };
        let mut files = Vec::new();
        if is_missing(&self.identity) {
            files.push((&*self.identity, snapshot::text(&view.identity)?));
        }
        if let Some(registry) = &registry {
            files.push((&*self.registry, snapshot::text(registry)?));
        }
        files.push((&*self.recent, snapshot::text(&recent)?));
        files.push((&*self.daemon, snapshot::text(&daemon)?));
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, &text[..])).collect();
        match self.disk.replace_all(&files) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_directory()?;
                self.disk.replace_all(&files)
            }
            written => written,
        }
    }

    /// Recreates a removed directory and locks it: the lock was removed with it.
    fn make_directory(&self) -> io::Result<()> {
        let Some(directory) = self.daemon.parent() else { return Ok(()) };
        if std::fs::symlink_metadata(directory).is_ok() {
            return Ok(());
        }
        tracing::error!(path = %directory.display(), "the state directory was removed; it is made again");
        let lock = DirectoryLock::take(&self.disk, directory).map_err(io::Error::other)?;
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = Some(lock);
        Ok(())
    }

    fn requested(&self) -> MutexGuard<'_, Requested> {
        self.requested.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
