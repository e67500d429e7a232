//! Ending processes without ever hitting somebody else's.

use std::collections::HashSet;
use std::io;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::filter::Ours;
use super::identity::Identity;
use super::info::Seen;
use super::limits::{LOOK_AGAIN, SIGTERM_GRACE};
use super::platform;
use super::sandbox::Sandboxes;

/// How long a sweep goes on when there is always something left, [`SIGTERM_GRACE`] included.
pub(crate) const SWEEP: Duration = Duration::from_secs(2);
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
            platform::reap(&ours.spared);
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
        leader.kill()?;
        ended += 1;
    }
    Ok(ended + sweep(&ours, &[], SWEEP, || false)?.0)
}
