//! Processes on macOS: listed by `ps`. Orphans go to launchd, and only their environment shows whose they are.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::info::ProcessInfo;
use super::ps::{self, PS_COLUMNS};

/// Does nothing: macOS has no subreaper.
pub fn become_subreaper() -> io::Result<()> {
    Ok(())
}

/// Never: orphans go to launchd.
pub(crate) fn is_subreaper() -> bool {
    false
}

/// Does nothing: launchd waits for orphans.
pub(crate) fn reap(_spared: &[Pid]) {}

/// All processes, and whether `mark` (`NAME=value`) is in their environment, which `ps` shows only for our own.
pub(crate) fn list(mark: &str) -> io::Result<Vec<ProcessInfo>> {
    Ok(ps::parse(&ps(&["-Eww", "-axo", PS_COLUMNS])?, mark))
}

/// Never: the system's sandbox makes nothing that has to be removed.
pub(crate) fn is_sandbox(_: Pid) -> bool {
    false
}

/// Never; asked only about sandboxes.
pub(crate) fn carries(_: Pid, _: &str) -> bool {
    false
}

/// Nothing to hold: no cleanup is needed before the stdin of a process ends.
pub(crate) fn hold_stdin(_: u32, _: &str) -> Option<OwnedFd> {
    None
}

/// Sends a signal to a listed process; it is no error if that has ended.
pub(crate) fn signal(process: &ProcessInfo, signal: Signal) -> io::Result<()> {
    let pid = process.pid.as_raw_nonzero().to_string();
    // macOS has no pidfd, so the process may end between this check and the signal.
    let now = ps::parse(&ps(&["-o", PS_COLUMNS, "-p", &pid]).unwrap_or_default(), "");
    if now.iter().any(|now| now.start_time == process.start_time && !now.has_ended) {
        kill(process.pid, signal)
    } else {
        Ok(())
    }
}

/// Sends a signal to a process if `is_the_one` holds.
pub(crate) fn signal_if(pid: Pid, signal: Signal, is_the_one: impl FnOnce() -> bool) -> io::Result<()> {
    if is_the_one() { kill(pid, signal) } else { Ok(()) }
}

fn kill(pid: Pid, signal: Signal) -> io::Result<()> {
    match kill_process(pid, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether [`identify`] returns an executable: `ps` has the name that the process has given itself.
pub(crate) const HAS_EXECUTABLE: bool = false;

/// When a running process started, and its name.
pub(crate) fn identify(pid: Pid) -> Option<(String, PathBuf)> {
    let pid = pid.as_raw_nonzero().to_string();
    let process = ps::parse(&ps(&["-o", PS_COLUMNS, "-p", &pid]).ok()?, "");
    let process = process.into_iter().next().filter(|process| !process.has_ended)?;
    let executable = ps(&["-o", "comm=", "-p", &pid]).ok()?;
    Some((process.start_time, PathBuf::from(executable.trim_end())))
}

/// The parent of a process.
pub(crate) fn parent(pid: Pid) -> Option<u32> {
    let pid = pid.as_raw_nonzero().to_string();
    ps::parse(&ps(&["-o", PS_COLUMNS, "-p", &pid]).ok()?, "").first()?.parent.try_into().ok()
}

/// Not reported: only another process, `ps`, could find it out.
pub(crate) fn memory(_: Pid) -> Option<u64> {
    None
}

/// Not listed; asked only where [`memory`] reports something.
pub(crate) fn children(_: Pid) -> Vec<Pid> {
    Vec::new()
}

/// The output of `ps`, which exits with 1 when there is no such process.
fn ps(arguments: &[&str]) -> io::Result<String> {
    let output = Command::new("/bin/ps")
        .args(arguments)
        // The names in dates depend on the locale, and start times on the time zone, which may change while a process runs.
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
