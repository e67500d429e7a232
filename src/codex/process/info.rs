//! One process as a listing shows it.

use rustix::process::Pid;

/// One process as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) pid: Pid,
    /// Its parent's number; 0 when it has none.
    pub(crate) parent: i32,
    /// When it started, in the words of the listing.
    pub(crate) started: String,
    /// Whether it has ended and only waits for its parent to notice.
    pub(crate) ended: bool,
    /// Whether it carries the mark that was asked for.
    pub(crate) marked: bool,
}

pub(crate) fn pid_of(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}
