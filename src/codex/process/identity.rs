//! The identity of a process, which holds after its PID is reused.

use std::io;
use std::path::PathBuf;

use rustix::process::Signal;

use super::info::pid_of;
use super::platform;

/// How many processes may be between a program that is started and the app-server: npm's script is one.
const MAX_LAUNCHERS: usize = 8;

/// Identifies exactly one process, even if its PID is reused later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its PID.
    pub pid: u32,
    /// When it started, in the format of the system; on Linux with the boot ID.
    pub start_time: String,
    /// Its executable.
    pub executable: PathBuf,
}

impl Identity {
    /// The identity of a running process; `None` when there is no such process or it has ended.
    pub fn of(pid: u32) -> Option<Self> {
        let (start_time, executable) = platform::identify(pid_of(pid)?)?;
        Some(Self { pid, start_time, executable })
    }

    /// Whether exactly this process still runs.
    pub fn is_running(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Sends a signal to exactly this process; it is no error if it has ended.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        pid_of(self.pid).map_or(Ok(()), |pid| platform::signal_if(pid, signal, || self.is_running()))
    }

    /// Whether this process is the one with this PID, or a descendant of it.
    pub(crate) fn descends_from(&self, ancestor: u32) -> bool {
        let parents = std::iter::successors(Some(self.pid), |&pid| platform::parent(pid_of(pid)?));
        parents.take(MAX_LAUNCHERS).any(|pid| pid == ancestor)
    }
}
