//! [`Config`] and its parts: the validated settings of one process.
//!
//! `resolve.rs` builds them and `report.rs` shows them; every other layer reads the fields.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::address::LocalApiBase;
use super::endpoint::{ChildStrategy, ServerEndpoint};
use super::settings::Source;

/// The maximum of `--event-cache-size`: each hello frame of a WebSocket carries all these events.
pub const MAX_EVENT_CACHE_SIZE: usize = 10_000;

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
    /// How many recent events are cached, 1 to [`MAX_EVENT_CACHE_SIZE`].
    pub event_cache_size: usize,
    /// The directories and files.
    pub paths: Paths,
    /// The listener.
    pub service: ServiceConfig,
    /// The app-server.
    pub server: ServerConfig,
    /// Sizes and timeouts.
    pub limits: LimitsConfig,
    /// Whether terminal output has no colors: `NO_COLOR` is set (no-color.org), or `TERM` is `dumb`.
    pub no_color: bool,
    /// The filter of the log on stderr, such as `info` or `codexd=debug`.
    pub log_filter: String,
    /// The fault to inject, so that tests can be shown to detect it.
    #[cfg(feature = "mutations")]
    pub mutation: Option<String>,
    pub(super) report: Vec<ReportRow>,
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
    /// The recent events.
    pub recent_events: PathBuf,
    /// The running app-server; the file exists only while one runs.
    pub child: PathBuf,
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
            recent_events: state_dir.join("recent-events.json"),
            child: state_dir.join("child.json"),
            repo_root,
            logs_dir,
            state_dir,
        }
    }
}

/// Sizes and timeouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitsConfig {
    /// The size at which the event log starts a new segment, in bytes.
    pub event_segment_bytes: u64,
    /// The size of the whole event log, in bytes.
    pub event_log_bytes: u64,
    /// The size at which an output log of the app-server is rotated, in bytes.
    pub output_log_bytes: u64,
    /// How many closed sessions are kept.
    pub closed_sessions: usize,
    /// How long a client of the event stream may accept no data.
    pub client_timeout: Duration,
    /// The interval between pings on a WebSocket.
    pub ping_interval: Duration,
    /// How long running turns may continue after a stop was requested.
    pub drain_timeout: Duration,
    /// After how long without activity a turn is reported as stalled.
    pub stall_timeout: Duration,
    /// How long a request of the app-server waits for an answer.
    pub request_timeout: Duration,
    /// How long the app-server may take to answer `initialize`.
    pub start_timeout: Duration,
    /// How long the app-server may take to answer a call.
    pub call_timeout: Duration,
    /// How long the app-server may be silent before its liveness is checked.
    pub check_interval: Duration,
    /// The maximum size of a message of the app-server, in bytes.
    pub line_cap: usize,
}

/// The listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Its address.
    pub local_api_base: LocalApiBase,
    /// The path of the event stream, without a trailing slash.
    pub event_stream_path: String,
    /// The origins of web pages that may use the service besides its own, as browsers write them.
    pub allowed_origins: Vec<String>,
    /// The file of the token that requests need; no token is needed if it is `None`.
    pub auth_token_file: Option<PathBuf>,
    /// The maximum number of connections.
    pub connections: usize,
    /// The maximum number of WebSockets.
    pub websockets: usize,
    /// The maximum size of a request body, in bytes.
    pub body_bytes: usize,
}

/// The app-server.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// How codexd talks to Codex.
    pub mode: ServerMode,
    /// Its endpoint; use `Display` for output, files and responses.
    pub endpoint: ServerEndpoint,
    /// Whether codexd starts it.
    pub strategy: ChildStrategy,
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
    /// The directory of Codex's own files: `CODEX_HOME`, or `.codex` in the home directory.
    pub codex_home: Option<PathBuf>,
}

/// How codexd talks to Codex. The retired modes of earlier versions are rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerMode {
    /// Through `codex app-server`.
    AppServer,
}

impl ServerMode {
    /// The value in settings, files and responses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AppServer => "app-server",
        }
    }
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReportRow {
    /// The name of the setting: its flag without dashes, or `log-filter`.
    pub name: &'static str,
    /// The value in use, without secrets: a string, a number, an array of strings, or null.
    pub value: serde_json::Value,
    /// The source: a flag, an environment variable, `default`, or `default from NAME`.
    #[serde(serialize_with = "source_text")]
    pub source: Source,
}

fn source_text<S: Serializer>(source: &Source, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(source)
}
