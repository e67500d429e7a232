//! Reading back what an earlier life left on disk.

use std::io;
use std::path::{Path, PathBuf};

use super::drafts;
use super::recorder::now;
use crate::config::Config;
use crate::journal::Journal;
use crate::state::snapshot::{self, DaemonFile, Identity, Loaded, RecentFile, RegistryFile};
use crate::state::{Draft, Event, State};

/// Why the daemon cannot use its folders.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be used: {source}.", path.display())]
pub struct OpenError {
    /// The file or folder.
    pub path: PathBuf,
    /// What the system says.
    #[source]
    pub source: io::Error,
}

/// What was found on disk.
pub(crate) struct Opened {
    pub(crate) identity: Identity,
    pub(crate) state: State,
    pub(crate) journal: Journal,
    /// What the owner should know about it.
    pub(crate) notices: Vec<Draft>,
}

/// Opens the folders, makes what is missing, and brings the records up to the log.
pub(crate) fn open(config: &Config) -> Result<Opened, OpenError> {
    let paths = &config.paths;
    for folder in [&paths.state_dir, &paths.logs_dir] {
        make_folder(folder).map_err(|source| OpenError { path: folder.clone(), source })?;
    }
    let mut notices = Vec::new();
    let identity = identity(config, &mut notices)?;
    let registry: Option<RegistryFile> = load(&paths.session_registry, &mut notices)?;
    let daemon: Option<DaemonFile> = load(&paths.daemon_state, &mut notices)?;
    let recent: Option<RecentFile<serde_json::Value>> = load(&paths.recent_events, &mut notices)?;

    // Numbers are never used twice, so none of the files may know a higher one than the log begins with.
    let highest = [
        registry.as_ref().map_or(0, |file| file.through_seq),
        daemon.as_ref().map_or(0, |file| file.through_seq),
        recent.as_ref().map_or(0, |file| file.through_seq),
    ];
    let highest = highest.into_iter().max().unwrap_or(0);
    let log = &paths.structured_event_log;
    let failed = |source| OpenError { path: log.clone(), source };
    let opened = Journal::open(log, highest, config.event_cache_size).map_err(failed)?;
    if opened.torn_bytes > 0 {
        let message = format!(
            "The last line of {} was unfinished; {} bytes were cut off.",
            log.display(),
            opened.torn_bytes
        );
        notices.push(drafts::state_notice(message));
    }
    let journal = opened.journal;
    let mut state = match (registry, daemon) {
        (Some(registry), Some(daemon)) => State::restore(registry, daemon),
        // One alone says nothing about the other; the log has both.
        _ => State::default(),
    };
    let from = state.through;
    let fold = |_, json: &[u8]| {
        if let Ok(event) = serde_json::from_slice::<Event>(json) {
            state.apply(event.seq, &event.created_at, &event.change());
        }
        true
    };
    journal.reader().scan(from, fold).map_err(failed)?;
    Ok(Opened { identity, state, journal, notices })
}

fn identity(config: &Config, notices: &mut Vec<Draft>) -> Result<Identity, OpenError> {
    let path = &config.paths.identity;
    let known: Option<Identity> = load(path, notices)?;
    let identity = match known.clone() {
        Some(identity) => Identity { version: config.version.to_owned(), ..identity },
        None => Identity {
            daemon_id: uuid::Uuid::new_v4().to_string(),
            node_id: config.node_id.clone(),
            repo_root: config.paths.repo_root.as_ref().map(|path| path.to_string_lossy().into_owned()),
            created_at: now(),
            version: config.version.to_owned(),
        },
    };
    if known.as_ref() != Some(&identity) {
        snapshot::save(path, &identity).map_err(|source| OpenError { path: path.clone(), source })?;
    }
    Ok(identity)
}

fn load<T: serde::de::DeserializeOwned>(
    path: &Path,
    notices: &mut Vec<Draft>,
) -> Result<Option<T>, OpenError> {
    let loaded = snapshot::load(path).map_err(|source| OpenError { path: path.to_owned(), source })?;
    if let Loaded::SetAside { reason, moved_to } = &loaded {
        notices.push(drafts::state_notice(format!(
            "{} could not be read ({reason}) and was moved to {}; it is rebuilt from the event log.",
            path.display(),
            moved_to.display(),
        )));
    }
    Ok(loaded.good())
}

/// Makes a folder that only its owner can enter.
fn make_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}
