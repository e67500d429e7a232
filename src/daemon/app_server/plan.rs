//! How the app-server is run: the program or address, its environment, its limits.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::codex::protocol::environment;
use crate::codex::{
    Address, App, DetachedProgram, FindProgram, OpenOutput, Plan, Program, RecordChild, SharedServer,
};
use crate::config::{ChildStrategy, Config, Endpoint, settings};
use crate::daemon::app_server::child_file::child_file_writer;
use crate::daemon::app_server::shared_server;
use crate::daemon::codex_health::Codex;
use crate::storage::Disk;

/// The plan for the app-server of the daemon `daemon_id`; `program` is the path of codexd itself, which runs the guard and
/// detaches a shared app-server.
///
/// `codex` is notified before each start.
pub(crate) fn plan(
    config: &Arc<Config>,
    daemon_id: &str,
    disk: &Disk,
    program: Option<PathBuf>,
    codex: &Arc<Codex>,
) -> Plan {
    let codex = Arc::clone(codex);
    let start = Start {
        find: find(config, move |program| codex.process_starts(program)),
        daemon_id: daemon_id.to_owned(),
        program,
    };
    let paths = &config.paths;
    let app = match (config.server.strategy, address(config)) {
        (_, None) => start.spawned(config, child_file_writer(disk.clone(), paths.child.clone())),
        (ChildStrategy::Shared, Some(Address::Unix(socket))) => App::Shared(SharedServer {
            socket,
            program: start
                .detached(config, shared_server::output(disk.clone(), paths.shared_server_log.clone())),
            known: shared_server::known(disk.clone(), paths.shared_server.clone()),
            record: shared_server::record(disk.clone(), paths.shared_server.clone()),
        }),
        (_, Some(address)) => App::External(address),
    };
    with_limits(config, app)
}

/// The plan for a short inspection (`codexd doctor`): nothing is recorded, a running daemon's app-server is not touched, and a
/// shared app-server is joined but not started.
pub(crate) fn plan_for_inspection(config: &Arc<Config>) -> Plan {
    let start = Start { find: find(config, |_| {}), daemon_id: "none".to_owned(), program: None };
    let spawned = || start.spawned(config, Arc::new(|_| {}));
    with_limits(config, address(config).map_or_else(spawned, App::External))
}

/// Where the app-server listens, unless it is a child.
fn address(config: &Config) -> Option<Address> {
    match config.server.endpoint.target() {
        Endpoint::Stdio => None,
        Endpoint::WebSocket(url) => Some(Address::Url(url.clone())),
        Endpoint::Unix(path) => Some(Address::Unix(path.clone())),
    }
}

/// Finds the program of the app-server; `starts` is told of it.
fn find(config: &Arc<Config>, starts: impl Fn(Option<&Path>) + Send + Sync + 'static) -> FindProgram {
    let config = Arc::clone(config);
    Arc::new(move || {
        let server = &config.server;
        let found = server.find_program();
        starts(found.as_deref().ok());
        found.map_err(|error| error.to_string())
    })
}

/// How the app-server is started.
struct Start {
    find: FindProgram,
    daemon_id: String,
    program: Option<PathBuf>,
}

impl Start {
    fn spawned(&self, config: &Config, record: RecordChild) -> App {
        let server = &config.server;
        App::Spawn(Program {
            find: Arc::clone(&self.find),
            arguments: server.args.clone(),
            directory: server.cwd.clone(),
            environment: self.environment(config),
            removed_environment: removed_environment(),
            instance: uuid::Uuid::new_v4().to_string(),
            guard: self.program.clone(),
            record,
        })
    }

    fn detached(&self, config: &Config, output: OpenOutput) -> DetachedProgram {
        let server = &config.server;
        let listen = environment::LISTEN_AT_CONTROL_SOCKET.map(str::to_owned);
        DetachedProgram {
            find: Arc::clone(&self.find),
            arguments: server.args.iter().cloned().chain(listen).collect(),
            directory: server.cwd.clone(),
            environment: self.environment(config),
            removed_environment: removed_environment(),
            launcher: self.program.clone(),
            output,
        }
    }

    /// What the app-server gets on top of our environment.
    fn environment(&self, config: &Config) -> Vec<(String, String)> {
        vec![
            ("BAA_CODEXD_DAEMON_ID".to_owned(), self.daemon_id.clone()),
            ("BAA_CODEXD_SERVER_ENDPOINT".to_owned(), config.server.endpoint.to_string()),
        ]
    }
}

/// What the app-server does not get of our environment.
pub(in crate::daemon) fn removed_environment() -> Vec<String> {
    // The path of the token file: a model's commands have no use for it.
    let names = std::iter::once(settings::AUTH_TOKEN_FILE).chain(environment::THREAD_VARIABLES);
    names.map(str::to_owned).collect()
}

fn with_limits(config: &Config, app: App) -> Plan {
    let limits = &config.limits;
    Plan {
        app,
        version: config.version.to_owned(),
        line_cap: limits.line_cap,
        start_timeout: limits.start_timeout,
        start_timeout_hint: format!(
            "--start-timeout or {} sets the time of the first",
            settings::START_TIMEOUT
        ),
        call_timeout: limits.call_timeout,
        check_interval: limits.check_interval,
    }
}

/// The `CODEX_HOME` of the app-server, where it is that of codexd.
pub(crate) fn codex_home(config: &Config) -> Option<PathBuf> {
    match config.server.strategy {
        ChildStrategy::Spawn | ChildStrategy::Shared => config.server.child_environment.codex_home.clone(),
        ChildStrategy::External => None,
    }
}
