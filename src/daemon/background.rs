//! What the daemon does by itself while sessions are at work: waiting turns, lost completions, silent turns.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::attach::newest_turns;
use super::sessions::{Turns, malformed, read};
use super::{CALL, Daemon, DaemonError, drafts};
use crate::app_server::Availability;
use crate::state::{Session, SessionStatus};

/// How long the completion of a turn may come after its thread said that it is idle; normally it is a few ms (measured).
const GRACE: Duration = Duration::from_secs(1);
/// How long a waiting turn rests after it could not be given to the app-server.
const REST: Duration = Duration::from_secs(1);
/// How many of a thread's newest turns are looked at for the one that runs.
const LOOK_BACK: u32 = 20;

/// When each thread said something last.
#[derive(Debug, Default)]
pub(super) struct Activity {
    threads: Mutex<HashMap<String, Instant>>,
}

impl Activity {
    /// A thread said something.
    pub(super) fn note(&self, thread_id: &str) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.insert(thread_id.to_owned(), Instant::now());
    }

    fn last(&self, thread_id: &str) -> Option<Instant> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).get(thread_id).copied()
    }

    fn keep(&self, threads: &HashSet<String>) {
        let mut known = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|thread_id, _| threads.contains(thread_id));
    }
}

/// How often the silence of a turn was told.
struct Watched {
    since: Instant,
    told: u32,
}

impl Daemon {
    /// Looks after the sessions until the daemon stops.
    pub(super) async fn look_after_sessions(self) {
        let mut news = self.shared.recorder.view().log.news();
        let mut availability = self.shared.availability.clone();
        let stall = self.config().limits.stall_timeout;
        let mut look = tokio::time::interval((stall / 20).clamp(Duration::from_millis(50), REST * 10));
        let mut watched = HashMap::new();
        // Sessions for which something is under way, so that it is done once.
        let busy = Arc::new(Mutex::new(HashSet::new()));
        loop {
            tokio::select! {
                changed = news.changed() => if changed.is_err() { return },
                changed = availability.changed() => if changed.is_err() { return },
                _ = look.tick() => self.tell_silence(&mut watched, stall),
                () = self.shared.stopping.cancelled() => return,
            }
            let is_ready = matches!(*availability.borrow_and_update(), Availability::Ready(_));
            if is_ready {
                self.begin_waiting_turns(&busy);
                self.settle_doubtful_turns(&busy);
            }
        }
    }

    fn begin_waiting_turns(&self, busy: &Arc<Mutex<HashSet<String>>>) {
        let sessions: Vec<String> = {
            let state = self.state();
            let is_idle = |session_id: &&String| {
                state.sessions.get(session_id).is_some_and(|session| {
                    session.status == SessionStatus::Active && session.current_turn_id.is_none()
                })
            };
            state.memory.queued_sessions().filter(is_idle).cloned().collect()
        };
        for session_id in sessions {
            self.once(busy, session_id, async |daemon, session_id| {
                match daemon.begin_next(&session_id).await {
                    Ok(()) => {}
                    // It was taken out of the queue, and an event says why.
                    Err(error) if error.is_a_refusal() => {}
                    Err(error) => {
                        tracing::warn!(session_id, %error, "a waiting turn has to wait on");
                        tokio::time::sleep(REST).await;
                    }
                }
            });
        }
    }

    /// Asks for turns whose threads say that they are idle although no completion came.
    fn settle_doubtful_turns(&self, busy: &Arc<Mutex<HashSet<String>>>) {
        let sessions: Vec<String> =
            self.state().sessions.doubtful().map(|session| session.session_id.clone()).collect();
        for session_id in sessions {
            self.once(busy, session_id, async |daemon, session_id| {
                tokio::time::sleep(GRACE).await;
                if let Err(error) = daemon.settle(&session_id).await {
                    tracing::warn!(session_id, %error, "what became of a turn could not be found out");
                }
            });
        }
    }

    /// Finds out from the thread what became of a session's turn.
    async fn settle(&self, session_id: &str) -> Result<(), DaemonError> {
        let session = self.session(session_id)?;
        let is_doubtful = self.state().sessions.doubtful().any(|other| other.session_id == session_id);
        let (Some(thread_id), Some(turn_id), true) =
            (&session.thread_id, &session.current_turn_id, is_doubtful)
        else {
            return Ok(());
        };
        let client = self.client().await?;
        let answer = client.call("thread/turns/list", &newest_turns(thread_id, LOOK_BACK), CALL).await?;
        let turns: Turns = read(answer.get()).map_err(malformed("thread/turns/list"))?;
        let status = turns.data.into_iter().find(|turn| turn.id == *turn_id).map(|turn| turn.status);
        if let Some(status) = status.filter(|status| status != "inProgress") {
            let (session, turn_id) = (Arc::clone(&session), turn_id.clone());
            // The completion may have come while this was asked.
            self.promise(move |state| {
                let now = state.sessions.get(&session.session_id);
                let still = now.is_some_and(|now| now.current_turn_id.as_deref() == Some(&turn_id));
                let settled = still.then(|| drafts::turn_settled(&session, &turn_id, &status));
                settled.into_iter().collect()
            })
            .await?;
        }
        Ok(())
    }

    /// Tells of turns that have said nothing for too long, and again each time that doubles.
    fn tell_silence(&self, watched: &mut HashMap<String, Watched>, stall: Duration) {
        let busy: Vec<Arc<Session>> = self.state().sessions.busy().cloned().collect();
        let turns: HashSet<&str> =
            busy.iter().filter_map(|session| session.current_turn_id.as_deref()).collect();
        watched.retain(|turn_id, _| turns.contains(turn_id.as_str()));
        self.shared.activity.keep(&busy.iter().filter_map(|session| session.thread_id.clone()).collect());
        for session in &busy {
            let (Some(turn_id), Some(thread_id)) = (&session.current_turn_id, &session.thread_id) else {
                continue;
            };
            let watch =
                watched.entry(turn_id.clone()).or_insert_with(|| Watched { since: Instant::now(), told: 0 });
            if let Some(last) = self.shared.activity.last(thread_id).filter(|last| *last > watch.since) {
                *watch = Watched { since: last, told: 0 };
            }
            let silent = watch.since.elapsed();
            if silent >= stall.saturating_mul(1 << watch.told.min(30)) {
                watch.told += 1;
                self.shared.recorder.note(drafts::turn_stalled(session, turn_id, silent));
            }
        }
    }

    /// Does something for a session, unless something is under way for it.
    fn once<F>(
        &self,
        busy: &Arc<Mutex<HashSet<String>>>,
        session_id: String,
        work: impl FnOnce(Daemon, String) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        if !busy.lock().unwrap_or_else(PoisonError::into_inner).insert(session_id.clone()) {
            return;
        }
        let work = work(self.clone(), session_id.clone());
        let busy = Arc::clone(busy);
        self.shared.tasks.spawn(async move {
            work.await;
            busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&session_id);
        });
    }
}
