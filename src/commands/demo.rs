//! `codexd start --demo`: the settings of a daemon whose app-server is the demo.

use super::failure::Failure;
use crate::config::{ChildStrategy, Config, ServerEndpoint, Settings};

/// The label of the demo among the endpoints.
const ENDPOINT: &str = "stdio://demo-app-server";
/// The directory of the demo in the directories of a daemon.
pub(crate) const DIRECTORY: &str = "demo";
/// The subcommand that is the demo app-server.
const SUBCOMMAND: &str = "demo-app-server";

/// The given settings, with the demo as the app-server and with `demo` in the state and logs directories as directories.
///
/// The demo keeps its threads in `threads` in the state directory. It knows no file of Codex.
pub(crate) fn config(given: Settings) -> Result<Config, Failure> {
    let mut config = resolve(given)?;
    config.paths = config.paths.in_subdirectory(DIRECTORY);
    let store = config.paths.state_dir.join("threads");
    config.server.args.extend(["--store".to_owned(), store.to_string_lossy().into_owned()]);
    Ok(config)
}

/// The configuration with the demo as the app-server.
pub(crate) fn resolve(mut settings: Settings) -> Result<Config, Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::new(format!("The path of this program is unknown: {error}.")))?;
    let server = &mut settings.server;
    server.server_strategy = ChildStrategy::Spawn;
    server.server_endpoint = ServerEndpoint::spawned(ENDPOINT);
    server.server_command = program.to_string_lossy().into_owned();
    server.server_arg = vec![SUBCOMMAND.to_owned()];
    let mut config = super::config::resolve(settings)?;
    config.server.child_environment.codex_home = None;
    config.server.demo = true;
    Ok(config)
}

/// What `start --demo` prints about itself; `base` is the address of the daemon.
pub(crate) fn notice(config: &Config, base: &str) -> String {
    format!(
        "codexd: This is the demo, not Codex: its answers are prepared, and it needs no account and no network. It keeps its \
         state in {}.\ncodexd: Open {base} in a browser, or type: {} ask hello --local-api-base {base}",
        config.paths.state_dir.display(),
        config.own_command()
    )
}
