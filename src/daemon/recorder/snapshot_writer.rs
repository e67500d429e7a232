//! Writes the state files within a second after the records have changed, and at the stop.
//!
//! The files are a snapshot of the log: after a crash, the events since then are applied to them. So large records are
//! written only when the log has grown by several times their size, or after a time in proportion to it. They are written
//! through a buffer: a text of all records would be most of the daemon's memory.
//!
//! Owns the writer thread; the recorder's worker notifies it. All files of one round show the same state.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use crate::config::Config;
use crate::daemon::attachments::{self, Attachments};
use crate::daemon::recorder::handle::Recorder;
use crate::daemon::recorder::input::Input;
use crate::daemon::recorder::registry_writer::RegistryWriter;
use crate::daemon::status::view::DaemonView;
use crate::journal::LogSync;
use crate::state::snapshot::{self, DaemonFile, Layout, RecentFile, RecordsFile, RegistryFile};
use crate::storage::{Content, DirectoryLock, Disk};

/// The shortest time from the beginning of a round to that of the next, so that a change is in the files within a second.
const MIN_WRITE_INTERVAL: Duration = Duration::from_millis(900);
/// The shortest time between two writes of the recent events, which are most of what a small turn writes.
const MIN_RECENT_INTERVAL: Duration = Duration::from_secs(3);
/// A round may take this part of the time at most, however many sessions there are.
const MIN_INTERVAL_PER_WRITE_TIME: u32 = 20;

/// Up to this size, the records are written in each round.
const SMALL_BYTES: u64 = 64 * 1024;
/// Larger ones are written when the log has grown by this many times their size.
const MIN_LOG_GROWTH: u64 = 8;
/// The most bytes of the log that a start applies to the records, which takes a third of a second (measured: 94 MB/s).
const MAX_APPLIED_BYTES: u64 = 32 * 1024 * 1024;
/// How fast the records are written on average while the log grows by less.
const BYTES_PER_SECOND: u64 = 1024;

/// The files of a round; one that is missing is written too.
struct Files {
    daemon: bool,
    sessions: bool,
    records: bool,
    recent: bool,
}

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
    records: PathBuf,
    daemon: PathBuf,
    recent: PathBuf,
    disk: Disk,
    recorder: Recorder,
    log: Arc<LogSync>,
    attachments: Attachments,
    registry_writer: Mutex<RegistryWriter>,
    /// Of a directory that was made again.
    lock: Mutex<Option<DirectoryLock>>,
}

/// The newest records that were written.
#[derive(Debug, Clone, Copy)]
struct Written {
    at: Instant,
    bytes: u64,
    /// How long the log was, in bytes that this process has written.
    log_bytes: u64,
}

/// What is to be written.
#[derive(Debug, Clone, Copy, Default)]
struct Requested {
    changed: bool,
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
        attachments: Attachments,
    ) -> io::Result<Self> {
        let paths = &config.paths;
        // Large ones are written in the first round, so that the start does not wait for it.
        let is_small = std::fs::metadata(&paths.records).map_or(true, |found| found.len() <= SMALL_BYTES);
        let shared = Arc::new(Shared {
            requested: Mutex::new(Requested {
                changed: !is_small,
                sessions: !is_small,
                ..Requested::default()
            }),
            changed: Condvar::new(),
            config: config.clone(),
            identity: paths.identity.clone(),
            registry: paths.session_registry.clone(),
            records: paths.records.clone(),
            daemon: paths.daemon_state.clone(),
            recent: paths.recent_events.clone(),
            registry_writer: Mutex::new(RegistryWriter::new(disk.clone(), paths.session_registry.clone())),
            disk,
            recorder,
            log,
            attachments,
            lock: Mutex::default(),
        });
        // From the start all files are there.
        shared.sync_log();
        let files = Files { daemon: true, sessions: is_small, records: is_small, recent: true };
        let written = shared.write(files);
        if let Err(error) = &written {
            tracing::error!(%error, "failed to write the state files");
        }
        let (worker, written) = (Arc::clone(&shared), written.ok().flatten());
        let thread = std::thread::Builder::new()
            .name("snapshot-writer".to_owned())
            .spawn(move || worker.work(written))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Notes that the records changed, and whether the sessions did.
    pub(crate) fn changed(&self, sessions: bool) {
        let mut requested = self.shared.requested();
        let first = !requested.changed;
        requested.changed = true;
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
    fn work(&self, mut written: Option<Written>) {
        let mut is_reported = false;
        let mut is_unwritten = false;
        let mut recent_at = Instant::now();
        let mut is_recent_unwritten = false;
        loop {
            let requested = self.wait(is_recent_unwritten.then_some(recent_at + MIN_RECENT_INTERVAL));
            let begun = Instant::now();
            if requested.failing {
                self.recorder.send(Input::Retry);
            }
            // The log first: a snapshot states how much of it is on disk, so that the next start detects missing events.
            // A log that cannot be written is no reason to lose the records too.
            let is_synced = self.sync_log();
            let view = self.recorder.view();
            view.log.check_files();
            let max_bytes = self.config.limits.event_log_bytes;
            self.attachments.remove_unused(&view.log, || attachments::queued(&view.state()), max_bytes);
            let sessions = requested.sessions || requested.stopping;
            is_unwritten |= sessions;
            let is_urgent = requested.stopping || requested.failing || !is_synced;
            let is_due = is_urgent || written.is_none_or(|written| self.is_due(written));
            let recent = is_urgent || recent_at.elapsed() >= MIN_RECENT_INTERVAL;
            let daemon = requested.changed || is_urgent;
            let result = self.write(Files { daemon, sessions, records: is_unwritten && is_due, recent });
            let is_failed = result.is_err();
            if recent {
                recent_at = Instant::now();
            }
            is_recent_unwritten = !recent;
            match result {
                Ok(None) => {}
                Ok(records) => (written, is_unwritten) = (records, false),
                Err(error) => {
                    if !is_reported {
                        tracing::error!(%error, "failed to write the state files");
                    }
                    (written, is_unwritten) = (None, true);
                    let mut again = self.requested();
                    (again.changed, again.sessions) = (true, true);
                }
            }
            is_reported = is_failed;
            if requested.stopping {
                return;
            }
            let took = begun.elapsed();
            let interval = MIN_WRITE_INTERVAL.max(took * MIN_INTERVAL_PER_WRITE_TIME);
            self.pause(interval.saturating_sub(took));
        }
    }

    /// Syncs the log; returns whether that succeeded.
    fn sync_log(&self) -> bool {
        let is_synced = self.log.sync().is_ok();
        if !is_synced {
            self.recorder.send(Input::Retry);
        }
        is_synced
    }

    /// Whether changed records are to be written now.
    fn is_due(&self, written: Written) -> bool {
        let bytes = written.bytes;
        let log_growth = self.recorder.view().log.metrics().bytes().saturating_sub(written.log_bytes);
        bytes <= SMALL_BYTES
            // The events since then must still be in the log at the next start.
            || log_growth
                >= (bytes * MIN_LOG_GROWTH).min(MAX_APPLIED_BYTES).min(self.config.limits.event_log_bytes / 4)
            || written.at.elapsed() >= Duration::from_secs(bytes / BYTES_PER_SECOND)
    }

    /// Waits for a change, the stop, or this time, and returns what to write.
    fn wait(&self, until: Option<Instant>) -> Requested {
        let mut requested = self.requested();
        while !requested.changed && !requested.sessions && !requested.failing && !requested.stopping {
            let left = until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                break;
            }
            requested = self.changed.wait_timeout(requested, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let taken = *requested;
        requested.changed = false;
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

    /// Writes these state files, all from the records of one moment; returns the records, if they were written.
    fn write(&self, files: Files) -> io::Result<Option<Written>> {
        let view = self.recorder.view();
        let log_bytes = view.log.metrics().bytes();
        // Before the records are locked: the disk may not answer, and then the recorder would wait for it.
        let registry = files.sessions || is_missing(&self.registry);
        let records = files.records || is_missing(&self.records);
        let recent = files.recent || is_missing(&self.recent);
        let daemon_file = files.daemon || is_missing(&self.daemon);
        let (mut registry, mut records, mut daemon, events) = {
            let state = view.state();
            (
                registry.then(|| RegistryFile::of(&state)),
                records.then(|| RecordsFile::of(&state)),
                DaemonFile::of(&state, |daemon| DaemonView::of(&self.config, daemon, None)),
                recent.then(|| view.recent_events()),
            )
        };
        let synced_through = Some(self.log.synced_through().min(daemon.through_seq));
        daemon.synced_through = synced_through;
        if let Some(registry) = &mut registry {
            registry.synced_through = synced_through;
        }
        if let Some(records) = &mut records {
            records.synced_through = synced_through;
        }
        let mut registry_writer = self.registry_writer.lock().unwrap_or_else(PoisonError::into_inner);
        let is_registry_replaced = match &registry {
            Some(registry) => !registry_writer.write_changes(registry)?,
            None => false,
        };
        let text = |text: Vec<u8>| -> Content<'_> { Box::new(move |file| file.write_all(&text)) };
        let mut files: Vec<(&Path, Content<'_>)> = Vec::new();
        if is_missing(&self.identity) {
            files.push((&self.identity, text(snapshot::text(&view.identity)?)));
        }
        // Before the registry, which an earlier version may have written with all records.
        if let Some(records) = &records {
            files.push((&self.records, Box::new(|file| Ok(serde_json::to_writer(file, records)?))));
        }
        if let Some(registry) = registry.as_ref().filter(|_| is_registry_replaced) {
            let writer = &*registry_writer;
            files.push((&self.registry, Box::new(move |file| writer.write_whole(registry, file))));
        }
        if let Some(lines) = events {
            let recent: RecentFile<&RawValue> = RecentFile {
                format_version: RecentFile::<&RawValue>::VERSION,
                through_seq: daemon.through_seq,
                synced_through,
                max_entries: view.recent,
                updated_at: daemon.daemon.updated_at.clone(),
                events: lines.iter().filter_map(|line| serde_json::from_slice(line.json()).ok()).collect(),
            };
            files.push((&self.recent, text(snapshot::text(&recent)?)));
        }
        if daemon_file {
            files.push((&self.daemon, text(snapshot::text(&daemon)?)));
        }
        let replaced = match self.disk.replace_all(&files) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_directory().and_then(|()| self.disk.replace_all(&files))
            }
            replaced => replaced,
        };
        drop(files);
        replaced.inspect_err(|_| registry_writer.failed())?;
        if records.is_none() {
            return Ok(None);
        }
        let bytes = std::fs::metadata(&self.records)?.len();
        Ok(Some(Written { at: Instant::now(), bytes, log_bytes }))
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

fn is_missing(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_err()
}
