//! What the supervisor runs, and its limits. `daemon` and `commands/doctor` build it from the configuration.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::codex::process::child::Program;
use crate::codex::process::detached::DetachedProgram;
use crate::codex::process::identity::Identity;
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

/// The process of a shared app-server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedProcess {
    /// The process.
    pub identity: Identity,
    /// Whether codexd started it, in this run or an earlier one.
    pub is_ours: bool,
}

/// Reads the app-server that was joined or started last; may block.
pub type KnownServer = Arc<dyn Fn() -> Option<SharedProcess> + Send + Sync>;
/// Writes the app-server to disk; may block.
pub type RecordServer = Arc<dyn Fn(&SharedProcess) + Send + Sync>;

/// The app-server that all programs of the user share.
#[derive(Clone)]
pub struct SharedServer {
    /// Its socket.
    pub socket: PathBuf,
    /// Starts it where none runs.
    pub program: DetachedProgram,
    /// The app-server that was joined or started last.
    pub known: KnownServer,
    /// Records the app-server that is joined or started.
    pub record: RecordServer,
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
