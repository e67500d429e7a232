//! Ends the processes that an app-server left behind, and never any other.
//!
//! The supervisor, the guard and a starting daemon call it. All functions block.

use std::collections::HashSet;
use std::io;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::filter::ProcessFilter;
use super::identity::Identity;
use super::info::{KnownProcess, PROGRAM_VARIABLE};
use super::limits::{POLL_INTERVAL, SIGTERM_GRACE};
use super::platform;
use super::reaper::ChildRegistry;
use super::sandbox::Sandboxes;

/// How long a sweep runs when processes remain, [`SIGTERM_GRACE`] included.
pub(crate) const SWEEP_LIMIT: Duration = Duration::from_secs(2);

/// Ends the matching processes, those that they start meanwhile, and those of `known`, until none is left or `limit` has
/// passed. Returns how many were signalled and how many are left.
///
/// Each gets SIGTERM, and SIGKILL if it still runs after [`SIGTERM_GRACE`] or as soon as `hurry` returns true. Blocks.
pub(crate) fn sweep(
    filter: &ProcessFilter,
    known: &[KnownProcess],
    limit: Duration,
    hurry: impl Fn() -> bool,
) -> io::Result<(usize, usize)> {
    let began = Instant::now();
    let mut signalled = HashSet::new();
    let mut known = known.to_vec();
    let starts = filter.owned.as_ref().map(ChildRegistry::starts);
    loop {
        // One child is started at a time; a start that takes this long waits for a file system that does not respond.
        let is_unchanged = filter.owned.as_ref().map(ChildRegistry::starts) == starts;
        let start_hangs = is_unchanged && began.elapsed() >= SIGTERM_GRACE;
        let (running, is_complete) = filter.running_with(&known, start_hangs)?;
        let kill = began.elapsed() >= SIGTERM_GRACE || hurry();
        for one in &running {
            // Where orphans go to another process, only its group connects it with what it starts before it ends.
            if !known.is_empty() && !known.iter().any(|other| other.is(one)) {
                known.push(KnownProcess::of(one));
            }
            let is_new = signalled.insert((one.pid, one.start_time.clone()));
            // One SIGTERM only: some programs exit at once, without cleaning up, on a second one.
            let sent = match (kill, is_new) {
                (true, _) => platform::signal(one, Signal::KILL),
                (false, true) => platform::signal(one, Signal::TERM),
                (false, false) => Ok(()),
            };
            if let Err(error) = sent {
                tracing::warn!(pid = one.pid.as_raw_nonzero(), %error, "failed to signal a process");
            }
        }
        if let Some(owned) = filter.owned.as_ref().filter(|_| filter.includes_descendants) {
            owned.reap();
        }
        if (running.is_empty() && is_complete) || began.elapsed() >= limit {
            return Ok((signalled.len(), running.len()));
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Ends what an earlier daemon left: exactly this app-server, if it still runs, the processes with the mark of that daemon,
/// and those of `known` with their descendants. Returns how many processes were ended.
///
/// The app-server gets `grace` to exit by itself, as it does when its stdin ends. Blocks.
pub fn end_leftover(
    leader: &Identity,
    instance: &str,
    known: &[KnownProcess],
    grace: Duration,
) -> io::Result<usize> {
    let until = Instant::now() + grace;
    while leader.is_running() && Instant::now() < until {
        std::thread::sleep(POLL_INTERVAL);
    }
    let mut ended = 0;
    let filter = ProcessFilter::marked(instance);
    Sandboxes::all(filter.clone()).end_blocking();
    if leader.is_running() {
        leader.signal(Signal::KILL)?;
        ended += 1;
    }
    Ok(ended + sweep(&filter, known, SWEEP_LIMIT, || false)?.0)
}

/// Ends the programs with this value of [`PROGRAM_VARIABLE`] and their descendants, which an earlier daemon left. Returns
/// how many processes were ended. Blocks.
pub fn end_leftover_programs(owner: &str) -> io::Result<usize> {
    let filter = ProcessFilter::with_mark(format!("{PROGRAM_VARIABLE}={owner}"));
    Ok(sweep(&filter, &[], SWEEP_LIMIT, || false)?.0)
}
