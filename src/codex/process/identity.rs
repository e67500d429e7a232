//! The identity of a process, which holds after its PID is reused.

use std::io;
use std::path::PathBuf;

use rustix::process::Signal;

use super::info::pid_of;
use super::platform;

/// How many processes may be between a program that is started and the app-server: npm's script is one.
const MAX_LAUNCHERS: usize = 8;

/// Identifies exactly one process, even if its PID is reused later.
///
/// Two are equal if they are of the same process.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its PID.
    pub pid: u32,
    /// When it started, in the format of the system; on Linux with the boot ID.
    pub start_time: String,
    /// Its executable.
    pub executable: PathBuf,
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.is(other, platform::HAS_EXECUTABLE)
    }
}

impl Eq for Identity {}

impl Identity {
    /// Whether both are of the same process; `has_executable` is whether the system reports executables.
    ///
    /// macOS reports a name instead, which a process changes: that of npm's codex is `/usr/bin/env` and then `node`.
    fn is(&self, other: &Self, has_executable: bool) -> bool {
        let Self { pid, start_time, executable } = other;
        self.pid == *pid
            && self.start_time == *start_time
            && (!has_executable || self.executable == *executable)
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_ignores_the_name_where_a_process_changes_it() {
        let of = |pid: u32, start_time: &str, executable: &str| Identity {
            pid,
            start_time: start_time.to_owned(),
            executable: executable.into(),
        };
        let before = of(1, "Mon Nov 30 06:00:00 2026", "/usr/bin/env");
        let after = of(1, "Mon Nov 30 06:00:00 2026", "node");
        assert!(before.is(&after, false) && !before.is(&after, true));
        for has_executable in [false, true] {
            assert!(before.is(&before.clone(), has_executable));
            assert!(!before.is(&of(2, &before.start_time, "/usr/bin/env"), has_executable));
            assert!(!before.is(&of(1, "Mon Nov 30 06:00:01 2026", "/usr/bin/env"), has_executable));
        }
    }
}
