//! Recovery: reads the state files and the log of the previous run, and folds the log's newer events into the records.
//!
//! Called once, at the start, before the recorder runs. A file that cannot be read is set aside and rebuilt from the log.

use std::io;
use std::path::{Path, PathBuf};

use crate::codex::protocol::notifications::PREFIXES_CHANGING_RECORDS;
use crate::config::Config;
use crate::hooks::FoundHooks;
use crate::journal::{self, Journal, Known, Limits, OpenFailure};
use crate::state::snapshot::{
    self, DaemonFile, FoundRegistry, Identity, Layout, Loaded, RecentFile, RecordsFile,
};
use crate::state::{DaemonEvent, DaemonState, Event, EventDetail, NewEvent, State};
use crate::storage::{DirectoryLock, Disk, LockError};
use crate::time::rfc3339_now;

/// Why the daemon cannot use its directories.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A directory is in use by another daemon, or access to it is refused.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A file cannot be used.
    #[error("{} cannot be used: {source}.", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// A newer version of the program used the directory.
    #[error(
        "{} was written by a newer codexd (layout {version}, and this one, {}, knows {known}). Nothing was changed. \
         Start the newer codexd, or give this one separate directories with --state-dir and --logs-dir.",
        path.display(),
        env!("CARGO_PKG_VERSION")
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version of its layout.
        version: u32,
        /// The highest version that this program knows.
        known: u32,
    },
}

/// The daemon's directories, locked against other daemons while this value exists.
#[derive(Debug)]
pub struct StateDirectories {
    disk: Disk,
    _locks: Vec<DirectoryLock>,
}

impl StateDirectories {
    /// Creates the directories if needed and locks them.
    pub fn take(config: &Config) -> Result<Self, OpenError> {
        #[cfg(not(feature = "mutations"))]
        let disk = Disk::default();
        #[cfg(feature = "mutations")]
        let disk = Disk::broken(config.mutation.as_deref());
        Self::take_on(disk, config)
    }

    /// The same on the given disk.
    pub(in crate::daemon) fn take_on(disk: Disk, config: &Config) -> Result<Self, OpenError> {
        let paths = &config.paths;
        let mut locks = vec![DirectoryLock::take(&disk, &paths.state_dir)?];
        if paths.logs_dir != paths.state_dir {
            locks.push(DirectoryLock::take(&disk, &paths.logs_dir)?);
        }
        Ok(Self { disk, _locks: locks })
    }

    /// The disk they are on.
    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }
}

/// What was found on disk.
pub(crate) struct Opened {
    pub(crate) disk: Disk,
    pub(crate) identity: Identity,
    pub(crate) state: State,
    pub(crate) journal: Journal,
    pub(crate) hooks: FoundHooks,
    /// What the owner should know about it.
    pub(crate) notices: Vec<NewEvent>,
    /// Damage of the log that was reported by an earlier run.
    pub(crate) known_damage: Vec<(u64, u64)>,
}

/// Reads the files, makes what is missing, and brings the records up to the log.
pub(crate) fn open(config: &Config, directories: &StateDirectories) -> Result<Opened, OpenError> {
    let paths = &config.paths;
    let mut loading = Loading { disk: directories.disk.clone(), notices: Vec::new() };
    let identity: Option<Identity> = loading.load(&paths.identity)?;
    let records: Option<RecordsFile> = loading.load(&paths.records)?;
    let (records, registry) = loading.registry(&paths.session_registry, records)?;
    let daemon: Option<DaemonFile<DaemonState>> = loading.load(&paths.daemon_state)?;
    let recent: Option<RecentFile<serde_json::Value>> = loading.load(&paths.recent_events)?;
    let hooks = FoundHooks {
        hooks: loading.load_own(&paths.hooks, "its hooks are gone, so add them again")?,
        cursors: loading.load_own(&paths.hook_cursors, "each hook is told of a gap")?,
    };

    // Numbers are never used twice, so none of the files may know a higher one than the log begins with.
    let known = [
        records.as_ref().map(|file| (file.through_seq, file.synced_through)),
        registry,
        daemon.as_ref().map(|file| (file.through_seq, file.synced_through)),
        recent.as_ref().map(|file| (file.through_seq, file.synced_through)),
    ];
    let known = known.into_iter().flatten().fold(Known::from(0), |known, (through, synced)| Known {
        assigned: known.assigned.max(through),
        // A log that could not be written may end before them.
        synced: known.synced.max(synced.unwrap_or(through).min(through)),
    });
    let limits = Limits {
        // Only whole segments are removed, so one alone must not fill the log.
        segment_bytes: config.limits.event_segment_bytes.min(config.limits.event_log_bytes / 2),
        total_bytes: config.limits.event_log_bytes,
    };
    let logs = &paths.events_dir;
    let failed = |source| OpenError::File { path: logs.clone(), source };
    if *logs != paths.logs_dir && journal::relocate(&loading.disk, &paths.logs_dir, logs).map_err(failed)? {
        let (from, to) = (paths.logs_dir.display(), logs.display());
        let message = format!(
            "The event log was moved from {from} to {to}, because backups leave out the directory of the logs."
        );
        let (skipped_from, skipped_through) = (None, None);
        let moved = DaemonEvent::StateRecovered { message, skipped_from, skipped_through };
        loading.notices.push(NewEvent::from(moved));
    }
    let opened = Journal::open(logs, loading.disk.clone(), limits, known, config.event_cache_size).map_err(
        |failure| match failure {
            OpenFailure::Newer { version, known } => {
                OpenError::Newer { path: logs.join("event-log.json"), version, known }
            }
            OpenFailure::Io(source) => failed(source),
        },
    )?;
    loading.notices.extend(opened.notices.into_iter().map(|notice| {
        let (skipped_from, skipped_through) = notice.skipped.unzip();
        let message = notice.message;
        NewEvent::from(DaemonEvent::StateRecovered { message, skipped_from, skipped_through })
    }));
    let journal = opened.journal;

    let mut state = State::restore(records, daemon);
    let from = state.through;
    let fold = |_, json: &[u8]| {
        // Most events change nothing; of those only the type is read.
        if is_foldable(json)
            && let Ok(event) = serde_json::from_slice::<Event>(json)
        {
            event.apply_to(&mut state);
        }
        true
    };
    journal.log().scan(from, fold).map_err(failed)?;
    state.skip_through(journal.log().bounds().latest);
    let daemon_id = match identity {
        Some(_) => None,
        None => last_daemon_id(&journal).map_err(failed)?,
    };
    let identity = loading.identity(config, identity, daemon_id)?;
    let Loading { disk, notices } = loading;
    Ok(Opened { disk, identity, state, journal, hooks, notices, known_damage: opened.known_damage })
}

/// The last daemon ID in the log.
fn last_daemon_id(journal: &Journal) -> io::Result<Option<String>> {
    let mut daemon_id = None;
    let read = |_, json: &[u8]| {
        if is_foldable(json)
            && let Ok(event) = serde_json::from_slice::<Event>(json)
            && let Some(EventDetail::Daemon(DaemonEvent::Started { daemon_id: found, .. })) = event.read()
            && !found.is_empty()
        {
            daemon_id = Some(found);
        }
        true
    };
    journal.log().scan(0, read)?;
    Ok(daemon_id)
}

/// Whether an event may change a record: the kinds of which there are many do not.
pub(in crate::daemon) fn is_foldable(json: &[u8]) -> bool {
    // The type follows the sequence number, the time and the level.
    let (head, _) = json.split_at(json.len().min(160));
    let passes = |name: &str| memchr::memmem::find(head, name.as_bytes()).is_some();
    let is_of = |method: &str| {
        let name = format!("\"notificationMethod\":\"{method}");
        memchr::memmem::find(json, name.as_bytes()).is_some()
    };
    // The types of all deltas end alike.
    !passes(".delta\",\"message\":")
        && (!passes("\"type\":\"app-server.notification\"")
            || PREFIXES_CHANGING_RECORDS.iter().any(|method| is_of(method)))
}

/// The newest event that a file includes, and the newest one that was in the log on disk.
type Through = (u64, Option<u64>);

/// What follows if a file of the records is not usable.
const REBUILT: &str = "it is rebuilt from the event log";

struct Loading {
    disk: Disk,
    notices: Vec<NewEvent>,
}

impl Loading {
    /// Loads a file that is rebuilt from the event log if it is not usable.
    fn load<T: serde::de::DeserializeOwned + Layout>(&mut self, path: &Path) -> Result<Option<T>, OpenError> {
        self.load_own(path, REBUILT)
    }

    /// Loads a file; `consequence` is a clause that says what follows if it is not usable.
    fn load_own<T: serde::de::DeserializeOwned + Layout>(
        &mut self,
        path: &Path,
        consequence: &str,
    ) -> Result<Option<T>, OpenError> {
        self.take(path, consequence, snapshot::load(&self.disk, path))
    }

    /// What was loaded, if it is usable.
    fn take<T>(
        &mut self,
        path: &Path,
        consequence: &str,
        loaded: io::Result<Loaded<T>>,
    ) -> Result<Option<T>, OpenError> {
        let loaded = loaded.map_err(|source| OpenError::File { path: path.to_owned(), source })?;
        let notice = match loaded {
            Loaded::Good(value) => return Ok(Some(value)),
            Loaded::Missing => return Ok(None),
            Loaded::SetAside { reason, moved_to } => format!(
                "{} could not be read ({reason}) and was moved to {}; {consequence}.",
                path.display(),
                moved_to.display(),
            ),
            Loaded::Newer { version, known } => {
                return Err(OpenError::Newer { path: path.to_owned(), version, known });
            }
        };
        let (skipped_from, skipped_through) = (None, None);
        let notice = DaemonEvent::StateRecovered { message: notice, skipped_from, skipped_through };
        self.notices.push(notice.into());
        Ok(None)
    }

    /// The records, and which events the session registry includes: without `records` it is what is left of them, and up to
    /// version 3 it was all of them.
    fn registry(
        &mut self,
        path: &Path,
        records: Option<RecordsFile>,
    ) -> Result<(Option<RecordsFile>, Option<Through>), OpenError> {
        if records.is_some() {
            let loaded = snapshot::load_registry_head(&self.disk, path);
            let head = self.take(path, REBUILT, loaded)?;
            return Ok((records, head.map(|head| (head.through_seq, head.synced_through))));
        }
        let found: Option<FoundRegistry> = self.load(path)?;
        let through = found.as_ref().map(FoundRegistry::through);
        Ok((found.map(FoundRegistry::into_records), through))
    }

    /// The identity: the known one, else the last one in the log, else a new one.
    fn identity(
        &self,
        config: &Config,
        known: Option<Identity>,
        daemon_id: Option<String>,
    ) -> Result<Identity, OpenError> {
        let path = &config.paths.identity;
        let identity = match known.clone() {
            Some(identity) => {
                Identity { format_version: Identity::VERSION, version: config.version.to_owned(), ..identity }
            }
            None => Identity {
                format_version: Identity::VERSION,
                daemon_id: daemon_id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
                node_id: config.node_id.clone(),
                repo_root: config.paths.repo_root.as_ref().map(|path| path.to_string_lossy().into_owned()),
                created_at: rfc3339_now(),
                version: config.version.to_owned(),
            },
        };
        if known.as_ref() != Some(&identity) {
            snapshot::save(&self.disk, path, &identity)
                .map_err(|source| OpenError::File { path: path.clone(), source })?;
        }
        Ok(identity)
    }
}
