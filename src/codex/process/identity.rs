//! The identity of a process, which holds after its PID is reused.

use std::io;
use std::path::PathBuf;

use super::info::pid_of;
use super::platform;

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

    /// Sends SIGKILL to exactly this process.
    pub(crate) fn kill(&self) -> io::Result<()> {
        pid_of(self.pid).map_or(Ok(()), |pid| platform::kill_if(pid, || self.is_running()))
    }
}
