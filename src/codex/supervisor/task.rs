//! Looking after the app-server: one task that starts it, and starts another when it has died.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::backoff::{Backoff, longer};
use crate::codex::listener::{Backlog, Heard, Listener, Setback};
use crate::codex::process::child::{Program, StopPace};
use crate::codex::process::guard::{Guard, Orders};
use crate::codex::process::reaper::Wards;
use crate::codex::process::tree::{self, Ours, POOL, Seen};
use crate::codex::rpc::client::Client;
use crate::codex::supervisor::generation::{Death, Life};
use crate::codex::transport::websocket::Address;
use crate::time;

/// How long a look at the processes of this machine may take before the first app-server is started.
const LIST: Duration = Duration::from_secs(5);

/// Which app-server to look after.
#[derive(Clone)]
pub enum App {
    /// A child process of ours.
    Spawn(Program),
    /// Somebody else's.
    External(Address),
}

/// What to look after, and how.
#[derive(Clone)]
pub struct Plan {
    /// Which app-server.
    pub app: App,
    /// Our version, which the app-server puts into its user agent.
    pub version: String,
    /// The longest message that is kept, in bytes.
    pub line_cap: usize,
    /// How long connecting and `initialize` may take, each, at first.
    pub start_timeout: Duration,
    /// What sets that, for the sentence about an app-server that takes longer.
    pub start_timeout_hint: String,
    /// How long the app-server may take to answer a call.
    pub call_timeout: Duration,
    /// How long nothing may be heard before the app-server is asked whether it is still there.
    pub check_interval: Duration,
}

/// Whether the app-server can be called now.
#[derive(Debug, Clone)]
pub enum Availability {
    /// It is being started.
    Starting {
        /// What the one before died of, as a sentence; `None` for the first.
        after: Option<String>,
    },
    /// It can.
    Ready(Client),
    /// It cannot, until it is started again.
    Waiting(Waiting),
    /// It cannot, and will not.
    Stopped {
        /// Why, as a sentence.
        reason: String,
    },
}

/// In what way an app-server failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Its program could not be started.
    NotStarted,
    /// One that runs elsewhere cannot be reached.
    Unreachable,
    /// It runs and did not answer `initialize` in time.
    SlowStart,
    /// It ended, or was ended for another reason.
    Ended,
}

/// The time between a death and the next start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// What it died of, as a sentence.
    pub reason: String,
    /// When it is started again; not known as long as what is left of it is being ended.
    pub until: Option<Timestamp>,
    /// How often it died in a row.
    pub deaths: u32,
    /// Whether it dies so often that it is tried once a minute only.
    pub crash_loop: bool,
    /// The last lines of its stderr, secrets hidden.
    pub last_words: Vec<String>,
    /// In what way it failed.
    pub failure: Failure,
    /// Which it was.
    pub generation: u64,
}

/// It is known to be lost, and not yet what of.
pub(crate) fn dying(generation: u64, reason: String) -> Availability {
    let (deaths, crash_loop, last_words, failure) = (0, false, Vec::new(), Failure::Ended);
    Availability::Waiting(Waiting {
        reason,
        until: None,
        deaths,
        crash_loop,
        last_words,
        failure,
        generation,
    })
}

/// The handle of the task that looks after the app-server.
#[derive(Debug)]
pub struct Supervisor {
    availability: watch::Receiver<Availability>,
    /// Generations up to this one are not wanted any more.
    retired: watch::Sender<u64>,
    task: JoinHandle<()>,
}

impl Supervisor {
    /// Starts the app-server; what is heard goes to the listeners that `listener` makes for each generation.
    ///
    /// It ends when `pace` says so.
    pub fn start<L: Listener>(
        plan: Plan,
        pace: watch::Receiver<StopPace>,
        backlog: Arc<Backlog>,
        listener: impl Fn(u64) -> L + Send + Sync + 'static,
    ) -> Self {
        let (publish, availability) = watch::channel(Availability::Starting { after: None });
        let wards = Wards::default();
        let guard = match &plan.app {
            App::Spawn(Program { guard: Some(program), instance, .. }) => {
                Some(Guard::new(program.clone(), instance.clone(), wards.clone()))
            }
            _ => None,
        };
        let strangers = Vec::new();
        let (retired, generations) = watch::channel(0);
        let watch = Watch { plan, backlog, listener, publish, wards, guard, strangers, retired: generations };
        Self { availability, retired, task: tokio::spawn(watch.keep(pace)) }
    }

    /// Whether the app-server can be called, now and from now on.
    pub fn availability(&self) -> watch::Receiver<Availability> {
        self.availability.clone()
    }

    /// Ends the app-server of this generation, or the pause after its end, and has the next one started at once.
    ///
    /// Counts as no death; without effect on a later generation.
    pub fn retire(&self, generation: u64) {
        self.retired.send_if_modified(|through| {
            let is_later = generation > *through;
            *through = generation.max(*through);
            is_later
        });
    }

    /// Waits until the app-server has ended.
    pub async fn ended(self) {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the task that looks after the app-server failed");
        }
    }
}

/// The task.
struct Watch<F> {
    plan: Plan,
    backlog: Arc<Backlog>,
    listener: F,
    publish: watch::Sender<Availability>,
    wards: Wards,
    guard: Option<Guard>,
    /// Children from before the first generation, which are not ours to end.
    strangers: Vec<Seen>,
    retired: watch::Receiver<u64>,
}

impl<L: Listener, F: Fn(u64) -> L> Watch<F> {
    /// One generation after the other, until nobody wants any more.
    async fn keep(mut self, mut pace: watch::Receiver<StopPace>) {
        self.strangers = POOL.run(LIST, strangers).await.unwrap_or_default();
        let _reaper = self.wards.reap_orphans();
        let began = Instant::now();
        let mut backoff = Backoff::default();
        let mut start_timeout = self.plan.start_timeout;
        for generation in 1.. {
            let guard = match &mut self.guard {
                Some(guard) => guard.ensure().await,
                None => Orders::default(),
            };
            let death = self.live(generation, &guard, start_timeout, pace.clone()).await;
            if is_over(&pace) {
                break;
            }
            if death.is_retired {
                // It was said already that another one is started.
                continue;
            }
            start_timeout = match death.failure {
                Failure::SlowStart => longer(start_timeout),
                _ if death.healthy.is_zero() => start_timeout,
                _ => self.plan.start_timeout,
            };
            let pause = backoff.died(began.elapsed(), death.healthy, chance());
            let until = time::after(pause.delay);
            let setback = Setback {
                delay: pause.delay,
                until,
                deaths: pause.deaths,
                crash_loop: pause.crash_loop,
                cause: death.cause.clone(),
                exit: death.exit,
                last_words: death.last_words.clone(),
            };
            let mut listener = (self.listener)(generation);
            listener.hear(Heard::Setback(setback));
            listener.flush();
            self.publish.send_replace(Availability::Waiting(Waiting {
                reason: death.cause.clone(),
                until: Some(until),
                deaths: pause.deaths,
                crash_loop: pause.crash_loop,
                last_words: death.last_words,
                failure: death.failure,
                generation,
            }));
            let mut retired = self.retired.clone();
            tokio::select! {
                () = tokio::time::sleep(pause.delay) => {}
                // It is due by the clock that people were shown too, however long the machine slept.
                () = time::reached(until, Timestamp::now) => {}
                Ok(_) = retired.wait_for(|&through| through >= generation) => {}
                () = over(&mut pace) => break,
            }
            self.publish.send_replace(Availability::Starting { after: Some(death.cause) });
        }
        if let Some(guard) = &mut self.guard {
            guard.dismiss().await;
        }
        self.publish.send_replace(Availability::Stopped { reason: STOPPING.to_owned() });
    }

    async fn live(
        &self,
        generation: u64,
        guard: &Orders,
        start_timeout: Duration,
        pace: watch::Receiver<StopPace>,
    ) -> Death {
        let life = Life {
            generation,
            plan: &self.plan,
            backlog: &self.backlog,
            listener: &self.listener,
            publish: &self.publish,
            wards: &self.wards,
            guard,
            retired: &self.retired,
            start_timeout,
            strangers: &self.strangers,
        };
        life.run(pace).await
    }
}

/// What descends from this process before it has started anything.
fn strangers() -> Vec<Seen> {
    if !tree::are_orphans_ours() {
        return Vec::new();
    }
    // No process carries an empty mark of ours.
    let ours = Ours { descendants: true, ..Ours::marked("nobody") };
    ours.running().unwrap_or_else(|error| {
        tracing::warn!(%error, "the children from before codexd cannot be told from those of the app-server");
        Vec::new()
    })
}

/// Why there is no app-server when none is wanted.
pub(crate) const STOPPING: &str = "codexd is stopping.";

/// Waits until no app-server is wanted any more, or nobody is left to want one.
pub(crate) async fn over(pace: &mut watch::Receiver<StopPace>) {
    let _ = pace.wait_for(|&pace| pace > StopPace::Run).await;
}

fn is_over(pace: &watch::Receiver<StopPace>) -> bool {
    *pace.borrow() > StopPace::Run || pace.has_changed().is_err()
}

fn chance() -> u32 {
    let [a, b, c, d, ..] = uuid::Uuid::new_v4().into_bytes();
    u32::from_be_bytes([a, b, c, d])
}
