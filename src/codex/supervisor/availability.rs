//! Whether the app-server can be called.

use jiff::Timestamp;

use crate::codex::rpc::client::Client;

/// Why there is no app-server when none is wanted.
pub(crate) const STOPPING: &str = "codexd is stopping.";

/// Whether the app-server can be called now.
#[derive(Debug, Clone)]
pub enum Availability {
    /// It is being started.
    Starting {
        /// What the one before died of, as a sentence; `None` for the first.
        after: Option<String>,
    },
    /// It can.
    Ready(Client),
    /// It cannot, until it is started again.
    Waiting(Waiting),
    /// It cannot, and will not.
    Stopped {
        /// Why, as a sentence.
        reason: String,
    },
}

/// In what way an app-server failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Its program could not be started.
    NotStarted,
    /// One that runs elsewhere cannot be reached.
    Unreachable,
    /// It runs and did not answer `initialize` in time.
    SlowStart,
    /// It ended, or was ended for another reason.
    Ended,
}

/// The time between a death and the next start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// What it died of, as a sentence.
    pub reason: String,
    /// When it is started again; not known as long as what is left of it is being ended.
    pub until: Option<Timestamp>,
    /// How often it died in a row.
    pub deaths: u32,
    /// Whether it dies so often that it is tried once a minute only.
    pub crash_loop: bool,
    /// The last lines of its stderr, secrets hidden.
    pub last_words: Vec<String>,
    /// In what way it failed.
    pub failure: Failure,
    /// Which it was.
    pub generation: u64,
}

/// It is known to be lost, and not yet what of.
pub(crate) fn dying(generation: u64, reason: String) -> Availability {
    let (deaths, crash_loop, last_words, failure) = (0, false, Vec::new(), Failure::Ended);
    Availability::Waiting(Waiting {
        reason,
        until: None,
        deaths,
        crash_loop,
        last_words,
        failure,
        generation,
    })
}
