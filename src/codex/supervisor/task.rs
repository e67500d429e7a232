//! Looking after the app-server: one task that starts it, and starts another when it has died.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::availability::{Availability, Failure, STOPPING, Waiting};
use super::backoff::{Backoff, longer};
use super::generation::{Death, Life};
use super::plan::{App, Plan};
use crate::codex::listener::{Backlog, Heard, Listener, Setback};
use crate::codex::process::child::Program;
use crate::codex::process::filter::Ours;
use crate::codex::process::guard::{Guard, Orders};
use crate::codex::process::info::Seen;
use crate::codex::process::limits::POOL;
use crate::codex::process::platform;
use crate::codex::process::reaper::Wards;
use crate::codex::process::stop_pace::{StopPace, is_over, over};
use crate::time;

/// How long a look at the processes of this machine may take before the first app-server is started.
const LIST: Duration = Duration::from_secs(5);

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
    if !platform::are_orphans_ours() {
        return Vec::new();
    }
    // No process carries an empty mark of ours.
    let ours = Ours { descendants: true, ..Ours::marked("nobody") };
    ours.running().unwrap_or_else(|error| {
        tracing::warn!(%error, "the children from before codexd cannot be told from those of the app-server");
        Vec::new()
    })
}

fn chance() -> u32 {
    let [a, b, c, d, ..] = uuid::Uuid::new_v4().into_bytes();
    u32::from_be_bytes([a, b, c, d])
}
