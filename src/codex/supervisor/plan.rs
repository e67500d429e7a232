//! What the supervisor runs, and its limits. `daemon` and `commands/doctor` build it from the configuration.

use std::time::Duration;

use super::remote::SharedServer;
use crate::codex::process::child::Program;
use crate::codex::transport::websocket::Address;

/// The app-server to supervise.
#[derive(Clone)]
pub enum App {
    /// A child process of this daemon.
    Spawn(Program),
    /// An app-server that runs elsewhere.
    External(Address),
    /// The app-server that all programs of the user share; it outlives this daemon.
    Shared(SharedServer),
}

/// The configuration of a supervisor.
#[derive(Clone)]
pub struct Plan {
    /// The app-server.
    pub app: App,
    /// Our version, which the app-server puts into its user agent.
    pub version: String,
    /// The longest message that is kept, in bytes.
    pub line_cap: usize,
    /// The first limit for connecting and for `initialize`, each.
    pub start_timeout: Duration,
    /// The name of the setting for `start_timeout`, quoted when an app-server takes longer.
    pub start_timeout_hint: String,
    /// How long the app-server may take to answer a call.
    pub call_timeout: Duration,
    /// How long the connection may be silent before the app-server is probed.
    pub check_interval: Duration,
}
