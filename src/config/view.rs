//! The configuration as part of the status snapshot.

use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use super::parse::MODE;
use super::values::Config;

impl Config {
    /// The configuration as part of the status snapshot.
    pub fn view(&self) -> ConfigView {
        let (paths, server) = (&self.paths, &self.server);
        ConfigView {
            node_id: self.node_id.clone(),
            version: self.version.to_owned(),
            event_cache_size: self.event_cache_size,
            paths: PathsView {
                repo_root: paths.repo_root.as_deref().map(text),
                logs_dir: text(&paths.logs_dir),
                state_dir: text(&paths.state_dir),
                structured_event_log_path: text(&paths.structured_event_log),
                stdout_log_path: text(&paths.stdout_log),
                stderr_log_path: text(&paths.stderr_log),
                identity_path: text(&paths.identity),
                daemon_state_path: text(&paths.daemon_state),
                session_registry_path: text(&paths.session_registry),
                recent_events_path: text(&paths.recent_events),
            },
            service: ServiceView {
                event_stream_path: self.service.event_stream_path.clone(),
                local_api_base: self.service.local_api_base.to_string(),
            },
            server: ServerView {
                mode: MODE,
                endpoint: server.endpoint.to_string(),
                child_strategy: server.strategy.as_str(),
                child_command: server.command.clone(),
                child_args: server.args.clone(),
                child_cwd: text(&server.cwd),
            },
        }
    }
}

/// The configuration in the status snapshot, in the shape that clients know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigView {
    /// Name of this machine.
    pub node_id: String,
    /// Version of codexd.
    pub version: String,
    /// How many recent events are kept at hand.
    pub event_cache_size: usize,
    /// The directories and files.
    pub paths: PathsView,
    /// The listener.
    pub service: ServiceView,
    /// The app-server.
    pub server: ServerView,
}

/// The directories and files, as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "each field is the text of the field of `Paths` with the same name")]
pub struct PathsView {
    pub repo_root: Option<String>,
    pub logs_dir: String,
    pub state_dir: String,
    pub structured_event_log_path: String,
    pub stdout_log_path: String,
    pub stderr_log_path: String,
    pub identity_path: String,
    pub daemon_state_path: String,
    pub session_registry_path: String,
    pub recent_events_path: String,
}

/// Where the service listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ServiceSettings")]
pub struct ServiceView {
    /// The path of the event WebSocket.
    pub event_stream_path: String,
    /// The address as it was set; port 0 is still 0 here.
    pub local_api_base: String,
}

/// The app-server and how it is run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerView {
    /// `app-server`.
    pub mode: &'static str,
    /// Where the app-server is, secrets hidden.
    pub endpoint: String,
    /// `spawn`, `shared` or `external`.
    pub child_strategy: &'static str,
    /// The program as it was set.
    pub child_command: String,
    /// Its arguments.
    pub child_args: Vec<String>,
    /// The working directory.
    pub child_cwd: String,
}

/// A current directory that is not UTF-8 can lead to such a path; JSON cannot contain it, so it is shown approximately.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
