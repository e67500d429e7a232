//! What a supervisor runs, and its settings.

use std::time::Duration;

use crate::codex::process::child::Program;
use crate::codex::transport::websocket::Address;

/// Which app-server to look after.
#[derive(Clone)]
pub enum App {
    /// A child process of ours.
    Spawn(Program),
    /// Somebody else's.
    External(Address),
}

/// What to look after, and how.
#[derive(Clone)]
pub struct Plan {
    /// Which app-server.
    pub app: App,
    /// Our version, which the app-server puts into its user agent.
    pub version: String,
    /// The longest message that is kept, in bytes.
    pub line_cap: usize,
    /// How long connecting and `initialize` may take, each, at first.
    pub start_timeout: Duration,
    /// What sets that, for the sentence about an app-server that takes longer.
    pub start_timeout_hint: String,
    /// How long the app-server may take to answer a call.
    pub call_timeout: Duration,
    /// How long nothing may be heard before the app-server is asked whether it is still there.
    pub check_interval: Duration,
}
