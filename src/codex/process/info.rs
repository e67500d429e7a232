//! One entry of a process listing.

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

/// The environment variable that marks the programs that codexd runs beside the app-server, and their descendants; its
/// value is that of their daemon's state directory.
pub(crate) const PROGRAM_VARIABLE: &str = "BAA_CODEXD_HOOK";

/// One entry of a process listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProcessInfo {
    pub(crate) pid: Pid,
    /// The PID of its parent; 0 when it has none.
    pub(crate) parent: i32,
    /// The ID of its process group.
    pub(crate) group: i32,
    /// When it started, in the format of the listing.
    pub(crate) start_time: String,
    /// Whether it is a zombie: it has exited and its parent has not waited for it.
    pub(crate) has_ended: bool,
    /// Whether it has the mark that the listing was asked for.
    pub(crate) is_marked: bool,
    /// Whether it belongs to a program that codexd runs beside the app-server.
    pub(crate) is_program: bool,
}

/// What identifies a process until the machine is started again, and its group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KnownProcess {
    /// Its PID.
    pub pid: u32,
    /// When it started, in the format of a listing.
    pub start_time: String,
    /// The ID of its process group.
    pub group: i32,
}

impl KnownProcess {
    pub(crate) fn of(process: &ProcessInfo) -> Self {
        let ProcessInfo { pid, start_time, group, .. } = process;
        Self { pid: pid.as_raw_nonzero().get().unsigned_abs(), start_time: start_time.clone(), group: *group }
    }

    /// Whether it is this process of a listing.
    pub(crate) fn is(&self, process: &ProcessInfo) -> bool {
        pid_of(self.pid) == Some(process.pid) && self.start_time == process.start_time
    }
}

/// The PID as rustix has it; `None` when it cannot be one.
pub(crate) fn pid_of(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}
