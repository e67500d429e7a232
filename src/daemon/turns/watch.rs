//! The background task that watches running turns: starts queued turns, settles lost completions, reports silent
//! turns.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Zoned;
use serde_json::Value;
use tokio::sync::{Notify, Semaphore};

use crate::codex::Wait;
use crate::codex::protocol::{methods, usage_limits};
use crate::daemon::app_server::calls::call_within;
use crate::daemon::core::Core;
use crate::daemon::error::DaemonError;
use crate::daemon::events;
use crate::daemon::queue::Queue;
use crate::daemon::queue::held::{Retries, holds_after_failure};
use crate::daemon::queue::schedule::Schedule;
use crate::daemon::queue::usage_limit;
use crate::daemon::recorder::input::Input;
use crate::daemon::turns::activity::Activity;
use crate::daemon::turns::settlement::{Verdict, read_thread};
use crate::daemon::unsupported_methods::UnsupportedMethods;
use crate::ids::{ThreadId, TurnId};
use crate::state::{State, Turn, TurnEvent};
use crate::time::{Alarm, SystemClock, rfc3339_now};

/// How long the completion of a turn may come after its thread reported that it is idle; normally it is a few ms (measured).
const COMPLETION_GRACE: Duration = Duration::from_secs(1);
/// The longest time between two checks of how long turns have been silent.
const SILENCE_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How long the app-server may take to report the limits of the account, for which it asks its servers.
const RATE_LIMITS_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after a queued turn could not be started.
const START_RETRY_DELAY: Duration = Duration::from_secs(1);
/// How long a turn may be silent before its thread is checked: the notification of its end may be lost.
const SILENCE_BEFORE_CHECK: Duration = Duration::from_secs(2);
/// The pause between two checks of a thread; one check takes about 0.2 ms (measured).
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// How many threads are checked at a time. With an app-server that has too much to do, all turns are silent; checks of all
/// of them took it half as much CPU time again as the turns themselves (measured with 200 turns on two processors).
const CHECKS_AT_ONCE: usize = 2;
/// The pause of the watch for each running turn: each event wakes it, and it then looks at all running turns.
const PAUSE_PER_TURN: Duration = Duration::from_micros(100);
/// The longest pause, in which a queued turn that could start waits.
const MAX_PAUSE: Duration = Duration::from_millis(50);
/// Timers are no more precise.
const MIN_PAUSE: Duration = Duration::from_millis(1);

/// The watch state of a running turn.
#[derive(Debug)]
struct Watched {
    /// Since when its thread has been silent.
    since: Instant,
    /// How many times the silence was reported.
    reports: u32,
    /// When the thread was checked last.
    checked_at: Option<Instant>,
    /// How many checks in a row were unclear.
    unclear_checks: u32,
}

impl Watched {
    fn since(since: Instant) -> Self {
        Self { since, reports: 0, checked_at: None, unclear_checks: 0 }
    }

    /// From when on a check of the thread has a reason; `idle_since` is when it reported that it is idle.
    fn doubtful(&self, idle_since: Option<Instant>) -> Instant {
        idle_since.map_or(self.since + SILENCE_BEFORE_CHECK, |idle| {
            (idle + COMPLETION_GRACE).min(self.since + SILENCE_BEFORE_CHECK)
        })
    }

    /// When the next check of the thread is due.
    fn due(&self, idle_since: Option<Instant>) -> Instant {
        let doubtful = self.doubtful(idle_since);
        doubtful.max(self.checked_at.map_or(doubtful, |checked_at| checked_at + CHECK_INTERVAL))
    }
}

/// The running turns, and their threads that report that they are idle.
#[derive(Debug, Default)]
struct Watch {
    turns: HashMap<TurnId, Watched>,
    idle: HashMap<ThreadId, Instant>,
}

/// Threads for which a task runs, so that only one runs per thread.
#[derive(Clone)]
struct UnderWay {
    threads: Arc<Mutex<HashSet<ThreadId>>>,
    /// Notified when a task ends: changes during the task were skipped, so the loop checks again.
    done: Arc<Notify>,
}

impl UnderWay {
    fn new(done: &Arc<Notify>) -> Self {
        Self { threads: Arc::default(), done: Arc::clone(done) }
    }
}

/// Watches the turns of all threads; clones share all state.
#[derive(Clone)]
pub(in crate::daemon) struct TurnWatch {
    core: Arc<Core>,
    queue: Queue,
    activity: Arc<Activity>,
    unsupported_methods: Arc<UnsupportedMethods>,
    state: Arc<Mutex<Watch>>,
    checks: Arc<Semaphore>,
}

impl TurnWatch {
    pub(in crate::daemon) fn new(core: &Arc<Core>, queue: &Queue, activity: Arc<Activity>) -> Self {
        let (unsupported_methods, state) = Default::default();
        let checks = Arc::new(Semaphore::new(CHECKS_AT_ONCE));
        Self { core: Arc::clone(core), queue: queue.clone(), activity, unsupported_methods, state, checks }
    }

    fn watched(&self) -> MutexGuard<'_, Watch> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches until the daemon stops.
    pub(in crate::daemon) async fn run(self) {
        let mut news = self.core.recorder.view().log.news();
        let mut availability = self.core.availability.clone();
        let mut looked_at = self.core.looked_at.subscribe();
        let mut restart = self.core.codex.restart.subscribe();
        let stall = self.core.config.limits.stall_timeout;
        let mut tick =
            tokio::time::interval((stall / 20).clamp(Duration::from_millis(50), SILENCE_CHECK_INTERVAL));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let done = Arc::new(Notify::new());
        let mut retries = Retries::default();
        let mut alarm = Alarm::new(SystemClock);
        // A slow start must not delay a check, nor the other way round.
        let (starting, checking, trying) = (UnderWay::new(&done), UnderWay::new(&done), UnderWay::new(&done));
        loop {
            let (running, next_queued) = {
                let state = self.core.state();
                // What is due already waits for an app-server, or for a retry.
                (state.turns.open().count(), Schedule::at(&state, &rfc3339_now()).next)
            };
            let any_turn_runs = running > 0;
            self.core
                .turns_run
                .send_if_modified(|run| std::mem::replace(run, any_turn_runs) != any_turn_runs);
            alarm.set(next_queued.and_then(|at| at.time()));
            let due = self.note_turns();
            // Without a connection nothing can be checked, however long it is due.
            let due = self.core.checked_generation().and(due).into_iter().chain(retries.next()).min();
            tokio::select! {
                changed = news.changed() => if changed.is_err() { return },
                changed = availability.changed() => if changed.is_err() { return },
                changed = looked_at.changed() => if changed.is_err() { return },
                changed = restart.changed() => if changed.is_err() { return },
                () = done.notified() => {}
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {}
                () = alarm.rings() => {}
                _ = tick.tick(), if any_turn_runs => self.report_silent_turns(stall),
                () = self.core.stopping.cancelled() => return,
            }
            if let Some(generation) = self.core.checked_generation() {
                self.start_waiting_turns(&starting, &trying, &mut retries, generation);
                self.check_due_threads(&checking);
            }
            let pause = (PAUSE_PER_TURN * u32::try_from(running).unwrap_or(u32::MAX)).min(MAX_PAUSE);
            if pause > MIN_PAUSE {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Starts the next due turn of each queue whose thread is idle, unless the queue is held and no retry is due.
    fn start_waiting_turns(
        &self,
        under_way: &UnderWay,
        trying: &UnderWay,
        retries: &mut Retries,
        generation: u64,
    ) {
        let now = rfc3339_now();
        let (threads, trials): (Vec<ThreadId>, _) = {
            let state = self.core.state();
            retries.keep(&state.queued_threads());
            if !usage_limit::changes(&state, &now).is_empty() {
                // They are made again from the records at that point of the log.
                let now = now.clone();
                let changes = move |state: &State| usage_limit::changes(state, &now);
                self.core.recorder.send(Input::Build(Box::new(changes)));
            }
            let Schedule { due, trials, .. } = Schedule::at(&state, &now);
            let due = due.into_iter().filter(|thread_id| retries.is_due(&state, thread_id, generation));
            (due.collect(), trials)
        };
        for (provider, thread_id) in trials {
            self.once(trying, thread_id, async |watch, _| watch.try_turn(provider).await);
        }
        for thread_id in threads {
            self.once(under_way, thread_id, async |watch, thread_id| {
                let first = || {
                    let state = watch.core.state();
                    usage_limit::next_to_start(&state, &thread_id, &rfc3339_now())
                        .map(|(_, turn)| turn.queue_id.clone())
                };
                let before = first();
                if let Err(error) = watch.queue.start_next(&thread_id).await
                    && first() == before
                {
                    tracing::warn!(%thread_id, %error, "could not start queued turn; will retry");
                    tokio::select! {
                        () = tokio::time::sleep(START_RETRY_DELAY) => {}
                        () = watch.core.stopping.cancelled() => {}
                    }
                }
            });
        }
    }

    /// Chooses the turn that shows whether the usage limit of a model provider has ended, unless the app-server reports
    /// that it has not.
    async fn try_turn(self, provider: String) {
        let limits = match self.core.current_client() {
            // Only an account of ChatGPT has them; for any other one the trial shows it.
            Ok(client) => {
                let wait = Wait::Limited(RATE_LIMITS_TIMEOUT);
                call_within::<Value>(&client, methods::ACCOUNT_RATE_LIMITS_READ, &Value::Null, wait)
                    .await
                    .ok()
            }
            Err(_) => return,
        };
        let limits = limits.as_ref().and_then(|answer| answer.get("rateLimits"));
        let reset = usage_limits::reset(limits, "", &Zoned::now());
        self.core.recorder.send(Input::Build(Box::new(move |state| match reset {
            Some(until) => usage_limit::postponed(state, &provider, until.into()),
            None => usage_limit::trial(state, &provider, &rfc3339_now()),
        })));
        self.core.recorder.caught_up().await;
    }

    /// Updates the watch state from the records; returns when the next check is due.
    fn note_turns(&self) -> Option<Instant> {
        let mut watch = self.watched();
        let Watch { turns, idle } = &mut *watch;
        let state = self.core.state();
        let open: HashMap<&TurnId, &Arc<Turn>> =
            state.turns.open().map(|turn| (&turn.turn_id, turn)).collect();
        turns.retain(|turn_id, _| open.contains_key(turn_id));
        let open_in_idle_threads: HashSet<&ThreadId> = state.turns.open_in_idle_threads().collect();
        idle.retain(|thread_id, _| open_in_idle_threads.contains(thread_id));
        for thread_id in open_in_idle_threads {
            idle.entry(thread_id.clone()).or_insert_with(Instant::now);
        }
        self.activity.keep(&open.values().map(|turn| turn.thread_id.clone()).collect());
        let due = open.values().map(|turn| {
            let watched = turns.entry(turn.turn_id.clone()).or_insert_with(|| Watched::since(Instant::now()));
            if let Some(last) = self.activity.last(&turn.thread_id).filter(|last| *last > watched.since) {
                *watched = Watched { checked_at: watched.checked_at, ..Watched::since(last) };
            }
            watched.due(idle.get(&turn.thread_id).copied())
        });
        due.min()
    }

    /// Checks the threads whose turns have been silent for too long, or that report that they are idle.
    fn check_due_threads(&self, under_way: &UnderWay) {
        let due: HashSet<ThreadId> = {
            let mut watch = self.watched();
            let Watch { turns, idle } = &mut *watch;
            let state = self.core.state();
            let now = Instant::now();
            let is_due = |turn: &&Arc<Turn>| {
                let watched = turns.get_mut(&turn.turn_id);
                let due = watched.filter(|watched| watched.due(idle.get(&turn.thread_id).copied()) <= now);
                due.is_some_and(|watched| {
                    watched.checked_at = Some(now);
                    true
                })
            };
            state.turns.open().filter(is_due).map(|turn| turn.thread_id.clone()).collect()
        };
        for thread_id in due {
            self.once(under_way, thread_id, async |watch, thread_id| {
                let Ok(_permit) = watch.checks.acquire().await else { return };
                if !watch.is_doubtful(&thread_id) {
                    return;
                }
                let generation = watch.core.current_client().map_or(0, |client| client.generation());
                if let Err(error) = watch.settle(&thread_id).await
                    && !watch.unsupported_methods.note(generation, &error)
                {
                    tracing::debug!(%thread_id, %error, "failed to settle a turn");
                }
            });
        }
    }

    /// Whether a check of a thread has a reason: a turn may have ended or gone on while the check waited for others.
    fn is_doubtful(&self, thread_id: &ThreadId) -> bool {
        let watch = self.watched();
        let state = self.core.state();
        let idle_since = watch.idle.get(thread_id).copied();
        let mut open = state.turns.of(thread_id).filter(|turn| !turn.is_over());
        open.any(|turn| {
            let watched = watch.turns.get(&turn.turn_id);
            watched.is_some_and(|watched| watched.doubtful(idle_since) <= Instant::now())
        })
    }

    /// Reads a thread and records the ends of its turns that were not received.
    async fn settle(&self, thread_id: &ThreadId) -> Result<(), DaemonError> {
        let client = self.core.current_client()?;
        let report = read_thread(&client, thread_id, &self.unsupported_methods).await?;
        let open: Vec<Arc<Turn>> = {
            let state = self.core.state();
            state.turns.of(thread_id).filter(|turn| !turn.is_over()).cloned().collect()
        };
        let mut ended = Vec::new();
        {
            let mut watch = self.watched();
            for turn in open {
                let Some(watched) = watch.turns.get_mut(&turn.turn_id) else { continue };
                match report.verdict(&turn.turn_id, watched.unclear_checks) {
                    Verdict::Runs => watched.unclear_checks = 0,
                    Verdict::Unclear => watched.unclear_checks += 1,
                    Verdict::Ended { status, error } => ended.push((turn.turn_id.clone(), status, error)),
                }
            }
        }
        if ended.is_empty() {
            return Ok(());
        }
        let thread_id = thread_id.clone();
        self.core
            .record_durably(move |state| {
                let settled = ended.iter().filter_map(|(turn_id, status, error)| {
                    // The completion may have come while the thread was read.
                    let turn = state.turns.get(&thread_id, turn_id).filter(|turn| !turn.is_over())?;
                    let settled =
                        events::turn_settled(state.session_for(turn)?, turn, status, error.as_ref());
                    let error = error.as_ref().unwrap_or(&Value::Null);
                    let holds = holds_after_failure(state, &thread_id, Some(turn_id), error);
                    Some(holds.into_iter().chain([settled]))
                });
                settled.flatten().collect()
            })
            .await
    }

    /// Reports turns that have been silent for `stall`, and again each time that doubles.
    fn report_silent_turns(&self, stall: Duration) {
        let mut watch = self.watched();
        let state = self.core.state();
        for turn in state.turns.open() {
            let Some(watched) = watch.turns.get_mut(&turn.turn_id) else { continue };
            let silent = watched.since.elapsed();
            if silent >= stall.saturating_mul(1 << watched.reports.min(30))
                && let Some(session) = state.session_for(turn)
            {
                watched.reports += 1;
                self.core.recorder.record(TurnEvent::Stalled {
                    session_id: session.session_id.clone(),
                    thread_id: Some(turn.thread_id.clone()),
                    turn_id: turn.turn_id.clone(),
                    silent_seconds: silent.as_secs(),
                });
            }
        }
    }

    /// Spawns `work` for a thread, unless a task runs for it already.
    fn once<F>(&self, under_way: &UnderWay, thread_id: ThreadId, work: impl FnOnce(Self, ThreadId) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let UnderWay { threads, done } = under_way.clone();
        if !threads.lock().unwrap_or_else(PoisonError::into_inner).insert(thread_id.clone()) {
            return;
        }
        let work = work(self.clone(), thread_id.clone());
        self.core.tasks.spawn(async move {
            work.await;
            threads.lock().unwrap_or_else(PoisonError::into_inner).remove(&thread_id);
            done.notify_one();
        });
    }
}
