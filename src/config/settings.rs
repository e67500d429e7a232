//! The settings: flag, environment variable, default, range and help text of each, declared at its field.
//!
//! clap parses them; the doc comments are the help texts. [`Config::resolve`](super::Config::resolve) adds the defaults
//! that depend on other settings or on the machine. A new setting is one field here; the help, the report and the
//! service file follow from it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, FromArgMatches};
use serde::{Serialize, Serializer};

use super::address::LocalApiBase;
use super::endpoint::{AllowedCalls, ChildStrategy, KeepAwake, ServerEndpoint};
use super::parse::{
    MODE, address, allowed_calls, command, count, directory, endpoint, keep_awake, mode, path, seconds,
    strategy, stream_path, text,
};

/// The maximum of `--event-cache-size`: each hello frame of a WebSocket carries all these events.
pub const MAX_EVENT_CACHE_SIZE: usize = 10_000;

/// The environment variable of `--local-api-base`.
pub const LOCAL_API_BASE: &str = "BAA_CODEXD_LOCAL_API_BASE";
/// The default of [`ServiceConfig::local_api_base`].
pub const DEFAULT_LOCAL_API_BASE: &str = "http://127.0.0.1:4319";
/// The environment variable of `--auth-token-file`.
pub const AUTH_TOKEN_FILE: &str = "BAA_CODEXD_AUTH_TOKEN_FILE";
/// The name of the file with the token in the state directory, unless a setting names another path.
pub const AUTH_TOKEN_NAME: &str = "auth-token";
/// The environment variable of `--repo-root`.
pub(super) const REPO_ROOT: &str = "BAA_CODEXD_REPO_ROOT";
/// The environment variable of `--state-dir`.
pub(super) const STATE_DIR: &str = "BAA_CODEXD_STATE_DIR";
/// The environment variable of `--server-arg`.
pub const SERVER_ARGS: &str = "BAA_CODEXD_SERVER_ARGS";
/// The environment variable of `--start-timeout`.
pub const START_TIMEOUT: &str = "BAA_CODEXD_START_TIMEOUT";
/// The filter of codexd's log on stderr, which has no flag; `RUST_LOG` is for the app-server, which inherits it.
pub const LOG_FILTER: &str = "BAA_CODEXD_LOG";

/// All settings of a daemon, as given.
#[derive(Debug, Clone, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Settings {
    // Must be the first field: clap takes the values of the others out of the matches.
    #[command(flatten)]
    #[serde(skip)]
    pub(super) sources: Sources,
    /// The directories.
    #[command(flatten)]
    #[serde(flatten)]
    pub paths: PathSettings,
    /// Name of this machine in the daemon's identity
    #[arg(long, env = "BAA_NODE_ID", value_name = "NAME", default_value = "mini-main", value_parser = text,
          help_heading = "General")]
    pub node_id: String,
    /// Number of recent events to cache, 1 to 10000
    #[arg(long, env = "BAA_CODEXD_EVENT_CACHE_SIZE", value_name = "COUNT", default_value = "50",
          value_parser = count::<usize>(1..=MAX_EVENT_CACHE_SIZE as u64), help_heading = "General")]
    pub event_cache_size: usize,
    /// Whether the machine is kept from going to sleep by itself while turns run: auto or off
    ///
    /// By caffeinate, or by systemd-inhibit and gnome-session-inhibit, where they are installed.
    #[arg(long, env = "BAA_CODEXD_KEEP_AWAKE", value_name = "WHEN", default_value = "auto", value_parser = keep_awake,
          help_heading = "General")]
    pub keep_awake: KeepAwake,
    /// How clients reach the daemon.
    #[command(flatten)]
    #[serde(flatten)]
    pub service: ServiceConfig,
    /// The rest of the HTTP service.
    #[command(flatten)]
    #[serde(flatten)]
    pub http: HttpConfig,
    /// The app-server.
    #[command(flatten)]
    #[serde(flatten)]
    pub server: ServerSettings,
    /// Sizes and timeouts.
    #[command(flatten)]
    #[serde(flatten)]
    pub limits: LimitsConfig,
}

/// The directories, as given.
#[derive(Debug, Clone, Args, Serialize)]
#[command(next_help_heading = "Paths")]
#[serde(rename_all = "kebab-case")]
pub struct PathSettings {
    /// Repository that codexd serves; state and logs are then stored below it
    ///
    /// [default: none]
    #[arg(long, env = REPO_ROOT, value_name = "PATH", value_parser = path)]
    #[serde(serialize_with = "as_text")]
    pub repo_root: Option<PathBuf>,
    /// Directory of the event log and the app-server's output
    ///
    /// [default: codexd in BAA_LOGS_DIR, else logs/codexd in the repository, else the per-user log directory]
    #[arg(long, env = "BAA_CODEXD_LOGS_DIR", value_name = "PATH", value_parser = path)]
    #[serde(serialize_with = "as_text")]
    pub logs_dir: Option<PathBuf>,
    /// Directory of the state files: identity, sessions and others
    ///
    /// [default: codexd in BAA_STATE_DIR, else state/codexd in the repository, else the per-user state directory]
    #[arg(long, env = STATE_DIR, value_name = "PATH", value_parser = path)]
    #[serde(serialize_with = "as_text")]
    pub state_dir: Option<PathBuf>,
}

/// How clients reach the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize)]
#[command(next_help_heading = "HTTP")]
#[serde(rename_all = "kebab-case")]
pub struct ServiceConfig {
    /// Loopback address of the HTTP service; port 0 picks a free port
    #[arg(long, env = LOCAL_API_BASE, value_name = "URL", default_value = DEFAULT_LOCAL_API_BASE,
          value_parser = address)]
    #[serde(serialize_with = "as_display")]
    pub local_api_base: LocalApiBase,
    /// Path of the event WebSocket
    #[arg(long, env = "BAA_CODEXD_EVENT_STREAM_PATH", value_name = "PATH", default_value = "/v1/codexd/events",
          value_parser = stream_path)]
    pub event_stream_path: String,
    /// The token.
    #[command(flatten)]
    #[serde(flatten)]
    pub auth: AuthConfig,
}

/// The token that requests need.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize)]
#[command(next_help_heading = "HTTP")]
#[serde(rename_all = "kebab-case")]
pub struct AuthConfig {
    /// File with the token that every request except / and /healthz needs; "codexd token" creates it
    ///
    /// [default: none; requests need no token]
    #[arg(long, env = AUTH_TOKEN_FILE, value_name = "PATH", value_parser = path)]
    #[serde(serialize_with = "as_text")]
    pub auth_token_file: Option<PathBuf>,
}

/// The part of the HTTP service that its clients need not know.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize)]
#[command(next_help_heading = "HTTP")]
#[serde(rename_all = "kebab-case")]
pub struct HttpConfig {
    /// Origin of web pages that may use codexd, such as http://localhost:5173; may be repeated
    ///
    /// The environment variable takes a JSON array or words separated by spaces.
    ///
    /// [default: none]
    #[arg(long, env = "BAA_CODEXD_ALLOWED_ORIGINS", value_name = "ORIGIN", allow_hyphen_values = true)]
    pub allowed_origin: Vec<String>,
    /// Name under which a proxy or a forwarded port may reach codexd, such as codexd.example.org; may be repeated
    ///
    /// The Host of a request may be this name, with any port unless one is given here, and so may the Origin, with http
    /// or https. Only together with a token file. The environment variable takes a JSON array or words separated
    /// by spaces.
    ///
    /// [default: none]
    #[arg(long, env = "BAA_CODEXD_ALLOWED_HOSTS", value_name = "NAME")]
    pub allowed_host: Vec<String>,
    /// Another user of this machine who may use codexd with the token, by name or number; may be repeated
    ///
    /// For proxies and Prometheus, which packages run as users of their own. Only together with a token file.
    /// The environment variable takes a JSON array or words separated by spaces.
    ///
    /// [default: none; other users are refused where the system reports them]
    #[arg(long, env = "BAA_CODEXD_ALLOW_UIDS", value_name = "NAME")]
    pub allow_uid: Vec<String>,
    /// File with a second token, which reads and streams and changes nothing
    ///
    /// "codexd token" creates such a file. Only together with a token file.
    ///
    /// [default: none]
    #[arg(long, env = "BAA_CODEXD_READ_TOKEN_FILE", value_name = "PATH", value_parser = path)]
    #[serde(serialize_with = "as_text")]
    pub read_token_file: Option<PathBuf>,
    /// Maximum number of connections, including event streams
    ///
    /// Fewer are accepted if the limit of open files does not allow so many; the log says how many.
    #[arg(long, env = "BAA_CODEXD_CONNECTION_LIMIT", value_name = "COUNT", default_value = "1024",
          value_parser = count::<usize>(1..=100_000))]
    pub connection_limit: usize,
    /// Maximum number of WebSockets
    #[arg(long, env = "BAA_CODEXD_WEBSOCKET_LIMIT", value_name = "COUNT", default_value = "64",
          value_parser = count::<usize>(0..=100_000))]
    pub websocket_limit: usize,
    /// Maximum size of a request body; prompts with images are large
    #[arg(long, env = "BAA_CODEXD_BODY_LIMIT", value_name = "BYTES", default_value = "16777216",
          value_parser = count::<usize>(1024..=1 << 30))]
    pub body_limit: usize,
}

/// The app-server, as given.
#[derive(Debug, Clone, Args, Serialize)]
#[command(next_help_heading = "App-server")]
#[serde(rename_all = "kebab-case")]
pub struct ServerSettings {
    /// How codexd talks to Codex; app-server is the only mode
    #[arg(long, env = "BAA_CODEXD_MODE", value_name = "MODE", default_value = MODE, value_parser = mode)]
    pub mode: String,
    /// Endpoint of an external app-server (ws, wss, http, https or unix)
    ///
    /// unix:// alone is the control socket of Codex. It is only a label if the app-server is spawned.
    #[arg(long, env = "BAA_CODEXD_SERVER_ENDPOINT", value_name = "URL", default_value = "stdio://codex-app-server",
          value_parser = endpoint)]
    #[serde(serialize_with = "as_display")]
    pub server_endpoint: ServerEndpoint,
    /// spawn: start an own app-server; shared: use that of the machine; external: connect to a running one
    ///
    /// shared (Codex 0.160 or newer) connects to the control socket of Codex, as codex in a terminal does, and starts
    /// an app-server there if none runs; codexd never ends it.
    #[arg(long, env = "BAA_CODEXD_SERVER_STRATEGY", value_name = "STRATEGY", default_value = "spawn",
          value_parser = strategy)]
    pub server_strategy: ChildStrategy,
    /// Program to start: a name to look up in PATH, or a path
    #[arg(long, env = "BAA_CODEXD_SERVER_COMMAND", value_name = "COMMAND", default_value = "codex",
          value_parser = command)]
    pub server_command: String,
    /// Argument of that program; may be repeated
    ///
    /// The environment variable takes a JSON array or words separated by spaces.
    #[arg(long, env = SERVER_ARGS, value_name = "ARGUMENT", default_value = "app-server", allow_hyphen_values = true)]
    pub server_arg: Vec<String>,
    /// Working directory of that program
    ///
    /// [default: the repository, else the home directory]
    #[arg(long, env = "BAA_CODEXD_SERVER_CWD", value_name = "PATH", value_parser = directory)]
    #[serde(serialize_with = "as_text")]
    pub server_cwd: Option<PathBuf>,
    /// Methods that clients may call on the app-server: none, safe or all
    ///
    /// safe allows those that read, and those that do what a person does to a thread or a login: name, archive,
    /// compact, review, revert, goal, login. docs/api.md lists them.
    #[arg(long, env = "BAA_CODEXD_APP_SERVER_CALLS", value_name = "METHODS", default_value = "safe",
          value_parser = allowed_calls)]
    pub app_server_calls: AllowedCalls,
}

/// Sizes and timeouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args, Serialize)]
#[command(next_help_heading = "Limits")]
#[serde(rename_all = "kebab-case")]
pub struct LimitsConfig {
    /// Size at which the event log starts a new segment file
    #[arg(long, env = "BAA_CODEXD_EVENT_SEGMENT_BYTES", value_name = "BYTES", default_value = "33554432",
          value_parser = count::<u64>(4096..=1 << 30), help_heading = "Log")]
    pub event_segment_bytes: u64,
    /// Maximum size of the event log; the oldest segment files are removed
    #[arg(long, env = "BAA_CODEXD_EVENT_LOG_BYTES", value_name = "BYTES", default_value = "536870912",
          value_parser = count::<u64>(8192..=1 << 40), help_heading = "Log")]
    pub event_log_bytes: u64,
    /// Size at which stdout.log and stderr.log are rotated
    ///
    /// One older file of each is kept.
    #[arg(long, env = "BAA_CODEXD_OUTPUT_LOG_BYTES", value_name = "BYTES", default_value = "33554432",
          value_parser = count::<u64>(4096..=1 << 30), help_heading = "Log")]
    pub output_log_bytes: u64,
    /// Number of closed sessions to keep
    #[arg(long, env = "BAA_CODEXD_CLOSED_SESSION_LIMIT", value_name = "COUNT", default_value = "1000",
          value_parser = count::<usize>(0..=1_000_000))]
    pub closed_session_limit: usize,
    /// How long a client of the event stream may not read before it is disconnected
    #[arg(long, env = "BAA_CODEXD_CLIENT_TIMEOUT", value_name = "SECONDS", default_value = "30",
          value_parser = seconds(1..=3600))]
    pub client_timeout: Duration,
    /// Interval between pings to WebSocket clients
    ///
    /// A client that does not answer within it is disconnected.
    #[arg(long, env = "BAA_CODEXD_PING_INTERVAL", value_name = "SECONDS", default_value = "20",
          value_parser = seconds(1..=3600))]
    pub ping_interval: Duration,
    /// How long running turns may continue when codexd stops, before they are interrupted
    #[arg(long, env = "BAA_CODEXD_DRAIN_TIMEOUT", value_name = "SECONDS", default_value = "5",
          value_parser = seconds(0..=3600))]
    pub drain_timeout: Duration,
    /// How long a turn may be silent before an event reports it as stalled
    ///
    /// The event is repeated each time that time doubles.
    #[arg(long, env = "BAA_CODEXD_STALL_TIMEOUT", value_name = "SECONDS", default_value = "600",
          value_parser = seconds(1..=86_400))]
    pub stall_timeout: Duration,
    /// How long a request of the app-server waits for an answer before it is declined
    #[arg(long, env = "BAA_CODEXD_REQUEST_TIMEOUT", value_name = "SECONDS", default_value = "600",
          value_parser = seconds(1..=86_400))]
    pub request_timeout: Duration,
    /// How long the app-server may take to answer initialize before it is restarted
    #[arg(long, env = START_TIMEOUT, value_name = "SECONDS", default_value = "10", value_parser = seconds(1..=3600))]
    pub start_timeout: Duration,
    /// How long a client waits for the app-server's answer to a call
    ///
    /// A session that is opened later is kept.
    #[arg(long, env = "BAA_CODEXD_CALL_TIMEOUT", value_name = "SECONDS", default_value = "30",
          value_parser = seconds(1..=3600))]
    pub call_timeout: Duration,
    /// How long the app-server may be silent before codexd checks that it responds
    #[arg(long, env = "BAA_CODEXD_CHECK_INTERVAL", value_name = "SECONDS", default_value = "30",
          value_parser = seconds(1..=3600))]
    pub check_interval: Duration,
    /// Maximum size of a message of the app-server; a longer one is skipped
    #[arg(long, env = "BAA_CODEXD_LINE_CAP", value_name = "BYTES", default_value = "67108864",
          value_parser = count::<usize>(1024..=1 << 30))]
    pub line_cap: usize,
}

impl Settings {
    /// Parses flags of settings; environment variables are ignored.
    pub fn from_flags(
        flags: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<Self, clap::Error> {
        let command = ignore_variables(Self::declared().no_binary_name(true), &|_| true);
        Self::from_arg_matches(&command.try_get_matches_from(flags)?)
    }

    /// A command with the flags of all settings.
    pub(super) fn declared() -> clap::Command {
        Self::augment_args(clap::Command::default())
    }
}

/// Makes clap ignore the environment variables of these arguments.
pub fn ignore_variables(command: clap::Command, is_ignored: &dyn Fn(&clap::Arg) -> bool) -> clap::Command {
    command.mut_args(|argument| match is_ignored(&argument) {
        true => argument.env(None::<&'static str>),
        false => argument,
    })
}

/// Where clap found the value of each argument.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources(BTreeMap<String, ValueSource>);

impl Sources {
    /// The source of the setting with this flag, which is written without dashes.
    pub(super) fn of(&self, name: &str) -> Option<ValueSource> {
        self.0.get(&name.replace('-', "_")).copied()
    }

    /// Whether the flag was given.
    pub fn has_flag(&self, name: &str) -> bool {
        self.of(name) == Some(ValueSource::CommandLine)
    }
}

impl Args for Sources {
    fn augment_args(command: clap::Command) -> clap::Command {
        command
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        command
    }
}

impl FromArgMatches for Sources {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let ids = matches.ids().map(clap::Id::as_str);
        let sources = ids.filter_map(|id| Some((id.to_owned(), matches.value_source(id)?)));
        Ok(Self(sources.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// A current directory that is not UTF-8 can lead to such a path; JSON cannot contain it, so it is shown approximately.
fn as_text<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    path.as_deref().map(|path| path.to_string_lossy()).serialize(serializer)
}

fn as_display<S: Serializer>(value: &impl std::fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
