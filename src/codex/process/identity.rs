//! One process, told from every other that gets its number.

use std::io;
use std::path::PathBuf;

use super::info::pid_of;
use super::platform;

/// A process and no other, whoever gets its number later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its process id.
    pub pid: u32,
    /// When it started, in the words of the system; on Linux with the boot in them.
    pub start_time: String,
    /// The program it runs.
    pub executable: PathBuf,
}

impl Identity {
    /// That of a running process; `None` when there is none of this number, or it has ended.
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
