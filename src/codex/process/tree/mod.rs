//! The processes of this machine, as far as they are ours: who descends from us, who carries our mark, and how they are
//! ended without ever hitting somebody else.
//!
//! A process is ours when the variable [`INSTANCE`] in its environment says so, when it descends from one that is, or,
//! where the system hands us the orphans of our children, when it descends from us.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getpid};

use crate::blocking::Pool;
#[cfg(target_os = "linux")]
pub(super) use crate::codex::process::linux as platform;
#[cfg(target_os = "macos")]
pub(super) use crate::codex::process::macos as platform;

pub(crate) use crate::codex::process::sandbox::Sandboxes;
pub use crate::codex::process::sandbox::end_sandboxes;
pub use platform::adopt_orphans;
pub(crate) use platform::{are_orphans_ours, hold_stdin, reap};

/// Threads for everything that starts, lists or ends processes, and for the file that names the app-server.
pub(crate) static POOL: Pool = Pool::new("processes", 4, 12);

/// The variable that marks the app-server and everything it starts; its value is the life of the daemon.
pub const INSTANCE: &str = "BAA_CODEXD_INSTANCE";

/// How long processes have after SIGTERM to end by themselves, before they get SIGKILL.
pub(crate) const SIGTERM_GRACE: Duration = Duration::from_secs(1);
/// How long a sweep goes on when there is always something left, [`SIGTERM_GRACE`] included.
pub(crate) const SWEEP: Duration = Duration::from_secs(2);
/// How long a sweep waits before it looks again.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(3);

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
}

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

/// Whose processes are meant, and which of them are left alone.
#[derive(Debug, Clone)]
pub(crate) struct Ours {
    /// The value of the mark.
    pub(crate) instance: String,
    /// Whether everything that descends from this process is ours as well.
    pub(crate) descendants: bool,
    /// Left alone; their owners wait for them.
    pub(crate) spared: Vec<Pid>,
    /// Left alone as well: children that this process had before it was codexd, such as those of a script that became
    /// it.
    pub(crate) strangers: Vec<Seen>,
}

impl Ours {
    /// Those that carry this mark, or descend from one that does.
    pub(crate) fn marked(instance: &str) -> Self {
        let (spared, strangers) = (Vec::new(), Vec::new());
        Self { instance: instance.to_owned(), descendants: false, spared, strangers }
    }

    /// Those of them that run now.
    pub(crate) fn running(&self) -> io::Result<Vec<Seen>> {
        let seen = platform::list(&format!("{INSTANCE}={}", self.instance))?;
        Ok(self.among(&seen, getpid()))
    }

    /// The same, and those of `known` that still run, which nothing may connect to us any more.
    fn running_or_known(&self, known: &[Seen]) -> io::Result<Vec<Seen>> {
        let seen = platform::list(&format!("{INSTANCE}={}", self.instance))?;
        let mut running = self.among(&seen, getpid());
        let is_known = |one: &&Seen| {
            let same = |other: &Seen| (other.pid, &other.started) == (one.pid, &one.started);
            !one.ended && known.iter().any(same) && !running.iter().any(same)
        };
        let more: Vec<_> = seen.iter().filter(is_known).cloned().collect();
        running.extend(more);
        Ok(running)
    }

    /// Those of them among these; `me` looks.
    fn among(&self, seen: &[Seen], me: Pid) -> Vec<Seen> {
        let me = me.as_raw_nonzero().get();
        let parents: HashMap<i32, i32> =
            seen.iter().map(|one| (one.pid.as_raw_nonzero().get(), one.parent)).collect();
        // Our own parents may carry the mark of an outer daemon, never ours; and they are never ours to end.
        let mut left_alone: HashSet<i32> = line_of(me, &parents).collect();
        left_alone.extend(self.spared.iter().map(|pid| pid.as_raw_nonzero().get()));
        let is_stranger = |one: &&Seen| {
            self.strangers.iter().any(|other| (other.pid, &other.started) == (one.pid, &one.started))
        };
        left_alone.extend(seen.iter().filter(is_stranger).map(|one| one.pid.as_raw_nonzero().get()));
        let roots: HashSet<i32> = seen
            .iter()
            .filter(|one| one.marked)
            .map(|one| one.pid.as_raw_nonzero().get())
            .filter(|pid| !left_alone.contains(pid))
            .chain(self.descendants.then_some(me))
            .collect();
        let is_ours = |one: &&Seen| {
            let pid = one.pid.as_raw_nonzero().get();
            // What a spared process started is its own business.
            !one.ended
                && !left_alone.contains(&pid)
                && line_of(pid, &parents)
                    .take_while(|pid| *pid == me || !left_alone.contains(pid))
                    .any(|pid| roots.contains(&pid))
        };
        seen.iter().filter(is_ours).cloned().collect()
    }
}

/// A process and all that it descends from; a listing is not of one moment, so it may lead in circles.
pub(super) fn line_of(pid: i32, parents: &HashMap<i32, i32>) -> impl Iterator<Item = i32> {
    let next = |pid: &i32| parents.get(pid).copied().filter(|&parent| parent > 0 && parent != *pid);
    std::iter::successors(Some(pid), next).take(parents.len() + 1)
}

/// Ends these processes and all that they start meanwhile, and those of `known`, until none is left or `limit` is over;
/// returns how many got a signal, and how many are left.
///
/// Each gets SIGTERM, and SIGKILL when it still runs after [`SIGTERM_GRACE`], or as soon as `hurry` says so.
/// Blocks: not for a task.
pub(crate) fn sweep(
    ours: &Ours,
    known: &[Seen],
    limit: Duration,
    hurry: impl Fn() -> bool,
) -> io::Result<(usize, usize)> {
    let began = Instant::now();
    let mut asked = HashSet::new();
    loop {
        let running = ours.running_or_known(known)?;
        let kill = began.elapsed() >= SIGTERM_GRACE || hurry();
        for one in &running {
            let is_new = asked.insert((one.pid, one.started.clone()));
            // SIGTERM once: some programs end at once, and untidily, after a second one.
            let sent = match (kill, is_new) {
                (true, _) => platform::signal(one, Signal::KILL),
                (false, true) => platform::signal(one, Signal::TERM),
                (false, false) => Ok(()),
            };
            if let Err(error) = sent {
                tracing::warn!(pid = one.pid.as_raw_nonzero(), %error, "a process cannot be ended");
            }
        }
        if ours.descendants {
            reap(&ours.spared);
        }
        if running.is_empty() || began.elapsed() >= limit {
            return Ok((asked.len(), running.len()));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Ends what an earlier life of the daemon left: exactly this app-server, if it still runs, and what carries the mark
/// of that life; returns how many processes were ended.
///
/// The app-server gets `grace` to end by itself, as it does when its stdin ends. Blocks: not for a task.
pub fn end_leftover(leader: &Identity, instance: &str, grace: Duration) -> io::Result<usize> {
    let until = Instant::now() + grace;
    while leader.is_running() && Instant::now() < until {
        std::thread::sleep(LOOK_AGAIN);
    }
    let mut ended = 0;
    let ours = Ours::marked(instance);
    Sandboxes::all(ours.clone()).end_blocking();
    if leader.is_running() {
        platform::end_identified(leader)?;
        ended += 1;
    }
    Ok(ended + sweep(&ours, &[], SWEEP, || false)?.0)
}

/// How much memory a process has in use, in bytes; `None` where the system does not say so at little cost.
pub fn memory(pid: u32) -> Option<u64> {
    platform::memory(pid_of(pid)?)
}

/// The same for a process and all that descend from it; what they share counts for each of them.
pub fn family_memory(pid: u32) -> Option<u64> {
    let leader = pid_of(pid)?;
    let mut bytes = platform::memory(leader)?;
    let (mut seen, mut waiting) = (HashSet::from([leader]), vec![leader]);
    while let Some(parent) = waiting.pop() {
        for child in platform::children(parent) {
            // Processes come and go meanwhile, and their numbers with them.
            if seen.insert(child) {
                bytes += platform::memory(child).unwrap_or(0);
                waiting.push(child);
            }
        }
    }
    Some(bytes)
}

pub(crate) fn pid_of(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}
