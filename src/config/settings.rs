//! The table of settings: flag, environment variable, default and help text of each.
//!
//! A new setting needs one row here and one line in `resolve.rs`. The command line, the help and the report use the
//! table.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

/// One setting.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    /// The name in the report, and of the flag without its two dashes.
    pub name: &'static str,
    /// Whether there is a flag; otherwise only the environment variable sets it.
    pub has_flag: bool,
    /// The environment variable, read if the flag is not given.
    pub variable: &'static str,
    /// The value if neither flag nor environment variable is given.
    pub default: DefaultValue,
    /// The placeholder for the value in the help, such as `PATH`.
    pub placeholder: &'static str,
    /// The help text, as half a sentence.
    pub purpose: &'static str,
    /// Whether the flag may be repeated; its values are then taken literally, including leading dashes.
    pub repeatable: bool,
}

/// The default of a setting.
#[derive(Debug, PartialEq, Eq)]
pub enum DefaultValue {
    /// A value that is parsed like a given one.
    Text(&'static str),
    /// A value that depends on the machine or on other settings, described for the help.
    Described(&'static str),
}

impl DefaultValue {
    /// The default as shown in the help.
    pub fn description(&self) -> &'static str {
        match self {
            Self::Text(text) | Self::Described(text) => text,
        }
    }
}

/// `--repo-root`: moves state, logs and the working directory of the app-server into a repository.
pub const REPO_ROOT: Setting = Setting {
    name: "repo-root",
    variable: "BAA_CODEXD_REPO_ROOT",
    default: DefaultValue::Described("none"),
    placeholder: "PATH",
    purpose: "Repository that codexd serves; state and logs are then stored below it",
    ..SINGLE
};
/// `--node-id`: the name of this machine.
pub const NODE_ID: Setting = Setting {
    name: "node-id",
    variable: "BAA_NODE_ID",
    default: DefaultValue::Text("mini-main"),
    placeholder: "NAME",
    purpose: "Name of this machine in the daemon's identity",
    ..SINGLE
};
/// `--mode`: kept for existing scripts; there is one mode.
pub const MODE: Setting = Setting {
    name: "mode",
    variable: "BAA_CODEXD_MODE",
    default: DefaultValue::Text("app-server"),
    placeholder: "MODE",
    purpose: "How codexd talks to Codex; app-server is the only mode",
    ..SINGLE
};
/// `--logs-dir`: the directory of the log files.
pub const LOGS_DIR: Setting = Setting {
    name: "logs-dir",
    variable: "BAA_CODEXD_LOGS_DIR",
    default: DefaultValue::Described(
        "codexd in BAA_LOGS_DIR, else logs/codexd in the repository, else the per-user log directory",
    ),
    placeholder: "PATH",
    purpose: "Directory of the event log and the app-server's output",
    ..SINGLE
};
/// `--state-dir`: the directory of the state files.
pub const STATE_DIR: Setting = Setting {
    name: "state-dir",
    variable: "BAA_CODEXD_STATE_DIR",
    default: DefaultValue::Described(
        "codexd in BAA_STATE_DIR, else state/codexd in the repository, else the per-user state directory",
    ),
    placeholder: "PATH",
    purpose: "Directory of the state files: identity, sessions and others",
    ..SINGLE
};
/// `--local-api-base`: the address of the listener.
pub const LOCAL_API_BASE: Setting = Setting {
    name: "local-api-base",
    variable: "BAA_CODEXD_LOCAL_API_BASE",
    default: DefaultValue::Text("http://127.0.0.1:4319"),
    placeholder: "URL",
    purpose: "Loopback address of the HTTP service; port 0 picks a free port",
    ..SINGLE
};
/// `--event-stream-path`: the path of the event stream.
pub const EVENT_STREAM_PATH: Setting = Setting {
    name: "event-stream-path",
    variable: "BAA_CODEXD_EVENT_STREAM_PATH",
    default: DefaultValue::Text("/v1/codexd/events"),
    placeholder: "PATH",
    purpose: "Path of the event WebSocket",
    ..SINGLE
};
/// `--allowed-origin`: the origins of web pages that may use codexd besides its own.
pub const ALLOWED_ORIGINS: Setting = Setting {
    name: "allowed-origin",
    variable: "BAA_CODEXD_ALLOWED_ORIGINS",
    default: DefaultValue::Described("none"),
    placeholder: "ORIGIN",
    purpose: "Origin of web pages that may use codexd, such as http://localhost:5173; may be repeated; the environment \
              variable takes a JSON array or words separated by spaces",
    repeatable: true,
    ..SINGLE
};
/// `--auth-token-file`: the file of the token that every request needs.
pub const AUTH_TOKEN_FILE: Setting = Setting {
    name: "auth-token-file",
    variable: "BAA_CODEXD_AUTH_TOKEN_FILE",
    default: DefaultValue::Described("none; requests need no token"),
    placeholder: "PATH",
    purpose: "File with the token that every request except / and /healthz needs; \"codexd token\" creates it",
    ..SINGLE
};
/// `--connection-limit`: the maximum number of connections.
pub const CONNECTION_LIMIT: Setting = Setting {
    name: "connection-limit",
    variable: "BAA_CODEXD_CONNECTION_LIMIT",
    default: DefaultValue::Text("256"),
    placeholder: "COUNT",
    purpose: "Maximum number of connections, including event streams",
    ..SINGLE
};
/// `--websocket-limit`: the maximum number of WebSockets.
pub const WEBSOCKET_LIMIT: Setting = Setting {
    name: "websocket-limit",
    variable: "BAA_CODEXD_WEBSOCKET_LIMIT",
    default: DefaultValue::Text("64"),
    placeholder: "COUNT",
    purpose: "Maximum number of WebSockets",
    ..SINGLE
};
/// `--body-limit`: the maximum size of a request body.
pub const BODY_LIMIT: Setting = Setting {
    name: "body-limit",
    variable: "BAA_CODEXD_BODY_LIMIT",
    default: DefaultValue::Text("16777216"),
    placeholder: "BYTES",
    purpose: "Maximum size of a request body; prompts with images are large",
    ..SINGLE
};
/// `--server-endpoint`: the endpoint of an external app-server.
pub const SERVER_ENDPOINT: Setting = Setting {
    name: "server-endpoint",
    variable: "BAA_CODEXD_SERVER_ENDPOINT",
    default: DefaultValue::Text("stdio://codex-app-server"),
    placeholder: "URL",
    purpose: "Endpoint of an external app-server (ws, wss, http, https or unix); only a label if it is spawned",
    ..SINGLE
};
/// `--server-strategy`: whether codexd starts the app-server.
pub const SERVER_STRATEGY: Setting = Setting {
    name: "server-strategy",
    variable: "BAA_CODEXD_SERVER_STRATEGY",
    default: DefaultValue::Text("spawn"),
    placeholder: "STRATEGY",
    purpose: "spawn: start the app-server; external: connect to a running one",
    ..SINGLE
};
/// `--server-command`: the program of the app-server.
pub const SERVER_COMMAND: Setting = Setting {
    name: "server-command",
    variable: "BAA_CODEXD_SERVER_COMMAND",
    default: DefaultValue::Text("codex"),
    placeholder: "COMMAND",
    purpose: "Program to start: a name to look up in PATH, or a path",
    ..SINGLE
};
/// `--server-arg`: the arguments of that program.
pub const SERVER_ARGS: Setting = Setting {
    name: "server-arg",
    variable: "BAA_CODEXD_SERVER_ARGS",
    default: DefaultValue::Text("app-server"),
    placeholder: "ARGUMENT",
    purpose: "Argument of that program; may be repeated; the environment variable takes a JSON array or words separated \
              by spaces",
    repeatable: true,
    ..SINGLE
};
/// `--server-cwd`: the working directory of that program.
pub const SERVER_CWD: Setting = Setting {
    name: "server-cwd",
    variable: "BAA_CODEXD_SERVER_CWD",
    default: DefaultValue::Described("the repository, else the home directory"),
    placeholder: "PATH",
    purpose: "Working directory of that program",
    ..SINGLE
};
/// `--event-cache-size`: how many events `recent-events.json` and the hello frame of the WebSocket contain.
pub const EVENT_CACHE_SIZE: Setting = Setting {
    name: "event-cache-size",
    variable: "BAA_CODEXD_EVENT_CACHE_SIZE",
    default: DefaultValue::Text("50"),
    placeholder: "COUNT",
    purpose: "Number of recent events to cache, 1 to 10000",
    ..SINGLE
};
/// `--event-segment-bytes`: when the event log starts a new segment.
pub const EVENT_SEGMENT_BYTES: Setting = Setting {
    name: "event-segment-bytes",
    variable: "BAA_CODEXD_EVENT_SEGMENT_BYTES",
    default: DefaultValue::Text("33554432"),
    placeholder: "BYTES",
    purpose: "Size at which the event log starts a new segment file",
    ..SINGLE
};
/// `--event-log-bytes`: the maximum size of the whole event log.
pub const EVENT_LOG_BYTES: Setting = Setting {
    name: "event-log-bytes",
    variable: "BAA_CODEXD_EVENT_LOG_BYTES",
    default: DefaultValue::Text("536870912"),
    placeholder: "BYTES",
    purpose: "Maximum size of the event log; the oldest segment files are removed",
    ..SINGLE
};
/// `--output-log-bytes`: when `stdout.log` and `stderr.log` are rotated.
pub const OUTPUT_LOG_BYTES: Setting = Setting {
    name: "output-log-bytes",
    variable: "BAA_CODEXD_OUTPUT_LOG_BYTES",
    default: DefaultValue::Text("33554432"),
    placeholder: "BYTES",
    purpose: "Size at which stdout.log and stderr.log are rotated; one older file of each is kept",
    ..SINGLE
};
/// `--closed-session-limit`: how many closed sessions are kept.
pub const CLOSED_SESSION_LIMIT: Setting = Setting {
    name: "closed-session-limit",
    variable: "BAA_CODEXD_CLOSED_SESSION_LIMIT",
    default: DefaultValue::Text("1000"),
    placeholder: "COUNT",
    purpose: "Number of closed sessions to keep",
    ..SINGLE
};
/// `--client-timeout`: how long a client of the event stream may accept no data.
pub const CLIENT_TIMEOUT: Setting = Setting {
    name: "client-timeout",
    variable: "BAA_CODEXD_CLIENT_TIMEOUT",
    default: DefaultValue::Text("30"),
    placeholder: "SECONDS",
    purpose: "How long a client of the event stream may not read before it is disconnected",
    ..SINGLE
};
/// `--ping-interval`: the interval between pings on a WebSocket.
pub const PING_INTERVAL: Setting = Setting {
    name: "ping-interval",
    variable: "BAA_CODEXD_PING_INTERVAL",
    default: DefaultValue::Text("20"),
    placeholder: "SECONDS",
    purpose: "Interval between pings to WebSocket clients; a client that does not answer within it is disconnected",
    ..SINGLE
};
/// `--drain-timeout`: how long running turns may continue after a stop was requested.
pub const DRAIN_TIMEOUT: Setting = Setting {
    name: "drain-timeout",
    variable: "BAA_CODEXD_DRAIN_TIMEOUT",
    default: DefaultValue::Text("5"),
    placeholder: "SECONDS",
    purpose: "How long running turns may continue when codexd stops, before they are interrupted",
    ..SINGLE
};
/// `--stall-timeout`: after how long without activity a turn is reported as stalled.
pub const STALL_TIMEOUT: Setting = Setting {
    name: "stall-timeout",
    variable: "BAA_CODEXD_STALL_TIMEOUT",
    default: DefaultValue::Text("600"),
    placeholder: "SECONDS",
    purpose: "How long a turn may be silent before an event reports it as stalled, and again each time that time doubles",
    ..SINGLE
};
/// `--request-timeout`: how long a request of the app-server waits for an answer.
pub const REQUEST_TIMEOUT: Setting = Setting {
    name: "request-timeout",
    variable: "BAA_CODEXD_REQUEST_TIMEOUT",
    default: DefaultValue::Text("600"),
    placeholder: "SECONDS",
    purpose: "How long a request of the app-server waits for an answer before it is declined",
    ..SINGLE
};
/// `--start-timeout`: how long the app-server may take to start.
pub const START_TIMEOUT: Setting = Setting {
    name: "start-timeout",
    variable: "BAA_CODEXD_START_TIMEOUT",
    default: DefaultValue::Text("10"),
    placeholder: "SECONDS",
    purpose: "How long the app-server may take to answer initialize before it is restarted",
    ..SINGLE
};
/// `--call-timeout`: how long the app-server may take to answer a call.
pub const CALL_TIMEOUT: Setting = Setting {
    name: "call-timeout",
    variable: "BAA_CODEXD_CALL_TIMEOUT",
    default: DefaultValue::Text("30"),
    placeholder: "SECONDS",
    purpose: "How long a client waits for the app-server's answer to a call; a session that is opened later is kept",
    ..SINGLE
};
/// `--check-interval`: how long the app-server may be silent before its liveness is checked.
pub const CHECK_INTERVAL: Setting = Setting {
    name: "check-interval",
    variable: "BAA_CODEXD_CHECK_INTERVAL",
    default: DefaultValue::Text("30"),
    placeholder: "SECONDS",
    purpose: "How long the app-server may be silent before codexd checks that it responds",
    ..SINGLE
};
/// `--line-cap`: the maximum size of a message of the app-server.
pub const LINE_CAP: Setting = Setting {
    name: "line-cap",
    variable: "BAA_CODEXD_LINE_CAP",
    default: DefaultValue::Text("67108864"),
    placeholder: "BYTES",
    purpose: "Maximum size of a message of the app-server; a longer one is skipped",
    ..SINGLE
};
/// `BAA_CODEXD_LOG`: the filter of codexd's log on stderr; `RUST_LOG` is for the app-server, which inherits it.
pub const LOG_FILTER: Setting = Setting {
    name: "log-filter",
    has_flag: false,
    variable: "BAA_CODEXD_LOG",
    default: DefaultValue::Text("info"),
    placeholder: "FILTER",
    purpose: "Filter of codexd's log on stderr",
    ..SINGLE
};

/// Every setting, in the order of the help and of the report.
pub const ALL: &[&Setting] = &[
    &REPO_ROOT,
    &NODE_ID,
    &MODE,
    &LOGS_DIR,
    &STATE_DIR,
    &LOCAL_API_BASE,
    &EVENT_STREAM_PATH,
    &ALLOWED_ORIGINS,
    &AUTH_TOKEN_FILE,
    &CONNECTION_LIMIT,
    &WEBSOCKET_LIMIT,
    &BODY_LIMIT,
    &SERVER_ENDPOINT,
    &SERVER_STRATEGY,
    &SERVER_COMMAND,
    &SERVER_ARGS,
    &SERVER_CWD,
    &EVENT_CACHE_SIZE,
    &EVENT_SEGMENT_BYTES,
    &EVENT_LOG_BYTES,
    &OUTPUT_LOG_BYTES,
    &CLOSED_SESSION_LIMIT,
    &CLIENT_TIMEOUT,
    &PING_INTERVAL,
    &DRAIN_TIMEOUT,
    &STALL_TIMEOUT,
    &REQUEST_TIMEOUT,
    &START_TIMEOUT,
    &CALL_TIMEOUT,
    &CHECK_INTERVAL,
    &LINE_CAP,
    &LOG_FILTER,
];

/// The log directory that several services share; codexd uses `codexd` inside it.
pub(super) const SHARED_LOGS_DIR: &str = "BAA_LOGS_DIR";
/// The state directory that several services share; codexd uses `codexd` inside it.
pub(super) const SHARED_STATE_DIR: &str = "BAA_STATE_DIR";

/// The fields that most rows have in common.
const SINGLE: Setting = Setting {
    name: "",
    has_flag: true,
    variable: "",
    default: DefaultValue::Described(""),
    placeholder: "",
    purpose: "",
    repeatable: false,
};

/// The flags given.
///
/// `Debug` shows their names and hides their values: an endpoint may contain a password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Settings {
    given: BTreeMap<&'static str, Vec<String>>,
}

impl Settings {
    /// Adds a value of a flag, after the existing ones.
    pub fn add(&mut self, setting: &Setting, value: impl Into<String>) {
        self.given.entry(setting.name).or_default().push(value.into());
    }

    /// The same settings with one more value.
    #[must_use]
    pub fn with(mut self, setting: &Setting, value: impl Into<String>) -> Self {
        self.add(setting, value);
        self
    }

    /// The values of a flag, in order; empty if the flag was not given.
    pub fn values(&self, setting: &Setting) -> &[String] {
        self.given.get(setting.name).map_or(&[], Vec::as_slice)
    }

    /// The first setting that has a value.
    pub fn first(&self) -> Option<&'static Setting> {
        ALL.iter().copied().find(|setting| !self.values(setting).is_empty())
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.given.keys()).finish()
    }
}

/// The source of environment variables, so that tests can supply their own.
pub trait Environment {
    /// The value of an environment variable, which need not be UTF-8; `None` if it is not set.
    fn get(&self, name: &str) -> Option<OsString>;
}

/// The environment of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn get(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }
}

/// An environment for tests.
impl Environment for BTreeMap<String, OsString> {
    fn get(&self, name: &str) -> Option<OsString> {
        BTreeMap::get(self, name).cloned()
    }
}

/// The source of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A flag; the name has no dashes.
    Flag(&'static str),
    /// An environment variable.
    Variable(&'static str),
    /// The default.
    Default,
    /// A default that depends on this flag or environment variable.
    DefaultFrom(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(formatter, "--{name}"),
            Self::Variable(name) => formatter.write_str(name),
            Self::Default => formatter.write_str("default"),
            Self::DefaultFrom(name) => write!(formatter, "default from {name}"),
        }
    }
}
