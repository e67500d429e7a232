//! The sandboxes in which Codex runs commands on Linux, each of which has to remove what it made.
//!
//! Its helper makes empty directories (`.git`, `.agents`, `.codex`, `.aws`) in those that the command may write to, mounts
//! over them, and removes them when the command has ended. It does so after SIGTERM too, within 50 ms; after SIGKILL they
//! stay (measured on 0.169.0 and 0.171.0). Codex ends commands with SIGKILL, their sandboxes included: when it is asked to
//! clean the terminals of a thread, when its stdin ends, and when it gets SIGTERM. So whoever ends a command by one of
//! these ends its sandbox first.

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::filter::{Ours, line_of};
use super::info::Seen;
use super::limits::{LOOK_AGAIN, POOL, SIGTERM_GRACE};
use super::platform;
use crate::codex::protocol::environment;

/// How long one look at the processes of this machine may take.
const LIST: Duration = Duration::from_secs(1);

/// Sandboxes that shall end.
#[derive(Debug)]
pub(crate) struct Sandboxes {
    ours: Ours,
    /// Only those of this thread.
    thread_id: Option<String>,
    /// Those that have got SIGTERM.
    asked: HashSet<(Pid, String)>,
}

impl Sandboxes {
    /// Those of all threads below these processes.
    pub(crate) fn all(ours: Ours) -> Self {
        Self { ours, thread_id: None, asked: HashSet::new() }
    }

    /// Sends SIGTERM to those that have not got it yet; returns whether there are any. Blocks.
    fn ask(&mut self) -> io::Result<bool> {
        let running = self.ours.running()?;
        let mark = self.thread_id.as_ref().map(|thread_id| format!("{}={thread_id}", environment::THREAD_ID));
        let is_wanted = |pid| mark.as_ref().is_none_or(|mark| platform::carries(pid, mark));
        let sandboxes = outermost(&running, platform::is_sandbox, is_wanted);
        for one in &sandboxes {
            if self.asked.insert((one.pid, one.started.clone())) {
                platform::signal(one, Signal::TERM)?;
            }
        }
        Ok(!sandboxes.is_empty())
    }

    /// Ends them, and waits until they have ended, `grace` at most; says in the log what goes wrong.
    pub(crate) async fn end(mut self, grace: Duration) {
        let until = tokio::time::Instant::now() + grace;
        loop {
            let asking = move || {
                let found = self.ask();
                (self, found)
            };
            match POOL.run(LIST, asking).await {
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
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// The same for a process without a runtime, within [`SIGTERM_GRACE`]; blocks.
    #[expect(clippy::disallowed_methods, reason = "it blocks, as it says; the guard calls it")]
    pub(crate) fn end_blocking(mut self) {
        let until = Instant::now() + SIGTERM_GRACE;
        while self.ask().unwrap_or(false) && Instant::now() < until {
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

/// Ends the sandboxes in which commands of this thread of our own app-server run, and waits until they have removed what
/// they made in the directories of the user, `grace` at most.
pub async fn end_sandboxes(thread_id: &str, grace: Duration) {
    // Whatever descends from this process: it is not known here which app-server it was.
    let ours = Ours { descendants: true, ..Ours::marked("nobody") };
    Sandboxes { thread_id: Some(thread_id.to_owned()), ..Sandboxes::all(ours) }.end(grace).await;
}

/// The helpers among these that are in no other sandbox, and of which one that descends from them, or they themselves, is
/// wanted: the environment of the helper cannot always be read, that of its command can.
pub(crate) fn outermost(
    running: &[Seen],
    is_sandbox: impl Fn(Pid) -> bool,
    is_wanted: impl Fn(Pid) -> bool,
) -> Vec<Seen> {
    let number = |one: &Seen| one.pid.as_raw_nonzero().get();
    let parents: HashMap<i32, i32> = running.iter().map(|one| (number(one), one.parent)).collect();
    let helpers: HashSet<i32> = running.iter().filter(|one| is_sandbox(one.pid)).map(number).collect();
    if helpers.is_empty() {
        return Vec::new();
    }
    let outermost = |pid: i32| line_of(pid, &parents).filter(|pid| helpers.contains(pid)).last();
    let wanted: HashSet<i32> =
        running.iter().filter(|one| is_wanted(one.pid)).filter_map(|one| outermost(number(one))).collect();
    running.iter().filter(|one| wanted.contains(&number(one))).cloned().collect()
}
