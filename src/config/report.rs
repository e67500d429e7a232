//! The configuration as output: the report of `codexd config`, and the part of the status snapshot.

use std::fmt;
use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use super::values::{Config, ReportRow};

impl Config {
    /// Every setting with its value and source.
    pub fn report(&self) -> ConfigReport<'_> {
        ConfigReport::new(&self.report)
    }

    /// The configuration as part of the status snapshot.
    pub fn view(&self) -> ConfigView {
        ConfigView::new(self)
    }
}

/// Every setting with its value and source.
///
/// `Display` formats aligned lines without a final line break; as JSON it is `{"settings": [{"name", "value",
/// "source"}]}`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConfigReport<'a> {
    /// The rows, in the order of the help.
    pub settings: &'a [ReportRow],
}

impl<'a> ConfigReport<'a> {
    pub(super) fn new(settings: &'a [ReportRow]) -> Self {
        Self { settings }
    }
}

impl fmt::Display for ConfigReport<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<(&str, String, String)> = self
            .settings
            .iter()
            .map(|row| (row.name, value_text(&row.value), row.source.to_string()))
            .collect();
        let name_width = rows.iter().map(|(name, ..)| name.chars().count()).max().unwrap_or_default();
        let value_width = rows.iter().map(|(_, value, _)| value.chars().count()).max().unwrap_or_default();
        for (index, (name, value, source)) in rows.iter().enumerate() {
            let line_break = if index == 0 { "" } else { "\n" };
            write!(formatter, "{line_break}{name:name_width$}  {value:value_width$}  ({source})")?;
        }
        Ok(())
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
    /// `spawn` or `external`.
    pub child_strategy: &'static str,
    /// The program as it was set.
    pub child_command: String,
    /// Its arguments.
    pub child_args: Vec<String>,
    /// The working directory.
    pub child_cwd: String,
}

impl ConfigView {
    pub(super) fn new(config: &Config) -> Self {
        let (paths, server) = (&config.paths, &config.server);
        Self {
            node_id: config.node_id.clone(),
            version: config.version.to_owned(),
            event_cache_size: config.event_cache_size,
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
                event_stream_path: config.service.event_stream_path.clone(),
                local_api_base: config.service.local_api_base.to_string(),
            },
            server: ServerView {
                mode: server.mode.as_str(),
                endpoint: server.endpoint.to_string(),
                child_strategy: server.strategy.as_str(),
                child_command: server.command.clone(),
                child_args: server.args.clone(),
                child_cwd: text(&server.cwd),
            },
        }
    }
}

/// A current directory that is not UTF-8 can lead to such a path; JSON cannot contain it, so it is shown approximately.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn value_text(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}
