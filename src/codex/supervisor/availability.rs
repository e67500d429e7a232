//! Whether the app-server can be called. The supervisor publishes it; `daemon` watches it.

use jiff::Timestamp;

use crate::codex::rpc::client::Client;

/// The reason while codexd stops.
pub(crate) const STOPPING: &str = "codexd is stopping.";

/// Whether the app-server can be called now.
#[derive(Debug, Clone)]
pub enum Availability {
    /// It is starting.
    Starting {
        /// Why the generation before it ended, as a sentence; `None` for the first.
        reason: Option<String>,
    },
    /// It can be called.
    Ready(Client),
    /// It cannot be called until it is restarted.
    Waiting(Waiting),
    /// It cannot be called and will not be restarted.
    Stopped {
        /// Why, as a sentence.
        reason: String,
    },
}

/// The kind of failure of an app-server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Its program could not be started.
    NotStarted,
    /// An app-server that runs elsewhere cannot be reached.
    Unreachable,
    /// It runs but did not answer `initialize` in time.
    SlowStart,
    /// It ended, or was ended for another reason.
    Ended,
}

/// The time between a failure and the next start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Why it failed, as a sentence.
    pub reason: String,
    /// When it is restarted; `None` while its remains are being cleaned up.
    pub until: Option<Timestamp>,
    /// How many failures there were in a row.
    pub failures: u32,
    /// Whether it fails so often that it is tried only once a minute.
    pub crash_loop: bool,
    /// The last lines of its stderr, secrets redacted.
    pub stderr_tail: Vec<String>,
    /// The kind of failure.
    pub failure: Failure,
    /// The generation that failed.
    pub generation: u64,
}

/// The connection has ended and the cause is not yet known.
pub(crate) fn terminating(generation: u64, reason: String) -> Availability {
    let (failures, crash_loop, stderr_tail, failure) = (0, false, Vec::new(), Failure::Ended);
    Availability::Waiting(Waiting {
        reason,
        until: None,
        failures,
        crash_loop,
        stderr_tail,
        failure,
        generation,
    })
}
