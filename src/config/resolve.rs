//! Reads each setting from its flag, its environment variable or its default.
//!
//! The order of the calls in [`resolve`] is the order of the report.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::address::{LocalApiBase, parse_event_stream_path};
use super::endpoint::{ChildStrategy, ServerEndpoint};
use super::error::{ConfigError, ValueError};
use super::origin::parse_origin;
use super::platform::Platform;
use super::settings::{
    self, DefaultValue, Environment, ProcessEnvironment, SHARED_LOGS_DIR, SHARED_STATE_DIR, Setting,
    Settings, Source,
};
use super::values::{
    ChildEnvironment, Config, LimitsConfig, MAX_EVENT_CACHE_SIZE, Paths, ReportRow, ServerConfig, ServerMode,
    ServiceConfig,
};
use crate::codex::protocol::environment::{CODEX_HOME, DEFAULT_CODEX_HOME};

impl Config {
    /// Reads the settings: a flag overrides its environment variable, which overrides the default.
    ///
    /// A blank environment variable counts as unset. Texts are trimmed, paths are taken byte for byte. Relative paths
    /// are relative to `current_dir`, which is absolute.
    pub fn resolve(
        settings: &Settings,
        environment: &dyn Environment,
        current_dir: &Path,
    ) -> Result<Self, ConfigError> {
        resolve(settings, environment, current_dir, Platform::current())
    }

    /// [`Config::resolve`] with the environment and the current directory of this process.
    pub fn from_process(settings: &Settings) -> Result<Self, ConfigError> {
        let current_dir =
            std::env::current_dir().map_err(|source| ConfigError::CurrentDirectory { source })?;
        Self::resolve(settings, &ProcessEnvironment, &current_dir)
    }
}

/// [`Config::resolve`] for any platform.
pub(super) fn resolve(
    settings: &Settings,
    environment: &dyn Environment,
    current_dir: &Path,
    platform: Platform,
) -> Result<Config, ConfigError> {
    let mut reader = SettingReader { settings, environment, current_dir, platform, report: Vec::new() };

    let repo_root = reader.optional_path(&settings::REPO_ROOT)?;
    let node_id = reader.value(&settings::NODE_ID, |text| Ok(text.to_owned()), |id| id.as_str().into())?;
    let mode = reader.value(&settings::MODE, parse_mode, |mode| mode.as_str().into())?;
    let logs_dir = reader.directory(&settings::LOGS_DIR, SHARED_LOGS_DIR, "logs", repo_root.as_ref())?;
    let state_dir = reader.directory(&settings::STATE_DIR, SHARED_STATE_DIR, "state", repo_root.as_ref())?;
    let local_api_base = reader.value(
        &settings::LOCAL_API_BASE,
        |text| Ok(LocalApiBase::parse(text)?),
        |base| base.as_str().into(),
    )?;
    let event_stream_path = reader.value(
        &settings::EVENT_STREAM_PATH,
        |text| Ok(parse_event_stream_path(text)?),
        |path| path.as_str().into(),
    )?;
    let allowed_origins = reader.allowed_origins()?;
    let auth_token_file = reader.optional_path(&settings::AUTH_TOKEN_FILE)?.map(|path| path.value);
    let connections = reader.count(&settings::CONNECTION_LIMIT, 1, 100_000)?;
    let websockets = reader.count(&settings::WEBSOCKET_LIMIT, 0, 100_000)?;
    let body_bytes = reader.count(&settings::BODY_LIMIT, 1024, 1 << 30)?;
    // The format of the endpoint depends on the strategy, so the strategy is read first and reported second.
    let strategy = reader.text(&settings::SERVER_STRATEGY)?.parse(parse_strategy)?;
    let endpoint = reader.endpoint(strategy.value)?;
    let strategy = reader.record(&settings::SERVER_STRATEGY, strategy, |strategy| strategy.as_str().into());
    let command = reader.path_text(&settings::SERVER_COMMAND)?;
    let command = command.unwrap_or_else(|| default_text(&settings::SERVER_COMMAND));
    let command = command.parse(|text| parse_command(text, current_dir))?;
    let command = reader.record(&settings::SERVER_COMMAND, command, |command| command.as_str().into());
    let args = reader.arguments()?;
    let cwd = reader.server_cwd(repo_root.as_ref())?;
    let event_cache_size = reader.count(&settings::EVENT_CACHE_SIZE, 1, MAX_EVENT_CACHE_SIZE)?;
    let limits = LimitsConfig {
        event_segment_bytes: reader.count(&settings::EVENT_SEGMENT_BYTES, 4096, 1 << 30)? as u64,
        event_log_bytes: reader.count(&settings::EVENT_LOG_BYTES, 8192, 1 << 40)? as u64,
        output_log_bytes: reader.count(&settings::OUTPUT_LOG_BYTES, 4096, 1 << 30)? as u64,
        closed_sessions: reader.count(&settings::CLOSED_SESSION_LIMIT, 0, 1_000_000)?,
        client_timeout: Duration::from_secs(reader.count(&settings::CLIENT_TIMEOUT, 1, 3600)? as u64),
        ping_interval: Duration::from_secs(reader.count(&settings::PING_INTERVAL, 1, 3600)? as u64),
        drain_timeout: Duration::from_secs(reader.count(&settings::DRAIN_TIMEOUT, 0, 3600)? as u64),
        stall_timeout: Duration::from_secs(reader.count(&settings::STALL_TIMEOUT, 1, 86_400)? as u64),
        request_timeout: Duration::from_secs(reader.count(&settings::REQUEST_TIMEOUT, 1, 86_400)? as u64),
        start_timeout: Duration::from_secs(reader.count(&settings::START_TIMEOUT, 1, 3600)? as u64),
        call_timeout: Duration::from_secs(reader.count(&settings::CALL_TIMEOUT, 1, 3600)? as u64),
        check_interval: Duration::from_secs(reader.count(&settings::CHECK_INTERVAL, 1, 3600)? as u64),
        line_cap: reader.count(&settings::LINE_CAP, 1024, 1 << 30)?,
    };
    let log_filter =
        reader.value(&settings::LOG_FILTER, |text| Ok(text.to_owned()), |filter| filter.as_str().into())?;

    Ok(Config {
        node_id,
        version: env!("CARGO_PKG_VERSION"),
        commit: env!("CODEXD_BUILD_COMMIT"),
        event_cache_size,
        paths: Paths::new(repo_root.map(|root| root.value), logs_dir, state_dir),
        service: ServiceConfig {
            local_api_base,
            event_stream_path,
            allowed_origins,
            auth_token_file,
            connections,
            websockets,
            body_bytes,
        },
        server: ServerConfig {
            mode,
            endpoint,
            strategy,
            command,
            args,
            cwd,
            child_environment: ChildEnvironment {
                path: environment.get("PATH"),
                codex_home: codex_home(environment),
            },
            demo: false,
        },
        limits,
        no_color: environment.get("NO_COLOR").is_some_and(|value| !value.is_empty())
            || environment.get("TERM").is_some_and(|value| value == "dumb"),
        log_filter,
        #[cfg(feature = "mutations")]
        mutation: environment.get("BAA_CODEXD_MUTATION").and_then(|name| name.into_string().ok()),
        report: reader.report,
    })
}

/// The directory of Codex's own files.
fn codex_home(environment: &dyn Environment) -> Option<PathBuf> {
    let path = |name: &str| environment.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    path(CODEX_HOME).or_else(|| path("HOME").map(|home| home.join(DEFAULT_CODEX_HOME)))
}

/// A value and its source.
#[derive(Debug)]
struct Sourced<T> {
    value: T,
    source: Source,
}

impl Sourced<String> {
    fn parse<T>(&self, parse: impl FnOnce(&str) -> Result<T, ValueError>) -> Result<Sourced<T>, ConfigError> {
        match parse(&self.value) {
            Ok(value) => Ok(Sourced { value, source: self.source }),
            Err(problem) => Err(invalid(self.source, problem)),
        }
    }
}

/// Reads settings and collects the report.
struct SettingReader<'a> {
    settings: &'a Settings,
    environment: &'a dyn Environment,
    current_dir: &'a Path,
    platform: Platform,
    report: Vec<ReportRow>,
}

impl SettingReader<'_> {
    /// Reads a setting with one value, parses it, and reports it as `show` formats it.
    fn value<T>(
        &mut self,
        setting: &'static Setting,
        parse: impl FnOnce(&str) -> Result<T, ValueError>,
        show: impl FnOnce(&T) -> serde_json::Value,
    ) -> Result<T, ConfigError> {
        let value = self.text(setting)?.parse(parse)?;
        Ok(self.record(setting, value, show))
    }

    /// Reads a setting that is a whole number.
    fn count(
        &mut self,
        setting: &'static Setting,
        minimum: usize,
        maximum: usize,
    ) -> Result<usize, ConfigError> {
        self.value(setting, |text| parse_count(text, minimum, maximum), |count| (*count).into())
    }

    fn record<T>(
        &mut self,
        setting: &'static Setting,
        sourced: Sourced<T>,
        show: impl FnOnce(&T) -> serde_json::Value,
    ) -> T {
        self.report.push(ReportRow {
            name: setting.name,
            value: show(&sourced.value),
            source: sourced.source,
        });
        sourced.value
    }

    /// The text of a setting, or its default.
    fn text(&self, setting: &'static Setting) -> Result<Sourced<String>, ConfigError> {
        Ok(self.given(setting)?.unwrap_or_else(|| default_text(setting)))
    }

    /// The text of a setting from its flag or environment variable, trimmed.
    fn given(&self, setting: &'static Setting) -> Result<Option<Sourced<String>>, ConfigError> {
        let text = self.path_text(setting)?;
        Ok(text.map(|text| Sourced { value: text.value.trim().to_owned(), source: text.source }))
    }

    /// The text of a setting that is a path, byte for byte: a name may start or end with white space. A blank text
    /// counts as unset.
    fn path_text(&self, setting: &'static Setting) -> Result<Option<Sourced<String>>, ConfigError> {
        // The command line accepts a flag once; if a caller passes several values, the last one counts.
        let Some(value) = self.settings.values(setting).last() else {
            return self.path_variable(setting.variable);
        };
        let source = Source::Flag(setting.name);
        match value.trim().is_empty() {
            true => Err(invalid(source, ValueError::Empty)),
            false => Ok(Some(Sourced { value: without_control_characters(source, value)?, source })),
        }
    }

    /// The text of an environment variable, byte for byte; a blank one counts as unset.
    fn path_variable(&self, name: &'static str) -> Result<Option<Sourced<String>>, ConfigError> {
        let source = Source::Variable(name);
        match self.raw_variable(name)?.filter(|value| !value.trim().is_empty()) {
            None => Ok(None),
            Some(value) => Ok(Some(Sourced { value: without_control_characters(source, &value)?, source })),
        }
    }

    fn raw_variable(&self, name: &str) -> Result<Option<String>, ConfigError> {
        self.environment
            .get(name)
            .map(|value| value.into_string())
            .transpose()
            .map_err(|_| ConfigError::NotUnicode { variable: name.to_owned() })
    }

    /// An absolute path in an environment variable that other programs set; a relative one is ignored.
    fn absolute_variable(&self, name: &'static str) -> Result<Option<PathBuf>, ConfigError> {
        let path = self.path_variable(name)?.map(|text| PathBuf::from(text.value));
        Ok(path.filter(|path| path.is_absolute()))
    }

    fn optional_path(&mut self, setting: &'static Setting) -> Result<Option<Sourced<PathBuf>>, ConfigError> {
        let path = match self.path_text(setting)? {
            Some(text) => Some(text.parse(|text| parse_path(text, self.current_dir))?),
            None => None,
        };
        self.report.push(ReportRow {
            name: setting.name,
            value: path.as_ref().map_or(serde_json::Value::Null, |path| show_path(&path.value)),
            source: path.as_ref().map_or(Source::Default, |path| path.source),
        });
        Ok(path)
    }

    /// The state or log directory: the one given, or inside the shared one, the repository or the home directory.
    fn directory(
        &mut self,
        setting: &'static Setting,
        shared_variable: &'static str,
        name_in_repository: &str,
        repo_root: Option<&Sourced<PathBuf>>,
    ) -> Result<PathBuf, ConfigError> {
        let current_dir = self.current_dir;
        let directory = if let Some(text) = self.path_text(setting)? {
            text.parse(|text| parse_path(text, current_dir))?
        } else if let Some(text) = self.path_variable(shared_variable)? {
            text.parse(|text| Ok(parse_path(text, current_dir)?.join("codexd")))?
        } else if let Some(root) = repo_root {
            let value = root.value.join(name_in_repository).join("codexd");
            Sourced { value, source: Source::DefaultFrom(root_origin(root)) }
        } else {
            let home = self.absolute_variable("HOME")?;
            let xdg_state_home = match self.platform {
                Platform::MacOs => None,
                Platform::Xdg => self.absolute_variable("XDG_STATE_HOME")?,
            };
            let per_user = match setting.name == settings::STATE_DIR.name {
                true => self.platform.state_dir(home.as_deref(), xdg_state_home.as_deref()),
                false => self.platform.logs_dir(home.as_deref(), xdg_state_home.as_deref()),
            };
            let value = per_user.ok_or_else(|| no_home(setting))?;
            let origin = if xdg_state_home.is_some() { "XDG_STATE_HOME" } else { "HOME" };
            Sourced { value, source: Source::DefaultFrom(origin) }
        };
        Ok(self.record(setting, directory, |directory| show_path(directory)))
    }

    fn endpoint(&mut self, strategy: ChildStrategy) -> Result<ServerEndpoint, ConfigError> {
        let setting = &settings::SERVER_ENDPOINT;
        let endpoint = match strategy {
            ChildStrategy::Spawn => self.text(setting)?.parse(|label| Ok(ServerEndpoint::spawned(label)))?,
            ChildStrategy::External => {
                let text = self.path_text(setting)?.ok_or(ConfigError::EndpointMissing)?;
                // The rest of a unix:// endpoint is a path.
                let is_path = text.value.trim_start().to_ascii_lowercase().starts_with("unix://");
                text.parse(|text| {
                    let text = if is_path { text.trim_start() } else { text.trim() };
                    Ok(ServerEndpoint::external(text)?)
                })?
            }
        };
        Ok(self.record(setting, endpoint, |endpoint| endpoint.to_string().into()))
    }

    /// The arguments are taken literally, neither trimmed nor checked: only the program can judge them.
    fn arguments(&mut self) -> Result<Vec<String>, ConfigError> {
        let arguments = self.values(&settings::SERVER_ARGS)?;
        Ok(self.record(&settings::SERVER_ARGS, arguments, |arguments| arguments.as_slice().into()))
    }

    fn allowed_origins(&mut self) -> Result<Vec<String>, ConfigError> {
        let given = self.values(&settings::ALLOWED_ORIGINS)?;
        let parse =
            |origin: &String| parse_origin(origin).map_err(|error| invalid(given.source, error.into()));
        let value = given.value.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        let origins = Sourced { value, source: given.source };
        Ok(self.record(&settings::ALLOWED_ORIGINS, origins, |origins| origins.as_slice().into()))
    }

    /// The values of a setting that may have several.
    fn values(&self, setting: &'static Setting) -> Result<Sourced<Vec<String>>, ConfigError> {
        let flags = self.settings.values(setting);
        if !flags.is_empty() {
            return Ok(Sourced { value: flags.to_vec(), source: Source::Flag(setting.name) });
        }
        let text = self.raw_variable(setting.variable)?.filter(|text| !text.trim().is_empty());
        let text = match text {
            Some(value) => Sourced { value, source: Source::Variable(setting.variable) },
            None => default_text(setting),
        };
        text.parse(parse_arguments)
    }

    fn server_cwd(&mut self, repo_root: Option<&Sourced<PathBuf>>) -> Result<PathBuf, ConfigError> {
        let setting = &settings::SERVER_CWD;
        let cwd = match (self.path_text(setting)?, repo_root) {
            (Some(text), _) => text.parse(|text| parse_existing_directory(text, self.current_dir))?,
            (None, Some(root)) => default_cwd(root.value.clone(), root_origin(root))?,
            (None, None) => {
                let home = self.absolute_variable("HOME")?.ok_or_else(|| no_home(setting))?;
                default_cwd(home, "HOME")?
            }
        };
        Ok(self.record(setting, cwd, |cwd| show_path(cwd)))
    }
}

fn default_text(setting: &'static Setting) -> Sourced<String> {
    let value = match setting.default {
        DefaultValue::Text(text) => text.to_owned(),
        // Settings whose default is computed elsewhere are described, and never reach this function.
        DefaultValue::Described(_) => String::new(),
    };
    Sourced { value, source: Source::Default }
}

/// The name by which the user knows the repository setting: the environment variable if it was used, otherwise the
/// flag.
fn root_origin(root: &Sourced<PathBuf>) -> &'static str {
    match root.source {
        Source::Variable(name) => name,
        _ => "--repo-root",
    }
}

fn default_cwd(path: PathBuf, origin: &'static str) -> Result<Sourced<PathBuf>, ConfigError> {
    match directory_problem(&path) {
        None => Ok(Sourced { value: path, source: Source::DefaultFrom(origin) }),
        Some(reason) => Err(ConfigError::DefaultServerCwd { path, origin, reason }),
    }
}

fn without_control_characters(source: Source, value: &str) -> Result<String, ConfigError> {
    match value.contains(char::is_control) {
        true => Err(invalid(source, ValueError::ControlCharacter)),
        false => Ok(value.to_owned()),
    }
}

fn parse_mode(text: &str) -> Result<ServerMode, ValueError> {
    match text {
        "app-server" => Ok(ServerMode::AppServer),
        other => Err(ValueError::Mode(other.to_owned())),
    }
}

fn parse_strategy(text: &str) -> Result<ChildStrategy, ValueError> {
    match text {
        "spawn" => Ok(ChildStrategy::Spawn),
        "external" => Ok(ChildStrategy::External),
        other => Err(ValueError::Strategy(other.to_owned())),
    }
}

fn parse_count(text: &str, minimum: usize, maximum: usize) -> Result<usize, ValueError> {
    let count = text.parse().ok().filter(|count| (minimum..=maximum).contains(count));
    count.ok_or_else(|| ValueError::Count { value: text.to_owned(), minimum, maximum })
}

/// A command with a slash names a file, independent of the working directory of the app-server.
fn parse_command(text: &str, current_dir: &Path) -> Result<String, ValueError> {
    if !text.contains('/') {
        return Ok(text.to_owned());
    }
    let path = parse_path(text, current_dir)?;
    path.into_os_string().into_string().map_err(|path| ValueError::NotUnicode(path.into()))
}

fn parse_arguments(text: &str) -> Result<Vec<String>, ValueError> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).map_err(|error| ValueError::Arguments(error.to_string()));
    }
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

fn parse_path(text: &str, current_dir: &Path) -> Result<PathBuf, ValueError> {
    // launchd, systemd and `--flag=~/x` do not expand the tilde, and a directory called ~ is never meant.
    if text.starts_with('~') {
        return Err(ValueError::Tilde(text.to_owned()));
    }
    // Iterating over components removes single dots, double slashes and trailing slashes.
    Ok(current_dir.join(text).components().collect())
}

fn parse_existing_directory(text: &str, current_dir: &Path) -> Result<PathBuf, ValueError> {
    let path = parse_path(text, current_dir)?;
    match directory_problem(&path) {
        None => Ok(path),
        Some(reason) => Err(ValueError::Directory { path, reason }),
    }
}

fn directory_problem(path: &Path) -> Option<String> {
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => None,
        Ok(_) => Some("is not a directory".to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some("does not exist".to_owned()),
        Err(error) => Some(format!("cannot be read ({error})")),
    }
}

fn show_path(path: &Path) -> serde_json::Value {
    path.to_string_lossy().into_owned().into()
}

fn invalid(source: Source, problem: ValueError) -> ConfigError {
    ConfigError::Invalid { origin: source.to_string(), problem }
}

fn no_home(setting: &'static Setting) -> ConfigError {
    ConfigError::NoHomeForDefault { name: setting.name, variable: setting.variable }
}
