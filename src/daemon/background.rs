//! What the daemon does by itself while sessions are at work: waiting turns, lost completions, silent turns.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;
use tokio::sync::Notify;

use super::attach::newest_turns;
use super::sessions::Turns;
use super::{Daemon, DaemonError, drafts};
use crate::app_server::Availability;
use crate::state::{Session, SessionStatus};

/// How long the completion of a turn may come after its thread said that it is idle; normally it is a few ms (measured).
const GRACE: Duration = Duration::from_secs(1);
/// The longest time between two looks at the turns that run.
const LOOK: Duration = Duration::from_secs(1);
/// How long a waiting turn rests after it could not be given to the app-server.
const REST: Duration = Duration::from_secs(1);
/// After what silence of a turn its thread is asked whether it still runs: the word that it ended may be lost.
const SILENCE: Duration = Duration::from_secs(2);
/// How long a thread whose turn is silent rests until it is asked again; asking takes about 0.2 ms (measured).
const ASK_AGAIN: Duration = Duration::from_secs(2);
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

/// The silence of a turn.
struct Watched {
    since: Instant,
    /// How often it was told.
    told: u32,
    /// When the thread was asked last.
    asked: Option<Instant>,
}

impl Watched {
    fn since(since: Instant) -> Self {
        Self { since, told: 0, asked: None }
    }

    /// Whether it is time to ask the thread, which then counts as asked.
    fn is_to_be_asked(&mut self) -> bool {
        let due = self.since.elapsed() >= SILENCE && self.asked.is_none_or(|at| at.elapsed() >= ASK_AGAIN);
        if due {
            self.asked = Some(Instant::now());
        }
        due
    }
}

/// Sessions for which something is under way, so that it is done once.
#[derive(Clone, Default)]
struct UnderWay {
    sessions: Arc<Mutex<HashSet<String>>>,
    /// Told each time something is done: what happened meanwhile was passed over, so it has to be looked at again.
    done: Arc<Notify>,
}

impl Daemon {
    /// Looks after the sessions until the daemon stops.
    pub(super) async fn look_after_sessions(self) {
        let mut news = self.shared.recorder.view().log.news();
        let mut availability = self.shared.availability.clone();
        let stall = self.config().limits.stall_timeout;
        let mut look = tokio::time::interval((stall / 20).clamp(Duration::from_millis(50), LOOK));
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut watched = HashMap::new();
        let under_way = UnderWay::default();
        loop {
            let any_turn_runs = self.state().sessions.busy().next().is_some();
            let mut silent = Vec::new();
            tokio::select! {
                changed = news.changed() => if changed.is_err() { return },
                changed = availability.changed() => if changed.is_err() { return },
                () = under_way.done.notified() => {}
                _ = look.tick(), if any_turn_runs => silent = self.tell_silence(&mut watched, stall),
                () = self.shared.stopping.cancelled() => return,
            }
            let is_ready = matches!(*availability.borrow_and_update(), Availability::Ready(_));
            if is_ready {
                self.begin_waiting_turns(&under_way);
                self.settle_doubtful_turns(&under_way);
                self.settle_silent_turns(&under_way, silent);
            }
        }
    }

    fn begin_waiting_turns(&self, under_way: &UnderWay) {
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
            self.once(under_way, session_id, async |daemon, session_id| {
                let first =
                    || daemon.state().memory.queue(&session_id).next().map(|turn| turn.queue_id.clone());
                let before = first();
                // A turn that was refused is out of the queue, and an event says why.
                if let Err(error) = daemon.begin_next(&session_id).await
                    && first() == before
                {
                    tracing::warn!(session_id, %error, "a waiting turn has to wait on");
                    tokio::select! {
                        () = tokio::time::sleep(REST) => {}
                        () = daemon.shared.stopping.cancelled() => {}
                    }
                }
            });
        }
    }

    /// Asks for turns whose threads say that they are idle although no completion came.
    fn settle_doubtful_turns(&self, under_way: &UnderWay) {
        let sessions: Vec<String> =
            self.state().sessions.doubtful().map(|session| session.session_id.clone()).collect();
        for session_id in sessions {
            self.once(under_way, session_id, async |daemon, session_id| {
                tokio::time::sleep(GRACE).await;
                let is_doubtful =
                    daemon.state().sessions.doubtful().any(|other| other.session_id == session_id);
                if is_doubtful && let Err(error) = daemon.settle(&session_id).await {
                    tracing::warn!(session_id, %error, "what became of a turn could not be found out");
                }
            });
        }
    }

    /// Asks the threads of turns that say nothing whether they are idle: that may have got lost, too.
    fn settle_silent_turns(&self, under_way: &UnderWay, sessions: Vec<String>) {
        for session_id in sessions {
            self.once(under_way, session_id, async |daemon, session_id| {
                let settled = match daemon.is_active(&session_id).await {
                    Ok(true) => Ok(()),
                    Ok(false) => daemon.settle(&session_id).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = settled {
                    tracing::warn!(session_id, %error, "whether a silent turn runs could not be found out");
                }
            });
        }
    }

    /// Whether the app-server says that a turn runs in a session's thread.
    async fn is_active(&self, session_id: &str) -> Result<bool, DaemonError> {
        #[derive(Deserialize)]
        struct Answer {
            thread: Thread,
        }
        #[derive(Deserialize)]
        struct Thread {
            status: Status,
        }
        #[derive(Deserialize)]
        struct Status {
            r#type: String,
        }
        let session = self.session(session_id)?;
        let client = self.client().await?;
        let params = json!({ "threadId": session.thread_id });
        let answer: Answer = Daemon::ask(&client, "thread/read", &params).await?;
        Ok(answer.thread.status.r#type == "active")
    }

    /// Finds out from the thread what became of a session's turn.
    async fn settle(&self, session_id: &str) -> Result<(), DaemonError> {
        let session = self.session(session_id)?;
        let (Some(thread_id), Some(turn_id)) = (&session.thread_id, &session.current_turn_id) else {
            return Ok(());
        };
        let client = self.client().await?;
        let newest = newest_turns(thread_id, LOOK_BACK);
        let turns: Turns = Daemon::ask(&client, "thread/turns/list", &newest).await?;
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
    ///
    /// Returns the sessions with turns so silent that their threads should be asked.
    fn tell_silence(&self, watched: &mut HashMap<String, Watched>, stall: Duration) -> Vec<String> {
        let mut silent_sessions = Vec::new();
        let busy: Vec<Arc<Session>> = self.state().sessions.busy().cloned().collect();
        let turns: HashSet<&str> =
            busy.iter().filter_map(|session| session.current_turn_id.as_deref()).collect();
        watched.retain(|turn_id, _| turns.contains(turn_id.as_str()));
        self.shared.activity.keep(&busy.iter().filter_map(|session| session.thread_id.clone()).collect());
        for session in &busy {
            let (Some(turn_id), Some(thread_id)) = (&session.current_turn_id, &session.thread_id) else {
                continue;
            };
            let watch = watched.entry(turn_id.clone()).or_insert_with(|| Watched::since(Instant::now()));
            if let Some(last) = self.shared.activity.last(thread_id).filter(|last| *last > watch.since) {
                *watch = Watched::since(last);
            }
            if watch.is_to_be_asked() {
                silent_sessions.push(session.session_id.clone());
            }
            let silent = watch.since.elapsed();
            if silent >= stall.saturating_mul(1 << watch.told.min(30)) {
                watch.told += 1;
                self.shared.recorder.note(drafts::turn_stalled(session, turn_id, silent));
            }
        }
        silent_sessions
    }

    /// Does something for a session, unless something is under way for it.
    fn once<F>(&self, under_way: &UnderWay, session_id: String, work: impl FnOnce(Daemon, String) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let UnderWay { sessions, done } = under_way.clone();
        if !sessions.lock().unwrap_or_else(PoisonError::into_inner).insert(session_id.clone()) {
            return;
        }
        let work = work(self.clone(), session_id.clone());
        self.shared.tasks.spawn(async move {
            work.await;
            sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(&session_id);
            done.notify_one();
        });
    }
}
