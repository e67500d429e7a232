//! Processes on macOS: asked of `ps`; orphans go to launchd, and only their environment tells whose they are.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::info::Seen;
use super::ps::{self, COLUMNS};

/// There is no such thing as a subreaper here.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(())
}

/// Orphans go to launchd.
pub(crate) fn are_orphans_ours() -> bool {
    false
}

/// Orphans are waited for by launchd.
pub(crate) fn reap(_spared: &[Pid]) {}

/// Every process, and whether `mark` (`NAME=value`) is in its environment, which `ps` shows of our own ones only.
pub(crate) fn list(mark: &str) -> io::Result<Vec<Seen>> {
    Ok(ps::parse(&ps(&["-Eww", "-axo", COLUMNS])?, mark))
}

/// There is no helper here: the system's own sandbox makes nothing that would have to be removed.
pub(crate) fn is_sandbox(_: Pid) -> bool {
    false
}

/// Asked of nothing, as no process is a sandbox.
pub(crate) fn carries(_: Pid, _: &str) -> bool {
    false
}

/// Nothing has to be tidied up before the stdin of a process ends.
pub(crate) fn hold_stdin(_: u32, _: &str) -> Option<OwnedFd> {
    None
}

/// Sends a signal to the process that was seen; one that has ended is no failure.
pub(crate) fn signal(seen: &Seen, signal: Signal) -> io::Result<()> {
    let pid = seen.pid.as_raw_nonzero().to_string();
    // The system has no descriptor of a process, so between this look and the signal lies a moment.
    let now = ps::parse(&ps(&["-o", COLUMNS, "-p", &pid]).unwrap_or_default(), "");
    if now.iter().any(|now| now.started == seen.started && !now.ended) {
        kill(seen.pid, signal)
    } else {
        Ok(())
    }
}

/// Sends SIGKILL to a process, when it still is the right one.
pub(crate) fn kill_if(pid: Pid, is_the_one: impl FnOnce() -> bool) -> io::Result<()> {
    if is_the_one() { kill(pid, Signal::KILL) } else { Ok(()) }
}

fn kill(pid: Pid, signal: Signal) -> io::Result<()> {
    match kill_process(pid, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// When a running process started, and what it runs.
pub(crate) fn identify(pid: Pid) -> Option<(String, PathBuf)> {
    let pid = pid.as_raw_nonzero().to_string();
    let seen = ps::parse(&ps(&["-o", COLUMNS, "-p", &pid]).ok()?, "");
    let seen = seen.into_iter().next().filter(|seen| !seen.ended)?;
    let executable = ps(&["-o", "comm=", "-p", &pid]).ok()?;
    Some((seen.started, PathBuf::from(executable.trim_end())))
}

/// How much memory a process has in use: not said here, because nothing but another process, `ps`, could find it out.
pub(crate) fn memory(_: Pid) -> Option<u64> {
    None
}

/// What a process has started; asked for only where [`memory`] says something.
pub(crate) fn children(_: Pid) -> Vec<Pid> {
    Vec::new()
}

/// What `ps` says; it ends with 1 when there is no such process.
fn ps(arguments: &[&str]) -> io::Result<String> {
    let output = Command::new("/bin/ps")
        .args(arguments)
        // The words of dates depend on the language.
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
