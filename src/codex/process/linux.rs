//! Processes on Linux: listed from `/proc`, signalled through pidfds, orphans adopted as a child subreaper.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, pidfd_open, pidfd_send_signal,
};

use super::info::{PROGRAM_VARIABLE, ProcessInfo, pid_of};

/// Makes this process the parent of orphaned descendants; it then has to wait for them.
pub fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(getpid()))?)
}

/// Whether [`become_subreaper`] took effect: then everything that descends from this process can be found.
pub(crate) fn is_subreaper() -> bool {
    matches!(rustix::process::child_subreaper(), Ok(Some(_)))
}

/// All processes, and whether `mark` (`NAME=value`) is in their environment.
pub(crate) fn list(mark: &str) -> io::Result<Vec<ProcessInfo>> {
    let mut process = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        let Some(pid) = name.parse().ok().and_then(pid_of) else { continue };
        // A process may end while it is inspected; then it is left out.
        let Some(stat) = Stat::of(pid) else { continue };
        let Stat { parent, group, start_time, has_ended } = stat;
        let environment = if has_ended { Vec::new() } else { environment(pid) };
        let has = |is_it: &dyn Fn(&[u8]) -> bool| environment.split(|&byte| byte == 0).any(is_it);
        let is_marked = has(&|variable| variable == mark.as_bytes());
        let is_program = has(&|variable| {
            variable.strip_prefix(PROGRAM_VARIABLE.as_bytes()).is_some_and(|rest| rest.starts_with(b"="))
        });
        process.push(ProcessInfo { pid, parent, group, start_time, has_ended, is_marked, is_program });
    }
    Ok(process)
}

/// Whether the initial environment has `mark`; that of other users cannot be read, and their processes are not ours.
pub(crate) fn carries(pid: Pid, mark: &str) -> bool {
    environment(pid).split(|&byte| byte == 0).any(|variable| variable == mark.as_bytes())
}

/// The initial environment: variables that end with a zero byte.
fn environment(pid: Pid) -> Vec<u8> {
    fs::read(path(pid, "environ")).unwrap_or_default()
}

/// Whether it is Codex's helper that sets up the sandbox of a command: the same executable under another name.
pub(crate) fn is_sandbox(pid: Pid) -> bool {
    let arguments = fs::read(path(pid, "cmdline")).unwrap_or_default();
    let program = arguments.split(|&byte| byte == 0).next().unwrap_or_default();
    program.rsplit(|&byte| byte == b'/').next() == Some(b"codex-linux-sandbox")
}

/// Another write end of the pipe that is the stdin of a process; `None` when stdin is not a pipe or the process lacks
/// `mark`. While it is open, the process does not see the end of its stdin.
pub(crate) fn hold_stdin(pid: u32, mark: &str) -> Option<OwnedFd> {
    let pid = pid_of(pid)?;
    let pipe = rustix::fs::open(
        path(pid, "fd/0"),
        OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .ok()?;
    let is_pipe = FileType::from_raw_mode(rustix::fs::fstat(&pipe).ok()?.st_mode) == FileType::Fifo;
    // Checked last: until the pipe is open, another process may get the PID.
    (is_pipe && carries(pid, mark)).then_some(pipe)
}

/// Sends a signal to a listed process; it is no error if that has ended.
pub(crate) fn signal(process: &ProcessInfo, signal: Signal) -> io::Result<()> {
    let is_the_one =
        || Stat::of(process.pid).is_some_and(|now| now.start_time == process.start_time && !now.has_ended);
    signal_if(process.pid, signal, is_the_one)
}

/// Sends a signal to a process if `is_the_one` holds once its PID can no longer be reused.
///
/// A pidfd refers to one process only, so a check after it was opened is reliable.
pub(crate) fn signal_if(pid: Pid, signal: Signal, is_the_one: impl FnOnce() -> bool) -> io::Result<()> {
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

/// Waits for our children that have exited, except for those in `excluded`, whose owners wait for them.
pub(crate) fn reap(excluded: &[Pid]) {
    let Ok(entries) = fs::read_dir("/proc") else { return };
    let me = getpid().as_raw_nonzero().get();
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    for pid in names.filter_map(|name| name.parse().ok().and_then(pid_of)) {
        let is_ours = Stat::of(pid).is_some_and(|stat| stat.has_ended && stat.parent == me);
        if is_ours && !excluded.contains(&pid) {
            // Only we can wait for our child, so no other process can have its PID yet.
            let _ = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
    }
}

/// Whether [`identify`] returns an executable.
pub(crate) const HAS_EXECUTABLE: bool = true;

/// When a running process started, and its executable.
pub(crate) fn identify(pid: Pid) -> Option<(String, PathBuf)> {
    let stat = Stat::of(pid).filter(|stat| !stat.has_ended)?;
    let executable = fs::read_link(path(pid, "exe")).ok()?.to_string_lossy().into_owned();
    // An upgrade removes the name of the running executable.
    let executable = executable.strip_suffix(" (deleted)").unwrap_or(&executable);
    // Start times count from boot; without the boot ID the same values could recur after a restart.
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Some((format!("{}/{}", boot.trim(), stat.start_time), PathBuf::from(executable)))
}

/// The parent of a process.
pub(crate) fn parent(pid: Pid) -> Option<u32> {
    Stat::of(pid)?.parent.try_into().ok()
}

/// The resident memory of a process, in bytes.
pub(crate) fn memory(pid: Pid) -> Option<u64> {
    let status = fs::read_to_string(path(pid, "status")).ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"))?;
    Some(kilobytes.trim().parse::<u64>().ok()? * 1024)
}

/// The children of a process; none when the kernel is built without that list.
pub(crate) fn children(pid: Pid) -> Vec<Pid> {
    let Ok(tasks) = fs::read_dir(path(pid, "task")) else { return Vec::new() };
    let lists = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let pids = |list: String| list.split_whitespace().filter_map(|pid| pid_of(pid.parse().ok()?)).collect();
    lists.flat_map::<Vec<_>, _>(pids).collect()
}

/// The parts of `/proc/PID/stat` that are used.
struct Stat {
    parent: i32,
    group: i32,
    /// In clock ticks since boot.
    start_time: String,
    has_ended: bool,
}

impl Stat {
    fn of(pid: Pid) -> Option<Self> {
        let text = fs::read(path(pid, "stat")).ok()?;
        let text = String::from_utf8_lossy(&text);
        // The name is in parentheses and may contain anything, parentheses and spaces included (proc(5)).
        let (_, fields) = text.rsplit_once(") ")?;
        let mut fields = fields.split(' ');
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        // The start time is field 22; the state is field 3.
        let start_time = fields.nth(22 - 6)?.to_owned();
        Some(Self { parent, group, start_time, has_ended: matches!(state, "Z" | "X") })
    }
}

fn path(pid: Pid, name: &str) -> PathBuf {
    Path::new("/proc").join(pid.as_raw_nonzero().to_string()).join(name)
}
