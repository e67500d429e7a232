//! Restarting the app-server because a client requests it.
//!
//! It is asked to end once no turn runs and no request waits for an answer. Until then new turns wait, for a limited time;
//! after that they are accepted again, and the restart happens at the first moment without work. Only with `force` what
//! still runs is cut off. A shared app-server gets SIGTERM: it finishes by itself what other clients run, and with `force`
//! it gets a second one, at which it exits at once.
//! A restart counts as no failure, and sessions and queues continue.

use std::sync::PoisonError;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::Instant;

use super::pending_restart::PendingRestart;
use super::watch::CodexMonitor;
use crate::codex::{Availability, Client, Waiting};
use crate::config::ChildStrategy;
use crate::daemon::error::DaemonError;
use crate::daemon::turns::drain::interrupt_turns;
use crate::ids::RequestId;
use crate::state::{ChildEvent, State, WaitedTurn};

/// How often a moment without work is looked for.
const RETRY: Duration = Duration::from_millis(100);
/// How long a new turn waits for a restart.
const NEW_TURN_WAIT: Duration = Duration::from_secs(10);
/// How long a shared app-server may take to exit before what it waits for is reported, or it gets the second signal.
const EXIT_WAIT: Duration = Duration::from_secs(2);
/// When a turn that was refused during a restart may be tried again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Where a restart is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RestartState {
    /// The app-server is ended and started again.
    Restarting,
    /// New turns wait, so that those that run can end.
    Draining,
    /// It happens as soon as nothing runs; new turns are accepted.
    Waiting,
    /// The shared app-server was asked to end, and finishes what other clients run.
    Ending,
}

/// A restart that was requested.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RestartView {
    /// Where it is.
    pub state: RestartState,
    /// The generation that ends.
    pub generation: u64,
    /// Whether what still runs is cut off after the time for it.
    pub force: bool,
    /// The turns that it waits for.
    pub turns: Vec<WaitedTurn>,
    /// The IDs of the requests that wait for an answer.
    pub requests: Vec<RequestId>,
}

impl RestartView {
    /// Of an app-server that does not run, and is started now.
    fn of_start(generation: u64) -> Self {
        let (turns, requests) = (Vec::new(), Vec::new());
        Self { state: RestartState::Restarting, generation, force: false, turns, requests }
    }
}

impl CodexMonitor {
    /// Restarts the app-server when it has no work, or by force after `drain`; returns what it waits for.
    pub(in crate::daemon) fn restart(
        &self,
        drain: Duration,
        force: bool,
    ) -> Result<RestartView, DaemonError> {
        let server = &self.core.config.server;
        if self.core.stopping.is_cancelled() {
            return Err(DaemonError::ShuttingDown);
        }
        if server.strategy == ChildStrategy::External {
            return Err(DaemonError::NotOurs(format!(
                "codexd did not start the app-server at {}, so it does not restart it; restart it where it was started.",
                server.endpoint
            )));
        }
        let now = self.core.availability.borrow().clone();
        match now {
            Availability::Ready(_) if !self.core.codex.facts.now().is_ours => Err(self.not_ours()),
            Availability::Ready(client) => Ok(self.request_restart(&client, drain, force)),
            Availability::Waiting(Waiting { generation, .. }) => {
                self.retire(generation);
                Ok(RestartView::of_start(generation))
            }
            Availability::Starting { .. } => {
                let generation = self.core.state().daemon.child.generation.unwrap_or_default();
                Ok(RestartView::of_start(generation))
            }
            now => Err(self.core.unavailable_error(&now)),
        }
    }

    /// A later request changes the time and the force of one that waits.
    fn request_restart(&self, client: &Client, drain: Duration, force: bool) -> RestartView {
        let (generation, drain_until) = (client.generation(), Instant::now() + drain);
        let mut is_new = false;
        self.core.codex.restart.send_modify(|pending| {
            let before = pending.take().filter(|before| before.generation == generation);
            is_new = before.is_none();
            *pending = Some(PendingRestart {
                generation,
                drain_until,
                is_draining: !drain.is_zero(),
                force: force || before.as_ref().is_some_and(|before| before.force),
                is_ending: before.is_some_and(|before| before.is_ending),
            });
        });
        let view = self.restart_view().unwrap_or(RestartView::of_start(generation));
        if is_new {
            tokio::spawn(self.clone().carry_out(client.clone()));
        }
        view
    }

    fn not_ours(&self) -> DaemonError {
        let pid = self.core.state().daemon.child.pid;
        let pid = pid.map_or_else(|| "PID".to_owned(), |pid| pid.to_string());
        DaemonError::NotOurs(format!(
            "Another program started the shared app-server, process {pid}, so codexd does not restart it; after \
             \"kill {pid}\" it ends when its turns have ended, and codexd starts the next one."
        ))
    }

    /// The restart that is requested, with what it waits for.
    pub(in crate::daemon) fn restart_view(&self) -> Option<RestartView> {
        let pending = self.core.codex.restart.borrow().clone();
        let PendingRestart { generation, is_draining, force, is_ending, .. } = pending?;
        let (turns, requests) = work(&self.core.state());
        let state = match (is_ending, is_draining) {
            (true, _) => RestartState::Ending,
            _ if turns.is_empty() && requests.is_empty() => RestartState::Restarting,
            (false, true) => RestartState::Draining,
            (false, false) => RestartState::Waiting,
        };
        Some(RestartView { state, generation, force, turns, requests })
    }

    /// Waits while no new turn may start; fails when that takes too long.
    pub(in crate::daemon) async fn wait_for_restart(&self) -> Result<(), DaemonError> {
        let mut pending = self.core.codex.restart.subscribe();
        let is_free =
            |pending: &Option<PendingRestart>| !pending.as_ref().is_some_and(PendingRestart::holds_new_turns);
        match tokio::time::timeout(NEW_TURN_WAIT, pending.wait_for(is_free)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(DaemonError::Unavailable {
                reason: "It is restarted as soon as the turns that run have ended.".to_owned(),
                retry_after: Some(RETRY_AFTER),
            }),
        }
    }

    /// Follows a requested restart until the app-server of this connection has ended.
    async fn carry_out(self, client: Client) {
        let generation = client.generation();
        let mut news = self.core.recorder.view().log.news();
        let mut pending = self.core.codex.restart.subscribe();
        let mut availability = self.core.availability.clone();
        let (mut is_reported, mut ending_since): (bool, Option<Instant>) = (false, None);
        loop {
            let current = pending.borrow_and_update().clone();
            let is_over = is_over(&availability.borrow_and_update(), generation);
            let Some(restart) = current.filter(|_| !is_over) else { break };
            let is_late = Instant::now() >= restart.drain_until;
            if restart.is_draining && is_late {
                self.change(|restart| restart.is_draining = false);
            }
            match ending_since {
                Some(since) if since.elapsed() < EXIT_WAIT => {}
                Some(_) if restart.force => self.request_end(generation, 2),
                Some(_) if !std::mem::replace(&mut is_reported, true) => {
                    self.report_waiting(generation, true)
                }
                Some(_) => {}
                None if self.end_now(generation, is_late && restart.force).await => {
                    self.change(|restart| restart.is_ending = true);
                    (ending_since, is_reported) = (Some(Instant::now()), false);
                }
                None if is_late && !std::mem::replace(&mut is_reported, true) => {
                    self.report_waiting(generation, false);
                }
                None => {}
            }
            tokio::select! {
                _ = news.changed() => {}
                _ = availability.changed() => {}
                _ = pending.changed() => {}
                () = tokio::time::sleep(RETRY) => {}
                () = self.core.stopping.cancelled() => break,
            }
        }
        let is_this = |pending: &mut PendingRestart| pending.generation == generation;
        self.core.codex.restart.send_if_modified(|pending| pending.take_if(is_this).is_some());
    }

    fn change(&self, change: impl FnOnce(&mut PendingRestart)) {
        self.core.codex.restart.send_modify(|pending| {
            if let Some(restart) = pending {
                change(restart);
            }
        });
    }

    /// Asks the app-server to end if it has no work, or by force; returns whether it did. One that is our child takes no
    /// call any more then.
    async fn end_now(&self, generation: u64, force: bool) -> bool {
        // Every call to the app-server holds the gate for reading, so no call is in flight while this is held.
        let exclusive = self.core.codex.gate.try_write();
        let is_idle = {
            let (turns, requests) = work(&self.core.state());
            turns.is_empty() && requests.is_empty() && !self.core.codex.facts.has_failing_turn()
        };
        if !force && (exclusive.is_err() || !is_idle) {
            return false;
        }
        if !is_idle && self.owns_app_server() {
            interrupt_turns(&self.core).await;
        }
        let reason = "A client requested it".to_owned();
        self.core.recorder.record(ChildEvent::Restarting { generation, reason });
        if self.owns_app_server() {
            self.retire(generation);
            let mut availability = self.core.availability.clone();
            // An error means that the supervisor is gone.
            let _ = availability.wait_for(|now| is_over(now, generation)).await;
        } else {
            self.request_end(generation, 1);
        }
        true
    }

    fn request_end(&self, generation: u64, signals: u32) {
        let supervisor = self.supervisor.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(supervisor) = &*supervisor {
            supervisor.request_end(generation, signals);
        }
    }

    fn report_waiting(&self, generation: u64, is_ending: bool) {
        let (turns, requests) = work(&self.core.state());
        self.core.recorder.record(ChildEvent::RestartWaiting { generation, turns, requests, is_ending });
    }
}

/// Whether the connection of this generation has ended.
fn is_over(now: &Availability, generation: u64) -> bool {
    !matches!(now, Availability::Ready(client) if client.generation() == generation)
}

/// The turns that run, those of sub-agents included, and the requests that wait for an answer.
fn work(state: &State) -> (Vec<WaitedTurn>, Vec<RequestId>) {
    let open = state.turns.open().map(|turn| WaitedTurn {
        session_id: state.session_for(turn).map(|session| session.session_id.clone()),
        thread_id: turn.thread_id.clone(),
        turn_id: turn.turn_id.clone(),
    });
    let of_sub_agents = state.descendants.all_running().map(|(thread_id, turn_id)| WaitedTurn {
        session_id: None,
        thread_id: thread_id.clone(),
        turn_id: turn_id.clone(),
    });
    let requests = state.requests.pending().map(|request| request.request_id.clone());
    (open.chain(of_sub_agents).collect(), requests.collect())
}
