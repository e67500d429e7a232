//! The processes of this machine, as far as they are ours: who descends from us, who carries our mark, and how they are
//! ended without ever hitting somebody else.
//!
//! A process is ours when the variable [`INSTANCE`] in its environment says so, when it descends from one that is, or,
//! where the system hands us the orphans of our children, when it descends from us.

use std::collections::{HashMap, HashSet};
use std::io;

use rustix::process::{Pid, getpid};

use super::info::Seen;
use super::platform;

/// The variable that marks the app-server and everything it starts; its value is the life of the daemon.
pub const INSTANCE: &str = "BAA_CODEXD_INSTANCE";

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
    pub(crate) fn running_or_known(&self, known: &[Seen]) -> io::Result<Vec<Seen>> {
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
    pub(crate) fn among(&self, seen: &[Seen], me: Pid) -> Vec<Seen> {
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
pub(crate) fn line_of(pid: i32, parents: &HashMap<i32, i32>) -> impl Iterator<Item = i32> {
    let next = |pid: &i32| parents.get(pid).copied().filter(|&parent| parent > 0 && parent != *pid);
    std::iter::successors(Some(pid), next).take(parents.len() + 1)
}
