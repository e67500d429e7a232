//! The daemon's record as clients and `daemon-state.json` have it.

use schemars::JsonSchema;
use serde::Serialize;

use crate::config::Config;
use crate::state::{ChildState, DaemonState};
use crate::timestamp::Timestamp;

/// The daemon's part of the snapshot.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DaemonView {
    /// Whether it serves.
    pub started: bool,
    /// RFC 3339, UTC, milliseconds.
    pub started_at: Option<Timestamp>,
    /// RFC 3339, UTC, milliseconds.
    pub stopped_at: Option<Timestamp>,
    /// The time of the newest event, RFC 3339, UTC, milliseconds.
    pub updated_at: Option<Timestamp>,
    /// Its process id while it serves.
    pub pid: Option<u32>,
    /// The app-server that it supervises.
    pub child: ChildView,
}

/// The child's part of the snapshot.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChildView {
    /// `spawn`, `shared` or `external`.
    pub strategy: &'static str,
    /// `app-server`.
    pub mode: &'static str,
    /// Where it is.
    pub endpoint: String,
    /// The program as it was set.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its working directory.
    pub cwd: String,
    /// The version of the installed Codex, which may be another than the one that runs; `null` where it is not known.
    pub installed_version: Option<String>,
    /// Its record, from events.
    #[serde(flatten)]
    pub state: ChildState,
}

impl DaemonView {
    /// The record of the daemon with the settings of the app-server.
    pub(in crate::daemon) fn of(
        config: &Config,
        daemon: DaemonState,
        installed_version: Option<String>,
    ) -> Self {
        let server = config.view().server;
        Self {
            started: daemon.started,
            started_at: daemon.started_at,
            stopped_at: daemon.stopped_at,
            updated_at: daemon.updated_at,
            pid: daemon.pid,
            child: ChildView {
                strategy: server.child_strategy,
                mode: server.mode,
                endpoint: server.endpoint,
                command: server.child_command,
                args: server.child_args,
                cwd: server.child_cwd,
                installed_version,
                state: daemon.child,
            },
        }
    }
}
