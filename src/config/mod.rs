//! Flags over variables over defaults, into one validated [`Config`].
//!
//! This is the only room that reads the environment, through [`Environment`], so that tests bring their own.
//! Reading the settings looks at the file system (a folder must exist) and creates nothing.

mod address;
mod endpoint;
mod error;
mod origin;
mod platform;
mod program;
mod redact;
mod report;
mod resolve;
mod service_env;
pub mod settings;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use address::{AddressError, LocalApiBase, RESERVED_PATHS, StreamPathError, parse_event_stream_path};
pub use endpoint::{ChildStrategy, Endpoint, EndpointError, ServerEndpoint};
pub use error::{ConfigError, ValueError};
pub use origin::OriginError;
pub use platform::Platform;
pub use program::find_program;
pub use report::{ConfigReport, ConfigView, PathsView, ReportRow, ServerView, ServiceView};
pub use service_env::UserEnv;
pub use settings::{Environment, ProcessEnvironment, Settings, Source};

/// The most events `--event-cache-size` may keep at hand: each greeting of a WebSocket carries all of them.
pub const MAX_EVENT_CACHE_SIZE: usize = 10_000;

/// The version with the commit, such as `1.2.3 (abc1234)`; without it where the build did not know it.
pub const LONG_VERSION: &str = env!("CODEXD_LONG_VERSION");

/// Everything that can be set, validated.
///
/// `Debug` hides the secrets of the endpoint.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of this machine in the daemon's identity.
    pub node_id: String,
    /// Version of codexd.
    pub version: &'static str,
    /// The commit it was built from, empty where the build did not know it.
    pub commit: &'static str,
    /// How many recent events are kept at hand, 1 to [`MAX_EVENT_CACHE_SIZE`].
    pub event_cache_size: usize,
    /// The folders and files.
    pub paths: Paths,
    /// The listener.
    pub service: ServiceConfig,
    /// The app-server.
    pub server: ServerConfig,
    /// How much is kept, and how long is waited.
    pub limits: LimitsConfig,
    /// Whether a terminal should be shown no colours: `NO_COLOR` is set (no-color.org), or `TERM` is `dumb`.
    pub no_color: bool,
    /// What codexd writes to stderr about itself, such as `info` or `codexd=debug`.
    pub log_filter: String,
    /// What is broken on purpose, to see that the tests notice.
    #[cfg(feature = "mutations")]
    pub mutation: Option<String>,
    report: Vec<ReportRow>,
}

/// The folders and files of one daemon; all absolute, none of them need exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The repository codexd serves, if one is set.
    pub repo_root: Option<PathBuf>,
    /// Folder of the logs.
    pub logs_dir: PathBuf,
    /// Folder of the state.
    pub state_dir: PathBuf,
    /// The event log, one event a line.
    pub structured_event_log: PathBuf,
    /// What the app-server wrote to its standard output.
    pub stdout_log: PathBuf,
    /// What the app-server wrote to its standard error.
    pub stderr_log: PathBuf,
    /// Who this daemon is.
    pub identity: PathBuf,
    /// How the daemon and the app-server are.
    pub daemon_state: PathBuf,
    /// The sessions.
    pub session_registry: PathBuf,
    /// The last events.
    pub recent_events: PathBuf,
    /// Which app-server runs; there is one only as long as one does.
    pub child: PathBuf,
}

impl Paths {
    /// The files in the given folders, under the names of the contract.
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

/// How much is kept, and how long is waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Size at which the event log begins another file, in bytes.
    pub event_segment_bytes: u64,
    /// Size of the whole event log, in bytes.
    pub event_log_bytes: u64,
    /// Size at which a log of the app-server's output begins anew, in bytes.
    pub output_log_bytes: u64,
    /// How many closed sessions are remembered.
    pub closed_sessions: usize,
    /// How long a client of the event stream may take nothing.
    pub client_timeout: Duration,
    /// How often a WebSocket client is pinged.
    pub ping_interval: Duration,
    /// How long running turns may go on at a stop.
    pub drain_timeout: Duration,
    /// After what silence of a turn an event tells of it.
    pub stall_timeout: Duration,
    /// How long a request of the app-server waits for an answer.
    pub request_timeout: Duration,
    /// How long the app-server may take to answer `initialize`.
    pub start_timeout: Duration,
    /// How long the app-server may take to answer a call.
    pub call_timeout: Duration,
    /// How long the app-server may say nothing before it is asked whether it is still there.
    pub check_interval: Duration,
    /// Size of the longest message of the app-server that is taken, in bytes.
    pub line_cap: usize,
}

/// Where the service listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceConfig {
    /// The address of the listener.
    pub local_api_base: LocalApiBase,
    /// The path of the event WebSocket, without a final slash.
    pub event_stream_path: String,
    /// The origins of web pages that may use the service beside its own, as browsers write them.
    pub allowed_origins: Vec<String>,
    /// The file of the token that requests need; without one they need none.
    pub auth_token_file: Option<PathBuf>,
    /// How many connections there may be at once.
    pub connections: usize,
    /// How many WebSockets there may be at once.
    pub websockets: usize,
    /// Size of the longest body of a request, in bytes.
    pub body_bytes: usize,
}

/// The app-server and how it is run.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// How codexd talks to Codex.
    pub mode: ServerMode,
    /// Where the app-server is; `Display` is the form for people, files and answers.
    pub endpoint: ServerEndpoint,
    /// Whether codexd starts it.
    pub strategy: ChildStrategy,
    /// The program: a name to look up with [`find_program`], or an absolute path.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// The folder it starts in: absolute, and there when the settings were read.
    pub cwd: PathBuf,
    /// What is needed of the daemon's environment to start it; the rest is inherited.
    pub child_environment: ChildEnvironment,
}

/// What codexd itself needs of the environment that the app-server inherits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChildEnvironment {
    /// `PATH`, for [`find_program`].
    pub path: Option<OsString>,
    /// The directory of Codex's own files: `CODEX_HOME`, else `.codex` in the home directory.
    pub codex_home: Option<PathBuf>,
}

/// How codexd talks to Codex. The retired modes of earlier versions are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerMode {
    /// Through `codex app-server`.
    AppServer,
}

impl ServerMode {
    /// The word for it in settings, files and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AppServer => "app-server",
        }
    }
}

impl Config {
    /// Reads the settings: a flag wins over its variable, the variable over the default.
    ///
    /// A variable that is blank counts as not set; texts are trimmed, and paths are taken to the byte. Relative paths are seen from
    /// `current_dir`, which is absolute.
    pub fn resolve(
        settings: &Settings,
        environment: &dyn Environment,
        current_dir: &Path,
    ) -> Result<Self, ConfigError> {
        resolve::resolve(settings, environment, current_dir, Platform::current())
    }

    /// [`Config::resolve`] with the environment and the current folder of this process.
    pub fn from_process(settings: &Settings) -> Result<Self, ConfigError> {
        let current_dir =
            std::env::current_dir().map_err(|source| ConfigError::CurrentDirectory { source })?;
        Self::resolve(settings, &ProcessEnvironment, &current_dir)
    }

    /// Every setting with its value and where that came from.
    pub fn report(&self) -> ConfigReport<'_> {
        ConfigReport::new(&self.report)
    }

    /// The configuration as the status snapshot shows it.
    pub fn view(&self) -> ConfigView {
        ConfigView::new(self)
    }
}
