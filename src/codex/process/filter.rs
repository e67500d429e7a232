//! Which processes of this machine belong to the app-server.
//!
//! A process belongs to it when [`INSTANCE_VARIABLE`] in its environment has our value, when it descends from such a process,
//! or, where the system makes us the parent of orphans, when it descends from us; elsewhere also when it was seen before, see
//! `descendants.rs`. Sweeps and sandbox searches use it, so a
//! mistake here would end a foreign process: parents of this process and `excluded` ones never match, and the programs
//! that codexd runs beside the app-server match only their own mark.

use std::collections::{HashMap, HashSet};
use std::io;

use rustix::process::{Pid, getpid};

use super::info::{KnownProcess, ProcessInfo};
use super::platform;
use super::reaper::ChildRegistry;

/// The environment variable that marks the app-server and its descendants; its value is the ID of the daemon instance.
pub const INSTANCE_VARIABLE: &str = "BAA_CODEXD_INSTANCE";

/// A value of [`INSTANCE_VARIABLE`] that no process has: daemons use UUIDs.
pub(crate) const NO_INSTANCE: &str = "nobody";

/// Selects processes of one daemon instance.
#[derive(Debug, Clone)]
pub(crate) struct ProcessFilter {
    /// `NAME=value` in the environment.
    pub(crate) mark: String,
    /// Whether all descendants of this process match too.
    pub(crate) includes_descendants: bool,
    /// Never match; their owners wait for them.
    pub(crate) excluded: Vec<Pid>,
    /// Never match either, as they are at each listing.
    pub(crate) owned: Option<ChildRegistry>,
    /// Never match: children that this process had before it became codexd by exec, such as those of a wrapper script.
    pub(crate) preexisting_children: Vec<ProcessInfo>,
}

impl ProcessFilter {
    /// Matches processes of this daemon instance and their descendants.
    pub(crate) fn marked(instance: &str) -> Self {
        Self::with_mark(format!("{INSTANCE_VARIABLE}={instance}"))
    }

    /// Matches processes with this mark, `NAME=value`, and their descendants.
    pub(crate) fn with_mark(mark: String) -> Self {
        let (excluded, preexisting_children) = (Vec::new(), Vec::new());
        Self { mark, includes_descendants: false, excluded, owned: None, preexisting_children }
    }

    /// The matching processes that run now; without unmarked descendants while a child of ours is being started.
    pub(crate) fn running(&self) -> io::Result<Vec<ProcessInfo>> {
        let (processes, filter) = self.list(false)?;
        Ok(filter.among(&processes, getpid()))
    }

    /// Lists all processes, and returns the filter as it is at that time.
    ///
    /// A child that is being started is a descendant without an owner and, until its exec, without its mark. While there is
    /// one, only marked processes match, unless it hangs.
    fn list(&self, start_hangs: bool) -> io::Result<(Vec<ProcessInfo>, Self)> {
        let begun = self.owned.as_ref().map(ChildRegistry::starts);
        let processes = platform::list(&self.mark)?;
        let mut filter = self.clone();
        if let (Some(owned), Some(begun)) = (&self.owned, begun) {
            let is_settled = begun.are_done() || start_hangs;
            filter.includes_descendants &= is_settled && owned.starts() == begun;
            filter.excluded.extend(owned.pids());
        }
        Ok((processes, filter))
    }

    /// The same, and the [`ProcessFilter::family`] of `known`, whose connection to us may no longer be visible; and whether
    /// these are all. If the child that is being started hangs, it matches too.
    pub(crate) fn running_with(
        &self,
        known: &[KnownProcess],
        start_hangs: bool,
    ) -> io::Result<(Vec<ProcessInfo>, bool)> {
        let (processes, filter) = self.list(start_hangs)?;
        let is_complete = filter.includes_descendants == self.includes_descendants;
        let mut running = filter.among(&processes, getpid());
        let family = filter.family(&processes, known, getpid());
        let is_new = |one: &ProcessInfo| !running.iter().any(|other| other.pid == one.pid);
        let more: Vec<_> = family.into_iter().filter(is_new).collect();
        running.extend(more);
        Ok((running, is_complete))
    }

    /// The matching ones of `processes`; `me` is the PID of this process.
    pub(crate) fn among(&self, processes: &[ProcessInfo], me: Pid) -> Vec<ProcessInfo> {
        let marked = processes.iter().filter(|one| one.is_marked).map(|one| one.pid.as_raw_nonzero().get());
        let me_too = self.includes_descendants.then(|| me.as_raw_nonzero().get());
        self.descending(processes, marked.chain(me_too).collect(), me)
    }

    /// The running ones of `processes` that are in `known`, are in the process group of one that is, or descend from either.
    pub(super) fn family(
        &self,
        processes: &[ProcessInfo],
        known: &[KnownProcess],
        me: Pid,
    ) -> Vec<ProcessInfo> {
        if known.is_empty() {
            return Vec::new();
        }
        let is_known = |one: &ProcessInfo| known.iter().any(|other| other.is(one));
        let own_group = processes.iter().find(|one| one.pid == me).map(|one| one.group);
        // The ID of a group that has ended may be that of another one now, whose leader is not known.
        let is_ours = |group: i32| {
            let mut leaders = processes.iter().filter(|one| one.pid.as_raw_nonzero().get() == group);
            Some(group) != own_group && leaders.all(is_known)
        };
        let groups: HashSet<i32> =
            known.iter().map(|one| one.group).filter(|group| is_ours(*group)).collect();
        let roots = processes.iter().filter(|one| is_known(one) || groups.contains(&one.group));
        self.descending(processes, roots.map(|one| one.pid.as_raw_nonzero().get()).collect(), me)
    }

    /// The running ones of `processes` that are, or descend from, one of `roots` and are not excluded.
    fn descending(&self, processes: &[ProcessInfo], roots: HashSet<i32>, me: Pid) -> Vec<ProcessInfo> {
        let me = me.as_raw_nonzero().get();
        let parents: HashMap<i32, i32> =
            processes.iter().map(|one| (one.pid.as_raw_nonzero().get(), one.parent)).collect();
        // Our ancestors may carry the mark of an outer daemon, never ours, and must never be ended.
        let mut excluded: HashSet<i32> = ancestors(me, &parents).collect();
        excluded.extend(self.excluded.iter().map(|pid| pid.as_raw_nonzero().get()));
        let is_stranger = |one: &&ProcessInfo| {
            self.preexisting_children
                .iter()
                .any(|other| (other.pid, &other.start_time) == (one.pid, &one.start_time))
        };
        let is_program = |one: &&ProcessInfo| one.is_program && !one.is_marked;
        let spared = processes.iter().filter(|one| is_stranger(one) || is_program(one));
        excluded.extend(spared.map(|one| one.pid.as_raw_nonzero().get()));
        let is_root = |pid: i32| roots.contains(&pid) && (pid == me || !excluded.contains(&pid));
        let is_ours = |one: &&ProcessInfo| {
            let pid = one.pid.as_raw_nonzero().get();
            // Descendants of an excluded process are excluded too.
            !one.has_ended
                && !excluded.contains(&pid)
                && ancestors(pid, &parents)
                    .take_while(|pid| *pid == me || !excluded.contains(pid))
                    .any(is_root)
        };
        processes.iter().filter(is_ours).cloned().collect()
    }
}

/// A PID and its ancestors; a listing is not atomic, so it may contain cycles.
pub(crate) fn ancestors(pid: i32, parents: &HashMap<i32, i32>) -> impl Iterator<Item = i32> {
    let next = |pid: &i32| parents.get(pid).copied().filter(|&parent| parent > 0 && parent != *pid);
    std::iter::successors(Some(pid), next).take(parents.len() + 1)
}
