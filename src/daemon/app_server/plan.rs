//! How the app-server is run: the program or address, its environment, its limits.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::codex::protocol::environment;
use crate::codex::{Address, App, Plan, Program, RecordChild};
use crate::config::{Config, Endpoint, find_program, settings};
use crate::daemon::app_server::child_file::child_file_writer;
use crate::daemon::codex_health::Codex;
use crate::storage::Disk;

/// The plan for the app-server of the daemon `daemon_id`; `guard` is the path of this program.
///
/// `codex` is notified before each start.
pub(crate) fn plan(
    config: &Arc<Config>,
    daemon_id: &str,
    disk: &Disk,
    guard: Option<PathBuf>,
    codex: &Arc<Codex>,
) -> Plan {
    let codex = Arc::clone(codex);
    let starts = move |program: Option<&Path>| codex.process_starts(program);
    plan_recorded(
        config,
        daemon_id,
        guard,
        child_file_writer(disk.clone(), config.paths.child.clone()),
        starts,
    )
}

/// The plan for a short inspection (`codexd doctor`): nothing is recorded, and a running daemon's app-server is not
/// touched.
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
                // The path of the token file: a model's commands have no use for it.
                removed_environment: std::iter::once(settings::AUTH_TOKEN_FILE)
                    .chain(environment::THREAD_VARIABLES)
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
            "--start-timeout or {} sets the time of the first",
            settings::START_TIMEOUT
        ),
        call_timeout: limits.call_timeout,
        check_interval: limits.check_interval,
    }
}

/// The `CODEX_HOME` of the app-server, where codexd starts it.
pub(crate) fn codex_home(config: &Config) -> Option<PathBuf> {
    match config.server.endpoint.target() {
        Endpoint::Stdio => config.server.child_environment.codex_home.clone(),
        Endpoint::WebSocket(_) | Endpoint::Unix(_) => None,
    }
}
