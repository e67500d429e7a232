//! What the services share: the recorder, the connection to the app-server, and the operations that run.
//!
//! Every service has an `Arc<Core>` besides what it owns; this file imports no service.

use std::sync::{Arc, RwLockReadGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::codex::{Availability, Client};
use crate::config::Config;
use crate::daemon::app_server::availability::time_until_next_start;
use crate::daemon::catch_panic::{Panicked, catch_panic};
use crate::daemon::codex_health::pending_restart::PendingRestart;
use crate::daemon::codex_health::{Codex, CodexHealth};
use crate::daemon::error::DaemonError;
use crate::daemon::recorder::handle::Recorder;
use crate::ids::SessionId;
use crate::state::{NewEvent, Session, SessionStatus, State};

/// How long a call waits for an app-server that is starting, or will start soon.
const APP_SERVER_WAIT: Duration = Duration::from_secs(10);

pub(super) struct Core {
    pub(super) config: Arc<Config>,
    pub(super) recorder: Recorder,
    pub(super) availability: watch::Receiver<Availability>,
    pub(super) codex: Arc<Codex>,
    /// The newest generation in which what became of the turns of earlier connections is recorded.
    pub(super) looked_at: watch::Sender<u64>,
    /// Whether a turn runs, as the watch of the turns last saw it.
    pub(super) turns_run: watch::Sender<bool>,
    /// Operations run here, so that a client that disconnects cancels nothing.
    pub(super) tasks: TaskTracker,
    pub(super) stopping: CancellationToken,
}

impl Core {
    pub(super) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.recorder.view().state()
    }

    /// One session.
    pub(super) fn session(&self, session_id: &SessionId) -> Result<Arc<Session>, DaemonError> {
        let known = self.state().sessions.get(session_id).cloned();
        known.ok_or_else(|| DaemonError::UnknownSession(session_id.clone()))
    }

    /// Calls `find` with the records, and again after each change, until it returns a value; `None` when the daemon stops
    /// before.
    pub(super) async fn when<T>(&self, mut find: impl FnMut(&State) -> Option<T>) -> Option<T> {
        let mut news = self.recorder.view().log.news();
        loop {
            news.borrow_and_update();
            let found = find(&self.state());
            if found.is_some() {
                return found;
            }
            tokio::select! {
                changed = news.changed() => changed.ok()?,
                () = self.stopping.cancelled() => return None,
            }
        }
    }

    /// The health of Codex, and what to do.
    pub(super) fn codex_health(&self) -> CodexHealth {
        self.codex.health(&self.availability.borrow())
    }

    /// The app-server's connection, if there is one now.
    pub(super) fn current_client(&self) -> Result<Client, DaemonError> {
        match &*self.availability.borrow() {
            Availability::Ready(client) => Ok(client.clone()),
            now => Err(self.unavailable_error(now)),
        }
    }

    /// The app-server's connection of this generation, if it is still the one there is.
    ///
    /// A response to an older generation must not reach a newer one: request ids restart at 0 in each process.
    pub(super) fn client_of_generation(&self, generation: u64) -> Option<Client> {
        self.current_client().ok().filter(|client| client.generation() == generation)
    }

    /// Waits for a connection to the app-server, at most as long as a start takes; fails at once when it is known that none
    /// comes in that time.
    pub(super) async fn wait_for_client(&self) -> Result<Client, DaemonError> {
        if self.stopping.is_cancelled() {
            return Err(DaemonError::ShuttingDown);
        }
        // Checked before the app-server is called: its result could not be recorded durably.
        self.require_storage()?;
        let mut availability = self.availability.clone();
        let deadline = tokio::time::Instant::now() + APP_SERVER_WAIT;
        loop {
            let now = availability.borrow_and_update().clone();
            if let Availability::Ready(client) = now {
                return Ok(client);
            }
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            if time_until_next_start(&now).is_some_and(|next| next > left) {
                return Err(self.unavailable_error(&now));
            }
            tokio::select! {
                () = self.stopping.cancelled() => return Err(DaemonError::ShuttingDown),
                changed = tokio::time::timeout_at(deadline, availability.changed()) => match changed {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return Err(DaemonError::ShuttingDown),
                    Err(_) => return Err(self.unavailable_error(&now)),
                },
            }
        }
    }

    /// The generation of the connection, once what became of the turns of earlier connections is recorded; `None` also
    /// while a restart holds new turns.
    pub(super) fn checked_generation(&self) -> Option<u64> {
        let Availability::Ready(client) = &*self.availability.borrow() else { return None };
        let generation = client.generation();
        if self.codex.restart.borrow().as_ref().is_some_and(PendingRestart::holds_new_turns) {
            return None;
        }
        let has_other_clients = self.config.server.strategy.has_other_clients();
        (!has_other_clients || *self.looked_at.borrow() >= generation).then_some(generation)
    }

    /// Fails while the event log cannot be written.
    pub(super) fn require_storage(&self) -> Result<(), DaemonError> {
        self.recorder.view().storage_error().map_or(Ok(()), |error| Err(DaemonError::Storage(error)))
    }

    /// Records events and returns when they are on disk.
    pub(super) async fn record_durably(
        &self,
        build: impl FnOnce(&State) -> Vec<NewEvent> + Send + 'static,
    ) -> Result<(), DaemonError> {
        self.recorder.record_durably(build).await.map_err(DaemonError::Storage)
    }

    /// Runs an operation to completion, whether or not its caller still waits for it.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, DaemonError>> + Send + 'static,
    ) -> Result<T, DaemonError> {
        if self.stopping.is_cancelled() {
            return Err(DaemonError::ShuttingDown);
        }
        let codex = Arc::clone(&self.codex);
        let work = async move {
            // The app-server is not restarted while this operation runs.
            let _gate = codex.gate.read().await;
            work.await
        };
        match self.tasks.spawn(catch_panic(work)).await {
            Ok(Ok(done)) => done,
            Ok(Err(Panicked)) => Err(DaemonError::Internal),
            // The runtime is going away.
            Err(_) => Err(DaemonError::ShuttingDown),
        }
    }

    /// [`Core::run`] for what makes a thread: it continues when its caller has waited for as long as a call may take.
    pub(super) async fn run_until_call_timeout<T: Send + 'static>(
        &self,
        method: &'static str,
        work: impl Future<Output = Result<T, DaemonError>> + Send + 'static,
    ) -> Result<T, DaemonError> {
        let limit = self.config.limits.call_timeout;
        let late = |_| Err(DaemonError::StillOpening { method, seconds: limit.as_secs() });
        tokio::time::timeout(limit, self.run(work)).await.unwrap_or_else(late)
    }

    /// The error for a caller that needs the app-server while it cannot be called.
    pub(super) fn unavailable_error(&self, now: &Availability) -> DaemonError {
        let reason = self.codex.health(now).sentence();
        DaemonError::Unavailable { reason, retry_after: time_until_next_start(now) }
    }
}

/// Returns the session if it is active, else an error.
pub(super) fn require_active(session: Arc<Session>) -> Result<Arc<Session>, DaemonError> {
    match session.status {
        SessionStatus::Active => Ok(session),
        SessionStatus::Closed => {
            let reason = session.closed_reason.clone().unwrap_or_else(|| "It was closed.".to_owned());
            Err(DaemonError::SessionNotActive { session_id: session.session_id.clone(), reason })
        }
    }
}
