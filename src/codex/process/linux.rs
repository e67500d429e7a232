//! Processes on Linux: read from `/proc`, ended through a descriptor of the process, adopted as a child subreaper.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, pidfd_open, pidfd_send_signal,
};

use super::info::{Seen, pid_of};

/// Makes this process the one that gets the orphans of its children, and with it the duty to wait for them.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(getpid()))?)
}

/// Whether [`adopt_orphans`] holds: then everything that descends from this process is its own.
pub(crate) fn are_orphans_ours() -> bool {
    matches!(rustix::process::child_subreaper(), Ok(Some(_)))
}

/// Every process, and whether `mark` (`NAME=value`) is in its environment.
pub(crate) fn list(mark: &str) -> io::Result<Vec<Seen>> {
    let mut seen = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        let Some(pid) = name.parse().ok().and_then(pid_of) else { continue };
        // A process may end while it is looked at; then it is not there.
        let Some(stat) = Stat::of(pid) else { continue };
        let marked = !stat.ended && carries(pid, mark);
        let Stat { parent, started, ended } = stat;
        seen.push(Seen { pid, parent, started, ended, marked });
    }
    Ok(seen)
}

/// The environment it was started with; that of others cannot be read, and theirs are not ours.
pub(crate) fn carries(pid: Pid, mark: &str) -> bool {
    let environment = fs::read(path(pid, "environ")).unwrap_or_default();
    environment.split(|&byte| byte == 0).any(|variable| variable == mark.as_bytes())
}

/// Whether it is Codex's helper that sets up the sandbox of a command: Codex under another name.
pub(crate) fn is_sandbox(pid: Pid) -> bool {
    let words = fs::read(path(pid, "cmdline")).unwrap_or_default();
    let program = words.split(|&byte| byte == 0).next().unwrap_or_default();
    program.rsplit(|&byte| byte == b'/').next() == Some(b"codex-linux-sandbox")
}

/// Another writing end of the pipe that is the stdin of a process; `None` when it is no pipe, or that of a process without
/// this mark. As long as it is there, the process does not see the end of its stdin.
pub(crate) fn hold_stdin(pid: u32, mark: &str) -> Option<OwnedFd> {
    let pid = pid_of(pid)?;
    let pipe = rustix::fs::open(
        path(pid, "fd/0"),
        OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .ok()?;
    let is_pipe = FileType::from_raw_mode(rustix::fs::fstat(&pipe).ok()?.st_mode) == FileType::Fifo;
    // Looked at afterwards: until then the number may have gone to another process.
    (is_pipe && carries(pid, mark)).then_some(pipe)
}

/// Sends a signal to the process that was seen; one that has ended is no failure.
pub(crate) fn signal(seen: &Seen, signal: Signal) -> io::Result<()> {
    let is_the_one = || Stat::of(seen.pid).is_some_and(|now| now.started == seen.started && !now.ended);
    signal_if(seen.pid, signal, is_the_one)
}

/// Sends SIGKILL to a process, when it still is the right one.
pub(crate) fn kill_if(pid: Pid, is_the_one: impl FnOnce() -> bool) -> io::Result<()> {
    signal_if(pid, Signal::KILL, is_the_one)
}

/// The descriptor stands for one process for ever, so a look after it was opened tells whether it is the right one.
fn signal_if(pid: Pid, signal: Signal, is_the_one: impl FnOnce() -> bool) -> io::Result<()> {
    let descriptor = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(descriptor) => descriptor,
        Err(Errno::SRCH) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if !is_the_one() {
        return Ok(());
    }
    match pidfd_send_signal(&descriptor, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Waits for those of our children that have ended, but for the spared ones: somebody else waits for them.
pub(crate) fn reap(spared: &[Pid]) {
    let Ok(entries) = fs::read_dir("/proc") else { return };
    let me = getpid().as_raw_nonzero().get();
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    for pid in names.filter_map(|name| name.parse().ok().and_then(pid_of)) {
        let is_ours = Stat::of(pid).is_some_and(|stat| stat.ended && stat.parent == me);
        if is_ours && !spared.contains(&pid) {
            // Only we can wait for a child of ours, so its number cannot have gone to another meanwhile.
            let _ = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
    }
}

/// When a running process started, and what it runs.
pub(crate) fn identify(pid: Pid) -> Option<(String, PathBuf)> {
    let stat = Stat::of(pid).filter(|stat| !stat.ended)?;
    let executable = fs::read_link(path(pid, "exe")).ok()?.to_string_lossy().into_owned();
    // An upgrade takes the name away from the program that runs.
    let executable = executable.strip_suffix(" (deleted)").unwrap_or(&executable);
    // The start is counted from the boot, so that without it the same numbers would come back with the next one.
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Some((format!("{}/{}", boot.trim(), stat.started), PathBuf::from(executable)))
}

/// How much memory a process has in use, in bytes.
pub(crate) fn memory(pid: Pid) -> Option<u64> {
    let status = fs::read_to_string(path(pid, "status")).ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"))?;
    Some(kilobytes.trim().parse::<u64>().ok()? * 1024)
}

/// What a process has started and not yet waited for; a kernel may be built without the list, then there are none.
pub(crate) fn children(pid: Pid) -> Vec<Pid> {
    let Ok(tasks) = fs::read_dir(path(pid, "task")) else { return Vec::new() };
    let lists = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let pids = |list: String| list.split_whitespace().filter_map(|pid| pid_of(pid.parse().ok()?)).collect();
    lists.flat_map::<Vec<_>, _>(pids).collect()
}

/// The parts of `/proc/PID/stat` that matter.
struct Stat {
    parent: i32,
    /// Clock ticks since the boot.
    started: String,
    ended: bool,
}

impl Stat {
    fn of(pid: Pid) -> Option<Self> {
        let text = fs::read(path(pid, "stat")).ok()?;
        let text = String::from_utf8_lossy(&text);
        // The name stands in parentheses and may have anything in it, parentheses and spaces included (proc(5)).
        let (_, fields) = text.rsplit_once(") ")?;
        let mut fields = fields.split(' ');
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        // The start is the 22nd field; the state is the third.
        let started = fields.nth(22 - 5)?.to_owned();
        Some(Self { parent, started, ended: matches!(state, "Z" | "X") })
    }
}

fn path(pid: Pid, name: &str) -> PathBuf {
    Path::new("/proc").join(pid.as_raw_nonzero().to_string()).join(name)
}
