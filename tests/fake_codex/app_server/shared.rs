//! The state that the dispatcher and all turns of one process share.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::processes::Processes;
use super::requests::Requests;
use super::script::Startup;
use super::threads::Threads;
use super::wire::{Wire, locked};

/// The state of one app-server process.
pub(super) struct Shared {
    /// Dropped before `wire`: the end of the output tells that the files of the threads are unlocked.
    pub(super) threads: Threads,
    pub(super) wire: Wire,
    pub(super) requests: Requests,
    pub(super) processes: Processes,
    pub(super) startup: Startup,
    /// The number of further `turn/start` to reject as overloaded.
    pub(super) overload: AtomicU64,
    log: Mutex<Box<dyn Write + Send>>,
    end: Box<dyn Fn(Ending) + Send + Sync>,
    next_item: AtomicU64,
}

/// An end that a script asks for. The callback passed to [`Shared::new`] performs it; in a unit test it ends no
/// process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Ending {
    Exit(i32),
    Abort,
    Kill,
    CloseStdout,
    CloseStdin,
}

impl Shared {
    /// `out` receives the messages, `log` is stderr, `end` performs the ends that scripts ask for.
    pub(super) fn new(
        out: Box<dyn Write + Send>,
        log: Box<dyn Write + Send>,
        store: Option<PathBuf>,
        startup: Startup,
        end: Box<dyn Fn(Ending) + Send + Sync>,
    ) -> Self {
        Self {
            wire: Wire::new(out),
            threads: Threads::new(store),
            requests: Requests::default(),
            processes: Processes::default(),
            startup,
            overload: AtomicU64::new(0),
            log: Mutex::new(log),
            end,
            next_item: AtomicU64::new(0),
        }
    }

    /// Writes a line to stderr.
    pub(super) fn log(&self, line: &str) {
        // Without stderr nothing can be reported.
        let _ = locked(&self.log).write_all(format!("{line}\n").as_bytes());
    }

    /// Ends the process or closes a standard stream.
    pub(super) fn end(&self, ending: Ending) {
        (self.end)(ending);
    }

    /// A new ID of an item of the model: `msg_000001`.
    pub(super) fn item_id(&self, prefix: &str) -> String {
        let number = self.next_item.fetch_add(1, Ordering::Relaxed) + 1;
        format!("{prefix}_{number:06}")
    }
}
