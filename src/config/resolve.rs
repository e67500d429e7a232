//! Adds the defaults that depend on other settings or on the machine.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::endpoint::{ChildStrategy, SOCKET_SCHEME, ServerEndpoint};
use super::environment::{Environment, path_in, process_environment};
use super::error::ConfigError;
use super::origin::{parse_host, parse_origin};
use super::parse::{CONTROL_CHARACTER, directory_problem, list, path};
use super::platform::Platform;
use super::report::{DEFAULT, Report};
use super::settings::{AUTH_TOKEN_NAME, LOG_FILTER, PathSettings, REPO_ROOT, STATE_DIR, Settings, Sources};
use super::values::{ChildEnvironment, Config, Paths, ServerConfig};
use crate::codex::protocol::environment::{CODEX_HOME, CONTROL_SOCKET, DEFAULT_CODEX_HOME};

/// Why another endpoint cannot be set with the strategy `shared`.
const SHARED_ENDPOINT: &str = "the shared app-server is always at the control socket of Codex; remove this setting, or connect to \
     another app-server with --server-strategy external.";

impl Config {
    /// Validates the settings and adds the defaults that depend on others, on the platform and on `environment`.
    pub fn resolve(settings: Settings, environment: &Environment) -> Result<Self, ConfigError> {
        resolve(settings, environment, Platform::current())
    }

    /// [`Config::resolve`] with the environment of this process.
    pub fn from_process(settings: Settings) -> Result<Self, ConfigError> {
        Self::resolve(settings, &process_environment())
    }
}

impl PathSettings {
    /// The directories, in the environment of this process.
    pub fn resolve(self, sources: &Sources) -> Result<Paths, ConfigError> {
        let (environment, platform) = (&process_environment(), Platform::current());
        Resolver { report: Report::new(sources), environment, platform }.paths(self)
    }
}

/// The file that `codexd token` creates when no setting names one, in the state directory that the environment of this
/// process selects; `None` if that is unknown.
pub fn default_token_file() -> Option<PathBuf> {
    let (environment, platform) = (&process_environment(), Platform::current());
    let given = |name: &str| path(environment.get(OsStr::new(name))?.to_str()?).ok();
    let mut resolver = Resolver { report: Report::new(&Sources::default()), environment, platform };
    let in_repository = || given(REPO_ROOT).map(|root| root.join("state"));
    let state_dir =
        given(STATE_DIR).or_else(|| resolver.directory("state-dir", "BAA_STATE_DIR", in_repository()).ok());
    state_dir.map(|directory| directory.join(AUTH_TOKEN_NAME))
}

/// [`Config::resolve`] for any platform.
pub(super) fn resolve(
    mut settings: Settings,
    environment: &Environment,
    platform: Platform,
) -> Result<Config, ConfigError> {
    let mut resolver = Resolver { report: Report::new(&settings.sources), environment, platform };
    let paths = resolver.paths(settings.paths.clone())?;
    settings.paths.logs_dir = Some(paths.logs_dir.clone());
    settings.paths.state_dir = Some(paths.state_dir.clone());
    let cwd = resolver.server_cwd(&settings)?;
    let server = &mut settings.server;
    server.server_cwd = Some(cwd.clone());
    // The directory of Codex's own files.
    let codex_home = path_in(environment, CODEX_HOME)
        .or_else(|| Some(path_in(environment, "HOME")?.join(DEFAULT_CODEX_HOME)));
    server.server_endpoint =
        resolver.endpoint(server.server_strategy, &server.server_endpoint.text, codex_home.as_deref())?;
    server.server_arg = resolver.list("server-arg", &server.server_arg)?;
    let origins = resolver.list("allowed-origin", &settings.http.allowed_origin)?;
    let origins: Result<_, _> = origins.iter().map(|origin| parse_origin(origin)).collect();
    settings.http.allowed_origin =
        origins.map_err(|problem| resolver.report.invalid("allowed-origin", problem))?;
    resolver.clients(&mut settings)?;
    let log_filter = resolver.log_filter()?;

    let mut report = resolver.report;
    report.fill(&settings, &log_filter);
    let server = settings.server;
    Ok(Config {
        node_id: settings.node_id,
        version: env!("CARGO_PKG_VERSION"),
        commit: env!("CODEXD_BUILD_COMMIT"),
        event_cache_size: settings.event_cache_size,
        keep_awake: settings.keep_awake,
        paths,
        service: settings.service,
        http: settings.http,
        server: ServerConfig {
            endpoint: server.server_endpoint,
            strategy: server.server_strategy,
            allowed_calls: server.app_server_calls,
            command: server.server_command,
            args: server.server_arg,
            cwd,
            child_environment: ChildEnvironment {
                path: environment.get(OsStr::new("PATH")).cloned(),
                local_bin: environment.get(OsStr::new("HOME")).map(|home| Path::new(home).join(".local/bin")),
                codex_home,
            },
            demo: false,
        },
        limits: settings.limits,
        log_filter,
        #[cfg(feature = "mutations")]
        mutation: environment
            .get(OsStr::new("BAA_CODEXD_MUTATION"))
            .and_then(|name| name.to_str().map(str::to_owned)),
        report,
    })
}

/// Computes defaults, and notes in the report where they came from.
struct Resolver<'a> {
    report: Report,
    environment: &'a Environment,
    platform: Platform,
}

impl Resolver<'_> {
    fn paths(&mut self, given: PathSettings) -> Result<Paths, ConfigError> {
        let root = given.repo_root;
        let mut directory = |name, given: Option<PathBuf>, shared_variable, in_repository| match given {
            Some(path) => Ok(path),
            None => self.directory(name, shared_variable, root.as_ref().map(|root| root.join(in_repository))),
        };
        let logs_dir = directory("logs-dir", given.logs_dir, "BAA_LOGS_DIR", "logs")?;
        let state_dir = directory("state-dir", given.state_dir, "BAA_STATE_DIR", "state")?;
        let home = self.absolute_path("HOME")?;
        let has_events_in_state = self.platform.has_events_in_state(home.as_deref(), &logs_dir);
        let paths = Paths::new(root, logs_dir, state_dir);
        Ok(if has_events_in_state { paths.with_events_in_state() } else { paths })
    }

    /// The default of the state or log directory: `codexd` in the shared one or in the repository, else per user.
    fn directory(
        &mut self,
        name: &'static str,
        shared_variable: &'static str,
        in_repository: Option<PathBuf>,
    ) -> Result<PathBuf, ConfigError> {
        if let Some(text) = self.variable(shared_variable)? {
            self.report.set_source(name, shared_variable);
            return Ok(path(&text).map_err(|problem| self.report.invalid(name, problem))?.join("codexd"));
        }
        if let Some(directory) = in_repository {
            self.report.set_source(name, &format!("default from {}", self.report.source("repo-root")));
            return Ok(directory.join("codexd"));
        }
        let home = self.absolute_path("HOME")?;
        let xdg_state_home = match self.platform {
            Platform::MacOs => None,
            Platform::Xdg => self.absolute_path("XDG_STATE_HOME")?,
        };
        let per_user = match name {
            "state-dir" => self.platform.state_dir(home.as_deref(), xdg_state_home.as_deref()),
            _ => self.platform.logs_dir(home.as_deref(), xdg_state_home.as_deref()),
        };
        let origin = if xdg_state_home.is_some() { "XDG_STATE_HOME" } else { "HOME" };
        self.report.set_source(name, &format!("default from {origin}"));
        per_user.ok_or(ConfigError::NoHomeForDefault { name })
    }

    fn server_cwd(&mut self, settings: &Settings) -> Result<PathBuf, ConfigError> {
        let name = "server-cwd";
        let (path, origin) = match (&settings.server.server_cwd, &settings.paths.repo_root) {
            (Some(path), _) => return Ok(path.clone()),
            (None, Some(root)) => (root.clone(), self.report.source("repo-root").to_owned()),
            (None, None) => {
                let home = self.absolute_path("HOME")?;
                (home.ok_or(ConfigError::NoHomeForDefault { name })?, "HOME".to_owned())
            }
        };
        self.report.set_source(name, &format!("default from {origin}"));
        match directory_problem(&path) {
            None => Ok(path),
            Some(reason) => Err(ConfigError::DefaultServerCwd { path, origin, reason }),
        }
    }

    /// Checks the settings that let further clients in: each needs a token, because the checks of the host and of the user
    /// are all that protects a daemon without one.
    fn clients(&self, settings: &mut Settings) -> Result<(), ConfigError> {
        let http = &mut settings.http;
        let hosts = self.list("allowed-host", &http.allowed_host)?;
        let hosts: Result<_, _> = hosts.iter().map(|host| parse_host(host)).collect();
        http.allowed_host = hosts.map_err(|problem| self.report.invalid("allowed-host", problem))?;
        http.allow_uid = self.list("allow-uid", &http.allow_uid)?;
        let given = [
            ("allowed-host", !http.allowed_host.is_empty()),
            ("allow-uid", !http.allow_uid.is_empty()),
            ("read-token-file", http.read_token_file.is_some()),
        ];
        match given.iter().find(|(_, is_given)| *is_given) {
            Some((name, _)) if settings.service.auth.auth_token_file.is_none() => {
                let problem = "works together with --auth-token-file only; \"codexd token\" makes a token.";
                Err(self.report.invalid(name, problem.to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn endpoint(
        &self,
        strategy: ChildStrategy,
        text: &str,
        codex_home: Option<&Path>,
    ) -> Result<ServerEndpoint, ConfigError> {
        let name = "server-endpoint";
        // Codex requires that the directory exists, so a relative one is one of the current directory.
        let control_socket = codex_home.and_then(|home| std::path::absolute(home.join(CONTROL_SOCKET)).ok());
        if strategy == ChildStrategy::Spawn {
            return Ok(ServerEndpoint::spawned(text.trim()));
        }
        if strategy == ChildStrategy::Shared {
            let Some(socket) = control_socket else {
                return Err(ConfigError::NoHomeForControlSocket);
            };
            let endpoint = ServerEndpoint::at_socket(&socket);
            let is_it = text.trim().eq_ignore_ascii_case(SOCKET_SCHEME) || text.trim() == endpoint.text;
            return match self.report.source(name) == DEFAULT || is_it {
                true => Ok(endpoint),
                false => Err(self.report.invalid(name, SHARED_ENDPOINT.to_owned())),
            };
        }
        if self.report.source(name) == DEFAULT {
            return Err(ConfigError::EndpointMissing);
        }
        // The rest of a unix:// endpoint is a path.
        let is_path = text.trim_start().to_ascii_lowercase().starts_with("unix://");
        let text = if is_path { text.trim_start() } else { text.trim() };
        ServerEndpoint::external(text, control_socket.as_deref())
            .map_err(|problem| self.report.invalid(name, problem))
    }

    /// The values of a setting that may have several. Flags are taken literally, an environment variable is a list.
    fn list(&self, name: &str, given: &[String]) -> Result<Vec<String>, ConfigError> {
        match given {
            [text] if self.report.is_from_variable(name) => {
                list(text).map_err(|problem| self.report.invalid(name, problem))
            }
            _ => Ok(given.to_vec()),
        }
    }

    fn log_filter(&mut self) -> Result<String, ConfigError> {
        let Some(filter) = self.variable(LOG_FILTER)? else { return Ok("info".to_owned()) };
        self.report.set_source("log-filter", LOG_FILTER);
        Ok(filter.trim().to_owned())
    }

    /// The text of an environment variable, byte for byte; a blank one counts as unset.
    fn variable(&self, name: &str) -> Result<Option<String>, ConfigError> {
        let text =
            self.environment.get(OsStr::new(name)).map(|value| value.clone().into_string()).transpose();
        let text = text.map_err(|_| ConfigError::NotUnicode { variable: name.to_owned() })?;
        match text.filter(|text| !text.trim().is_empty()) {
            Some(text) if text.contains(char::is_control) => {
                Err(ConfigError::Invalid { origin: name.to_owned(), problem: CONTROL_CHARACTER.to_owned() })
            }
            text => Ok(text),
        }
    }

    /// An absolute path in an environment variable that other programs set; a relative one is ignored.
    fn absolute_path(&self, name: &str) -> Result<Option<PathBuf>, ConfigError> {
        Ok(self.variable(name)?.map(PathBuf::from).filter(|path| path.is_absolute()))
    }
}
