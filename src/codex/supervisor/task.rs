//! The supervisor: one task that starts the app-server and starts it again after a failure.
//!
//! It owns the guard, the registry of our children and the restart delay. `daemon` and `commands/doctor` start it.
//! At most one generation runs at a time, and the next one starts only after the processes of the one before have
//! ended.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::availability::{Availability, Failure, STOPPING, Waiting};
use super::backoff::{Backoff, next_start_timeout};
use super::generation::{EndRequest, Generation};
use super::plan::{App, Plan};
use super::termination::Termination;
use crate::codex::listener::{AppServerEvent, Backlog, Listener, RestartScheduled};
use crate::codex::process::child::Program;
use crate::codex::process::filter::{NO_INSTANCE, ProcessFilter};
use crate::codex::process::guard::{Guard, GuardHandle};
use crate::codex::process::info::ProcessInfo;
use crate::codex::process::limits::POOL;
use crate::codex::process::platform;
use crate::codex::process::program::ProgramRunner;
use crate::codex::process::reaper::ChildRegistry;
use crate::codex::process::stop_pace::{StopPace, is_stop_requested, stop_requested};
use crate::codex::process::version::VersionReader;
use crate::time;

/// How long the first listing of the machine's processes may take, before the first app-server starts.
const PROCESS_LIST_TIMEOUT: Duration = Duration::from_secs(5);

/// The handle of the supervisor task.
#[derive(Debug)]
pub struct Supervisor {
    availability: watch::Receiver<Availability>,
    children: ChildRegistry,
    /// Generations up to this one are to be replaced.
    retired: watch::Sender<u64>,
    /// Which app-server is asked to end.
    end_request: watch::Sender<EndRequest>,
    task: JoinHandle<()>,
}

impl Supervisor {
    /// Starts the supervisor. `listener` makes a listener for each part of each generation; it receives that generation's
    /// events.
    ///
    /// The task ends when `pace` asks for a stop.
    pub fn start<L: Listener>(
        plan: Plan,
        pace: watch::Receiver<StopPace>,
        backlog: Arc<Backlog>,
        listener: impl Fn(u64) -> L + Send + Sync + 'static,
    ) -> Self {
        let (publish, availability) = watch::channel(Availability::Starting { reason: None });
        let children = ChildRegistry::default();
        let guard = match &plan.app {
            App::Spawn(Program { guard: Some(program), instance, .. }) => {
                Some(Guard::new(program.clone(), instance.clone(), children.clone()))
            }
            _ => None,
        };
        let preexisting_children = Vec::new();
        let (retired, generations) = watch::channel(0);
        let (end_request, end_requests) = watch::channel(EndRequest::default());
        let registry = children.clone();
        let task = SupervisorTask {
            plan,
            backlog,
            listener,
            publish,
            children,
            guard,
            preexisting_children,
            retired: generations,
            end_request: end_requests,
        };
        Self { availability, children: registry, retired, end_request, task: tokio::spawn(task.run(pace)) }
    }

    /// The current availability of the app-server and its changes.
    pub fn availability(&self) -> watch::Receiver<Availability> {
        self.availability.clone()
    }

    /// Asks a program for its version; its process is not mistaken for a process that an app-server left behind.
    pub fn version_reader(&self) -> VersionReader {
        VersionReader(self.children.clone())
    }

    /// Runs other programs, which are not mistaken for processes that an app-server left behind either.
    pub fn program_runner(&self) -> ProgramRunner {
        ProgramRunner(self.children.clone())
    }

    /// Ends the app-server of this generation, or the delay after its end, and starts the next generation at once.
    ///
    /// This does not count as a failure, and has no effect on a later generation.
    pub fn retire(&self, generation: u64) {
        self.retired.send_if_modified(|through| {
            let is_later = generation > *through;
            *through = generation.max(*through);
            is_later
        });
    }

    /// Has the shared app-server of this generation get SIGTERM until it got `signals` of them; its end does not count as a
    /// failure, and the next generation starts at once.
    ///
    /// The caller checks that codexd started that app-server.
    pub fn request_end(&self, generation: u64, signals: u32) {
        self.end_request.send_replace(EndRequest { generation, signals });
    }

    /// Waits until the app-server has ended.
    pub async fn ended(self) {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the supervisor task failed");
        }
    }
}

/// The state of the supervisor task.
struct SupervisorTask<F> {
    plan: Plan,
    backlog: Arc<Backlog>,
    listener: F,
    publish: watch::Sender<Availability>,
    children: ChildRegistry,
    guard: Option<Guard>,
    /// Children that this process had before the first generation; they are not ours to end.
    preexisting_children: Vec<ProcessInfo>,
    retired: watch::Receiver<u64>,
    end_request: watch::Receiver<EndRequest>,
}

impl<L: Listener, F: Fn(u64) -> L> SupervisorTask<F> {
    /// Runs one generation after the other until a stop is requested.
    async fn run(mut self, mut pace: watch::Receiver<StopPace>) {
        self.preexisting_children =
            POOL.run(PROCESS_LIST_TIMEOUT, preexisting_children).await.unwrap_or_default();
        let _reaper = self.children.reap_orphans();
        let began = Instant::now();
        let mut backoff = Backoff::default();
        let mut start_timeout = self.plan.start_timeout;
        for generation in 1.. {
            let guard = match &mut self.guard {
                Some(guard) => guard.ensure_running().await,
                None => GuardHandle::default(),
            };
            let termination = self.run_generation(generation, &guard, start_timeout, pace.clone()).await;
            if is_stop_requested(&pace) {
                break;
            }
            if termination.is_retired {
                // The restart was published when the connection ended.
                continue;
            }
            start_timeout = match termination.failure {
                Failure::SlowStart => next_start_timeout(start_timeout),
                _ if termination.healthy.is_zero() => start_timeout,
                _ => self.plan.start_timeout,
            };
            let delay = backoff.record_failure(began.elapsed(), termination.healthy, random());
            let until = time::after(delay.delay);
            let scheduled = RestartScheduled {
                delay: delay.delay,
                until,
                failures: delay.failures,
                crash_loop: delay.crash_loop,
                reason: termination.reason.clone(),
                exit: termination.exit,
                stderr_tail: termination.stderr_tail.clone(),
            };
            let mut listener = (self.listener)(generation);
            listener.on_event(AppServerEvent::RestartScheduled(scheduled));
            listener.flush();
            self.publish.send_replace(Availability::Waiting(Waiting {
                reason: termination.reason.clone(),
                until: Some(until),
                failures: delay.failures,
                crash_loop: delay.crash_loop,
                stderr_tail: termination.stderr_tail,
                failure: termination.failure,
                generation,
            }));
            let mut retired = self.retired.clone();
            tokio::select! {
                () = tokio::time::sleep(delay.delay) => {}
                // The published time of the restart is wall-clock time and holds even if the machine sleeps meanwhile.
                () = time::reached(until, Timestamp::now) => {}
                Ok(_) = retired.wait_for(|&through| through >= generation) => {}
                () = stop_requested(&mut pace) => break,
            }
            self.publish.send_replace(Availability::Starting { reason: Some(termination.reason) });
        }
        if let Some(guard) = &mut self.guard {
            guard.stop().await;
        }
        self.publish.send_replace(Availability::Stopped { reason: STOPPING.to_owned() });
    }

    async fn run_generation(
        &self,
        generation: u64,
        guard: &GuardHandle,
        start_timeout: Duration,
        pace: watch::Receiver<StopPace>,
    ) -> Termination {
        let generation = Generation {
            number: generation,
            plan: &self.plan,
            backlog: &self.backlog,
            listener: &self.listener,
            publish: &self.publish,
            children: &self.children,
            guard,
            retired: &self.retired,
            end_request: &self.end_request,
            start_timeout,
            preexisting_children: &self.preexisting_children,
        };
        generation.run(pace).await
    }
}

/// The descendants of this process before it has started any.
fn preexisting_children() -> Vec<ProcessInfo> {
    if !platform::is_subreaper() {
        return Vec::new();
    }
    // No process has this mark, so only descendants match.
    let filter = ProcessFilter { includes_descendants: true, ..ProcessFilter::marked(NO_INSTANCE) };
    filter.running().unwrap_or_else(|error| {
        tracing::warn!(%error, "failed to list the children that existed before codexd started");
        Vec::new()
    })
}

fn random() -> u32 {
    let [a, b, c, d, ..] = uuid::Uuid::new_v4().into_bytes();
    u32::from_be_bytes([a, b, c, d])
}
