//! [`Config`] and its parts: the validated settings of one process.
//!
//! `resolve.rs` builds them and `report.rs` shows them; every other layer reads the fields.

use std::ffi::OsString;
use std::path::PathBuf;

use super::endpoint::{AllowedCalls, ChildStrategy, KeepAwake, ServerEndpoint};
use super::report::Report;
use super::settings::{HttpConfig, LimitsConfig, ServiceConfig};

/// The version with the commit, such as `1.2.3 (abc1234)`; without the commit if the build did not know it.
pub const LONG_VERSION: &str = env!("CODEXD_LONG_VERSION");

/// All settings, validated.
///
/// `Debug` hides the secrets of the endpoint.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name of this machine in the daemon's identity.
    pub node_id: String,
    /// The version of codexd.
    pub version: &'static str,
    /// The commit of the build; empty if the build did not know it.
    pub commit: &'static str,
    /// How many recent events are cached, 1 to [`MAX_EVENT_CACHE_SIZE`](super::MAX_EVENT_CACHE_SIZE).
    pub event_cache_size: usize,
    /// Whether the machine is kept awake while turns run.
    pub keep_awake: KeepAwake,
    /// The directories and files.
    pub paths: Paths,
    /// How clients reach the daemon.
    pub service: ServiceConfig,
    /// The rest of the HTTP service.
    pub http: HttpConfig,
    /// The app-server.
    pub server: ServerConfig,
    /// Sizes and timeouts.
    pub limits: LimitsConfig,
    /// The filter of the log on stderr, such as `info` or `codexd=debug`.
    pub log_filter: String,
    /// The fault to inject, so that tests can be shown to detect it.
    #[cfg(feature = "mutations")]
    pub mutation: Option<String>,
    /// Every setting with its value and source.
    pub report: Report,
}

/// The directories and files of one daemon; all absolute, none need exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The repository that codexd serves, if one is set.
    pub repo_root: Option<PathBuf>,
    /// The directory of the logs.
    pub logs_dir: PathBuf,
    /// The directory of the state files.
    pub state_dir: PathBuf,
    /// The directory of the event log and of all that belongs to it; the directory of the logs, except on macOS by
    /// default.
    pub events_dir: PathBuf,
    /// The event log, one event per line.
    pub structured_event_log: PathBuf,
    /// The stdout of the app-server.
    pub stdout_log: PathBuf,
    /// The stderr of the app-server.
    pub stderr_log: PathBuf,
    /// The identity of the daemon.
    pub identity: PathBuf,
    /// The state of the daemon and the app-server.
    pub daemon_state: PathBuf,
    /// The sessions.
    pub session_registry: PathBuf,
    /// All records.
    pub records: PathBuf,
    /// The recent events.
    pub recent_events: PathBuf,
    /// The directory of the attachments.
    pub attachments: PathBuf,
    /// The running app-server; the file exists only while one runs.
    pub child: PathBuf,
    /// The hooks.
    pub hooks: PathBuf,
    /// How far each hook has got.
    pub hook_cursors: PathBuf,
    /// The shared app-server that was joined last.
    pub shared_server: PathBuf,
    /// The output of the shared app-server, where codexd started it.
    pub shared_server_log: PathBuf,
}

impl Paths {
    /// The files in these directories, named as in the contract.
    pub fn new(repo_root: Option<PathBuf>, logs_dir: PathBuf, state_dir: PathBuf) -> Self {
        Self {
            structured_event_log: logs_dir.join("events.jsonl"),
            stdout_log: logs_dir.join("stdout.log"),
            stderr_log: logs_dir.join("stderr.log"),
            identity: state_dir.join("identity.json"),
            daemon_state: state_dir.join("daemon-state.json"),
            session_registry: state_dir.join("session-registry.json"),
            records: state_dir.join("records.json"),
            recent_events: state_dir.join("recent-events.json"),
            attachments: logs_dir.join("attachments"),
            child: state_dir.join("child.json"),
            hooks: state_dir.join("hooks.json"),
            hook_cursors: state_dir.join("hook-cursors.json"),
            shared_server: state_dir.join("shared-server.json"),
            shared_server_log: logs_dir.join("app-server.log"),
            repo_root,
            events_dir: logs_dir.clone(),
            logs_dir,
            state_dir,
        }
    }

    /// The same with the event log in the state directory.
    pub(crate) fn with_events_in_state(self) -> Self {
        let events_dir = self.state_dir.join("log");
        Self {
            structured_event_log: events_dir.join("events.jsonl"),
            attachments: events_dir.join("attachments"),
            events_dir,
            ..self
        }
    }

    /// The files of another daemon, in a subdirectory of each directory.
    pub fn in_subdirectory(self, name: &str) -> Self {
        let has_events_in_state = self.events_dir != self.logs_dir;
        let paths = Self::new(self.repo_root, self.logs_dir.join(name), self.state_dir.join(name));
        if has_events_in_state { paths.with_events_in_state() } else { paths }
    }
}

/// The app-server.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Its endpoint; use `Display` for output, files and responses.
    pub endpoint: ServerEndpoint,
    /// Whether codexd starts it.
    pub strategy: ChildStrategy,
    /// Which of its methods clients may call.
    pub allowed_calls: AllowedCalls,
    /// The program: a name to find with [`super::find_program`], or an absolute path.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its working directory: absolute, and existing when the settings were read.
    pub cwd: PathBuf,
    /// The part of the daemon's environment that is needed to start it; it inherits the rest.
    pub child_environment: ChildEnvironment,
    /// Whether it is the demo and not Codex; no setting selects it, only the commands that start it.
    pub demo: bool,
}

/// The part of the inherited environment that codexd itself needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChildEnvironment {
    /// `PATH`, for [`super::find_program`].
    pub path: Option<OsString>,
    /// `.local/bin` in the home directory, where the README installs Codex; a shell that was open then does not have it in
    /// `PATH`.
    pub local_bin: Option<PathBuf>,
    /// The directory of Codex's own files: `CODEX_HOME`, or `.codex` in the home directory.
    pub codex_home: Option<PathBuf>,
}
