//! The values of `GET /metrics`.

use std::time::Duration;

use prometheus_client::metrics::histogram::Histogram;

use crate::blocking::Pool;
use crate::codex;
use crate::daemon::codex_health::CodexState;
use crate::daemon::keep_awake::KeepAwakeState;
use crate::daemon::services::Daemon;
use crate::hooks::{Counts, HookView};
use crate::state::ChildPhase;
use crate::timestamp::Timestamp;

/// The limit for reading the memory use of a process from the system.
const MEMORY_READ_TIMEOUT: Duration = Duration::from_secs(1);
static MEMORY: Pool = Pool::new("memory", 2, 6);

/// Everything there is to count, as of one moment; what is called a total counts since the start of this process.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Whether turns can be taken now.
    pub is_ready: bool,
    /// Whether the event log cannot be written now.
    pub is_storage_failing: bool,
    /// When the daemon began to serve, in seconds since 1970.
    pub started_at: Option<f64>,
    /// How much memory the daemon has in use, in bytes; `None` if the system does not report it.
    pub memory: Option<u64>,
    /// How much the app-server and all that descends from it have; `None` also when none of ours runs.
    pub child_memory: Option<u64>,
    /// Where the app-server is between one start and the next.
    pub child_phase: ChildPhase,
    /// The version of Codex that runs; empty when none does.
    pub codex_version: String,
    /// The version of the installed Codex; empty when it is not known.
    pub installed_version: String,
    /// How Codex is.
    pub codex: CodexState,
    /// How often the app-server was lost or could not be started, in total.
    pub child_restarts: u64,
    /// How many sessions are open.
    pub active_sessions: u64,
    /// How many closed ones are remembered.
    pub closed_sessions: u64,
    /// How many turns run.
    pub running_turns: u64,
    /// Whether the machine is kept awake.
    pub is_kept_awake: bool,
    /// How many turns wait for an earlier one, for their time, or for the end of a usage limit.
    pub queued_turns: u64,
    /// How long turns took, in seconds, by how they ended.
    pub turns: Vec<(&'static str, Histogram)>,
    /// How many requests of the app-server wait for an answer.
    pub waiting_requests: u64,
    /// How many events were written, in total.
    pub events: u64,
    /// How many bytes of events were written, in total.
    pub event_bytes: u64,
    /// How long syncs of the event log took, in seconds.
    pub syncs: Histogram,
    /// The sequence number of the newest visible event.
    pub latest_event: u64,
    /// The hooks.
    pub hooks: Vec<HookMetrics>,
}

/// What there is to count of a hook.
#[derive(Debug, Clone)]
pub struct HookMetrics {
    /// Its name.
    pub name: String,
    /// Whether its deliveries fail repeatedly.
    pub is_failing: bool,
    /// How many deliveries succeeded, in total.
    pub delivered: u64,
    /// How many attempts failed, in total.
    pub failed: u64,
    /// How many deliveries were given up, in total.
    pub skipped: u64,
}

impl From<HookView> for HookMetrics {
    fn from(view: HookView) -> Self {
        let Counts { delivered, failed, skipped } = view.counts;
        Self { name: view.hook.name.clone(), is_failing: view.is_failing, delivered, failed, skipped }
    }
}

impl Daemon {
    /// Counts.
    pub async fn metrics(&self) -> Metrics {
        let (mut metrics, child_pid) = self.counts();
        let memory = move || (codex::memory(std::process::id()), child_pid.and_then(codex::tree_memory));
        // Left out where the system does not answer in time.
        if let Ok((memory, child_memory)) = MEMORY.run(MEMORY_READ_TIMEOUT, memory).await {
            (metrics.memory, metrics.child_memory) = (memory, child_memory);
        }
        metrics
    }

    /// What is known without asking the system, and the PID of the app-server.
    fn counts(&self) -> (Metrics, Option<u32>) {
        let is_ready = self.readiness().ready;
        let view = self.core.recorder.view();
        let (log_metrics, turn_metrics) = (view.log.metrics(), &view.turn_metrics);
        let state = view.state();
        let closed_sessions = state.sessions.closed_count();
        let queued =
            state.private.queued_sessions().map(|session_id| state.private.queue(session_id).count());
        let (child_phase, child_pid) = (state.daemon.child.state, state.daemon.child.pid);
        let started_at = state.daemon.started_at.as_ref().and_then(Timestamp::time);
        let metrics = Metrics {
            is_ready,
            is_storage_failing: view.storage_error().is_some(),
            started_at: started_at.map(|at| at.as_millisecond() as f64 / 1000.0),
            memory: None,
            child_memory: None,
            child_phase,
            codex_version: state.daemon.child.version.clone().unwrap_or_default(),
            installed_version: self.core.codex.installed_version().unwrap_or_default(),
            codex: self.core.codex_health().state,
            child_restarts: turn_metrics.restarts(),
            active_sessions: (state.sessions.len() - closed_sessions) as u64,
            closed_sessions: closed_sessions as u64,
            running_turns: state.turns.open().count() as u64,
            is_kept_awake: self.keep_awake().state == KeepAwakeState::Active,
            queued_turns: queued.sum::<usize>() as u64,
            turns: turn_metrics.turns(),
            waiting_requests: state.requests.pending().count() as u64,
            events: log_metrics.events(),
            event_bytes: log_metrics.bytes(),
            syncs: log_metrics.syncs().clone(),
            latest_event: view.log.bounds().latest,
            hooks: self.hooks.list().into_iter().map(HookMetrics::from).collect(),
        };
        (metrics, child_pid)
    }
}
