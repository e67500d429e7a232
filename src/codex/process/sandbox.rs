//! Ends the sandboxes in which Codex runs commands on Linux, so that they clean up.
//!
//! The sandbox helper makes empty directories (`.git`, `.agents`, `.codex`, `.aws`) in the directories that the command may
//! write to, mounts over them, and removes them when the command has ended. It also does so within 50 ms of a SIGTERM; after
//! SIGKILL they stay (measured on 0.169.0 and 0.171.0). Codex sends SIGKILL to commands and their sandboxes when it is asked
//! to clean the terminals of a thread, when its stdin ends, and when it gets SIGTERM. So whatever does one of these ends the
//! sandboxes first.

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::filter::{NO_INSTANCE, ProcessFilter, ancestors};
use super::info::ProcessInfo;
use super::limits::{POLL_INTERVAL, POOL, SIGTERM_GRACE};
use super::platform;
use crate::codex::protocol::environment;
use crate::ids::ThreadId;

/// How long one listing of the machine's processes may take.
const PROCESS_LIST_TIMEOUT: Duration = Duration::from_secs(1);

/// The sandboxes to end.
#[derive(Debug)]
pub(crate) struct Sandboxes {
    filter: ProcessFilter,
    /// Only those of this thread.
    thread_id: Option<ThreadId>,
    /// Those that have got SIGTERM.
    signalled: HashSet<(Pid, String)>,
}

impl Sandboxes {
    /// The sandboxes of all threads among these processes.
    pub(crate) fn all(filter: ProcessFilter) -> Self {
        Self { filter, thread_id: None, signalled: HashSet::new() }
    }

    /// Sends SIGTERM to those that have not got it yet; returns whether any remain. Blocks.
    fn send_sigterm(&mut self) -> io::Result<bool> {
        let running = self.filter.running()?;
        let mark = self.thread_id.as_ref().map(|thread_id| format!("{}={thread_id}", environment::THREAD_ID));
        let is_selected = |pid| mark.as_ref().is_none_or(|mark| platform::carries(pid, mark));
        let sandboxes = outermost(&running, platform::is_sandbox, is_selected);
        for one in &sandboxes {
            if self.signalled.insert((one.pid, one.start_time.clone())) {
                platform::signal(one, Signal::TERM)?;
            }
        }
        Ok(!sandboxes.is_empty())
    }

    /// Ends them and waits until they have ended, for at most `grace`; logs failures.
    pub(crate) async fn end(mut self, grace: Duration) {
        let until = tokio::time::Instant::now() + grace;
        loop {
            let signalling = move || {
                let found = self.send_sigterm();
                (self, found)
            };
            match POOL.run(PROCESS_LIST_TIMEOUT, signalling).await {
                Ok((_, Ok(false))) => return,
                Ok((same, Ok(true))) => self = same,
                Ok((_, Err(error))) => {
                    return tracing::warn!(%error, "the sandboxes of commands cannot be ended");
                }
                Err(unanswered) => {
                    return tracing::warn!(
                        "the sandboxes of commands cannot be found: the system {unanswered}"
                    );
                }
            }
            if tokio::time::Instant::now() >= until {
                return;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// The same for a process without an async runtime, within [`SIGTERM_GRACE`]; blocks.
    #[expect(clippy::disallowed_methods, reason = "it blocks, as documented; the guard calls it")]
    pub(crate) fn end_blocking(mut self) {
        let until = Instant::now() + SIGTERM_GRACE;
        while self.send_sigterm().unwrap_or(false) && Instant::now() < until {
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

/// Ends the sandboxes of the commands of this thread of our app-server, and waits until they have removed what they made in
/// the user's directories, for at most `grace`.
pub async fn end_sandboxes(thread_id: &ThreadId, grace: Duration) {
    // All descendants of this process: the app-server is not known here.
    let filter = ProcessFilter { includes_descendants: true, ..ProcessFilter::marked(NO_INSTANCE) };
    Sandboxes { thread_id: Some(thread_id.clone()), ..Sandboxes::all(filter) }.end(grace).await;
}

/// The helpers that are in no other sandbox, and for which `is_selected` accepts them or one of their descendants: the
/// helper's environment cannot always be read, its command's can.
pub(crate) fn outermost(
    running: &[ProcessInfo],
    is_sandbox: impl Fn(Pid) -> bool,
    is_selected: impl Fn(Pid) -> bool,
) -> Vec<ProcessInfo> {
    let pid_of = |one: &ProcessInfo| one.pid.as_raw_nonzero().get();
    let parents: HashMap<i32, i32> = running.iter().map(|one| (pid_of(one), one.parent)).collect();
    let helpers: HashSet<i32> = running.iter().filter(|one| is_sandbox(one.pid)).map(pid_of).collect();
    if helpers.is_empty() {
        return Vec::new();
    }
    let outermost = |pid: i32| ancestors(pid, &parents).filter(|pid| helpers.contains(pid)).last();
    let selected: HashSet<i32> =
        running.iter().filter(|one| is_selected(one.pid)).filter_map(|one| outermost(pid_of(one))).collect();
    running.iter().filter(|one| selected.contains(&pid_of(one))).cloned().collect()
}
