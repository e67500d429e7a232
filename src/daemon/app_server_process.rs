//! The app-server as this daemon has it: how it is run, which process it is, and why it cannot be called.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::DaemonError;
use crate::codex::protocol::environment;
use crate::codex::{
    self, Address, App, Availability, ChildRecord, Identity, Plan, Program, RecordChild, Waiting,
};
use crate::config::{Config, Endpoint, find_program, settings};
use crate::daemon::codex_health::{Codex, CodexHealth};
use crate::storage::Disk;
use crate::time;

/// The version of the file's layout that this program writes and reads.
const VERSION: u32 = 1;
/// How long an app-server that an earlier life left may take to end by itself, as it does when its stdin ends.
const GRACE: Duration = Duration::from_millis(500);

/// What `child.json` holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChildFile {
    format_version: u32,
    pid: u32,
    start_time: String,
    executable: PathBuf,
    generation: u64,
    instance: String,
}

/// How the app-server is run for the daemon of this name; `guard` is this very program.
///
/// `codex` is told of each start before it happens.
pub(crate) fn plan(
    config: &Arc<Config>,
    daemon_id: &str,
    disk: &Disk,
    guard: Option<PathBuf>,
    codex: &Arc<Codex>,
) -> Plan {
    let codex = Arc::clone(codex);
    let starts = move |program: Option<&Path>| codex.process_starts(program);
    plan_recorded(config, daemon_id, guard, keeper(disk.clone(), config.paths.child.clone()), starts)
}

/// The same for a look at an app-server of which nothing is remembered: that of a running daemon stays its own.
pub(crate) fn plan_for_inspection(config: &Arc<Config>) -> Plan {
    plan_recorded(config, "none", None, Arc::new(|_| {}), |_| {})
}

fn plan_recorded(
    config: &Arc<Config>,
    daemon_id: &str,
    guard: Option<PathBuf>,
    record: RecordChild,
    starts: impl Fn(Option<&Path>) + Send + Sync + 'static,
) -> Plan {
    let server = &config.server;
    let app = match server.endpoint.target() {
        Endpoint::WebSocket(url) => App::External(Address::Url(url.clone())),
        Endpoint::Unix(path) => App::External(Address::Unix(path.clone())),
        Endpoint::Stdio => {
            let find = {
                let config = Arc::clone(config);
                move || {
                    let server = &config.server;
                    let path = server.child_environment.path.as_deref();
                    let found = find_program(&server.command, path, &server.cwd);
                    starts(found.as_deref().ok());
                    found.map_err(|error| error.to_string())
                }
            };
            App::Spawn(Program {
                find: Arc::new(find),
                arguments: server.args.clone(),
                directory: server.cwd.clone(),
                environment: vec![
                    ("BAA_CODEXD_DAEMON_ID".to_owned(), daemon_id.to_owned()),
                    ("BAA_CODEXD_SERVER_ENDPOINT".to_owned(), server.endpoint.to_string()),
                ],
                // Not the token itself, but commands of a model need not be led to it.
                removed_environment: std::iter::once(settings::AUTH_TOKEN_FILE.variable)
                    .chain(environment::OF_A_THREAD)
                    .map(str::to_owned)
                    .collect(),
                instance: uuid::Uuid::new_v4().to_string(),
                guard,
                record,
            })
        }
    };
    let limits = &config.limits;
    Plan {
        app,
        version: config.version.to_owned(),
        line_cap: limits.line_cap,
        start_timeout: limits.start_timeout,
        start_timeout_hint: format!(
            "--{} or {} sets the time of the first",
            settings::START_TIMEOUT.name,
            settings::START_TIMEOUT.variable
        ),
        call_timeout: limits.call_timeout,
        check_interval: limits.check_interval,
    }
}

/// The directory of the files that the app-server reads at its start, where it is a process of ours.
pub(crate) fn codex_home(config: &Config) -> Option<PathBuf> {
    match config.server.endpoint.target() {
        Endpoint::Stdio => config.server.child_environment.codex_home.clone(),
        Endpoint::WebSocket(_) | Endpoint::Unix(_) => None,
    }
}

/// Keeps the file up to date.
fn keeper(disk: Disk, path: PathBuf) -> RecordChild {
    Arc::new(move |record| {
        let kept = match record {
            Some(record) => ChildFile::of(record).save(&disk, &path),
            None => remove(&disk, &path),
        };
        // Work goes on: the guard ends what is left when codexd is killed.
        if let Err(error) = kept {
            tracing::warn!(path = %path.display(), %error, "it is not on disk which app-server runs");
        }
    })
}

fn remove(disk: &Disk, path: &Path) -> std::io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl ChildFile {
    fn of(record: &ChildRecord) -> Self {
        let Identity { pid, start_time, executable } = record.identity.clone();
        let (generation, instance) = (record.generation, record.instance.clone());
        Self { format_version: VERSION, pid, start_time, executable, generation, instance }
    }

    pub(crate) fn save(&self, disk: &Disk, path: &Path) -> std::io::Result<()> {
        disk.replace(path, &serde_json::to_vec(self)?)
    }

    /// What a text says, if it says what can be used.
    pub(crate) fn read(text: &[u8]) -> Option<Self> {
        let file = serde_json::from_slice::<Self>(text).ok()?;
        // An empty name would mark everybody whose variable is empty.
        (file.format_version == VERSION && uuid::Uuid::parse_str(&file.instance).is_ok()).then_some(file)
    }
}

/// Ends the app-server that an earlier life of the daemon left, and everything it started; blocks.
///
/// Exactly that process: one that merely has its number now is left alone.
pub(crate) fn end_leftover(disk: &Disk, path: &Path) {
    let ended = disk.read(path).and_then(|text| {
        let Some(text) = text else { return Ok(()) };
        match ChildFile::read(&text) {
            Some(ChildFile { pid, start_time, executable, instance, .. }) => {
                let leader = Identity { pid, start_time, executable };
                let ended = codex::end_leftover(&leader, &instance, GRACE)?;
                if ended > 0 {
                    tracing::warn!(ended, "ended the processes that an earlier life of codexd left behind");
                }
            }
            None => tracing::warn!(path = %path.display(), "the file says nothing that can be used"),
        }
        remove(disk, path)
    });
    if let Err(error) = ended {
        tracing::warn!(path = %path.display(), %error, "what an earlier life left behind may still run");
    }
}

/// Why the app-server cannot be called, as sentences; `None` when it can.
pub(crate) fn unavailable_reason(now: &Availability) -> Option<String> {
    Some(match now {
        Availability::Ready(_) => return None,
        Availability::Starting { reason: None } => "The app-server is being started.".to_owned(),
        Availability::Starting { reason: Some(cause) } => format!("{cause} It is being started again."),
        Availability::Waiting(Waiting { reason, until: None, .. }) => reason.clone(),
        Availability::Waiting(Waiting { reason, until: Some(until), failures, crash_loop, .. }) => {
            let seconds = whole_seconds(time::time_left(*until, Timestamp::now()));
            match crash_loop {
                false => format!("{reason} The next try is in {seconds} s."),
                true => format!(
                    "{reason} It died {failures} times in a row, so it is tried once a minute; the next try is in \
                     {seconds} s."
                ),
            }
        }
        Availability::Stopped { reason } => reason.clone(),
    })
}

/// What a caller is told who needs the app-server while it cannot be called.
pub(crate) fn unavailable_error(now: &Availability, health: &CodexHealth) -> DaemonError {
    DaemonError::Unavailable { reason: health.sentence(), retry_after: time_until_next_start(now) }
}

/// How long until the app-server is started again, where that is known.
pub(crate) fn time_until_next_start(now: &Availability) -> Option<Duration> {
    match now {
        Availability::Waiting(Waiting { until: Some(until), .. }) => {
            Some(time::time_left(*until, Timestamp::now()))
        }
        _ => None,
    }
}

fn whole_seconds(time: Duration) -> u64 {
    time.as_millis().div_ceil(1000).max(1).try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(until: Option<Timestamp>, crash_loop: bool) -> Availability {
        let (reason, stderr_tail) = ("It died.".to_owned(), Vec::new());
        let failure = codex::Failure::Ended;
        let waiting = Waiting { reason, until, failures: 7, crash_loop, stderr_tail, failure, generation: 1 };
        Availability::Waiting(waiting)
    }

    #[test]
    fn the_reason_says_when_it_is_tried_again() {
        let soon = Some(time::after(Duration::from_millis(1900)));
        assert_eq!(unavailable_reason(&waiting(None, false)).unwrap(), "It died.");
        assert_eq!(unavailable_reason(&waiting(soon, false)).unwrap(), "It died. The next try is in 2 s.");
        let reason = unavailable_reason(&waiting(soon, true)).unwrap();
        assert!(reason.contains("7 times") && reason.contains("once a minute") && reason.ends_with("2 s."));
        let left = time_until_next_start(&waiting(soon, true)).unwrap();
        assert!(left > Duration::from_secs(1) && left <= Duration::from_millis(1900), "{left:?}");
        let passed = Some(Timestamp::now() - Duration::from_secs(5));
        assert_eq!(unavailable_reason(&waiting(passed, false)).unwrap(), "It died. The next try is in 1 s.");
        assert_eq!(time_until_next_start(&waiting(passed, false)), Some(Duration::ZERO));
    }
}
