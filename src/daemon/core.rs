//! The `Daemon`: what its services share, and the few things that all of them need.
//!
//! Each service is an `impl Daemon` in a separate file that imports this one; this file imports no service.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, RwLockReadGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::codex::{Availability, Client, StopPace, Supervisor};
use crate::config::Config;
use crate::daemon::app_server::availability::time_until_next_start;
use crate::daemon::catch_panic::{Panicked, catch_panic};
use crate::daemon::codex_health::Codex;
use crate::daemon::error::DaemonError;
use crate::daemon::recorder::handle::Recorder;
use crate::daemon::recorder::recovery::StateDirectories;
use crate::daemon::server_requests::open::OpenRequests;
use crate::daemon::skipped_items::table::SkippedItems;
use crate::daemon::turns::activity::Activity;
use crate::daemon::turns::submission::Submissions;
use crate::daemon::unsupported_methods::UnsupportedMethods;
use crate::journal::{Bounds, Subscription};
use crate::state::{NewEvent, State};

/// How long a call waits for an app-server that is starting, or will start soon.
const APP_SERVER_WAIT: Duration = Duration::from_secs(10);
/// The daemon, as `http` and `commands` use it; cheap to clone.
#[derive(Clone)]
pub struct Daemon {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) config: Arc<Config>,
    pub(super) _directories: StateDirectories,
    pub(super) recorder: Recorder,
    pub(super) availability: watch::Receiver<Availability>,
    pub(super) codex: Arc<Codex>,
    pub(super) supervisor: Mutex<Option<Supervisor>>,
    /// One lock per thread and per idempotency key, while one is in use.
    pub(super) locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// The threads that the app-server of this generation knows.
    pub(super) attached: Mutex<(u64, HashSet<String>)>,
    pub(super) activity: Arc<Activity>,
    pub(super) unsupported_methods: UnsupportedMethods,
    pub(super) open_requests: Arc<OpenRequests>,
    pub(super) submissions: Arc<Submissions>,
    pub(super) skipped_items: Arc<SkippedItems>,
    /// Operations run here, so that a client that disconnects cancels nothing.
    pub(super) tasks: TaskTracker,
    pub(super) stopping: CancellationToken,
    pub(super) pace: watch::Sender<StopPace>,
}

impl Daemon {
    /// The configuration it was started with.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// What the event log holds.
    pub fn bounds(&self) -> Bounds {
        self.shared.recorder.view().log.bounds()
    }

    /// Follows the events from the one after `cursor`, which is one that [`Bounds::check`] let through.
    pub fn follow(&self, cursor: u64) -> Subscription {
        self.shared.recorder.view().log.follow(cursor)
    }

    pub(super) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.shared.recorder.view().state()
    }

    /// The app-server's connection, if there is one now.
    pub(super) fn current_client(&self) -> Result<Client, DaemonError> {
        match &*self.shared.availability.borrow() {
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
        if self.shared.stopping.is_cancelled() {
            return Err(DaemonError::ShuttingDown);
        }
        // Checked before the app-server is called: its result could not be recorded durably.
        if let Some(error) = self.shared.recorder.view().storage_error() {
            return Err(DaemonError::Storage(error));
        }
        let mut availability = self.shared.availability.clone();
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
                () = self.shared.stopping.cancelled() => return Err(DaemonError::ShuttingDown),
                changed = tokio::time::timeout_at(deadline, availability.changed()) => match changed {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return Err(DaemonError::ShuttingDown),
                    Err(_) => return Err(self.unavailable_error(&now)),
                },
            }
        }
    }

    /// Records events and returns when they are on disk.
    pub(super) async fn record_durably(
        &self,
        build: impl FnOnce(&State) -> Vec<NewEvent> + Send + 'static,
    ) -> Result<(), DaemonError> {
        self.shared.recorder.record_durably(build).await.map_err(DaemonError::Storage)
    }

    /// Runs an operation to completion, whether or not its caller still waits for it.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, DaemonError>> + Send + 'static,
    ) -> Result<T, DaemonError> {
        if self.shared.stopping.is_cancelled() {
            return Err(DaemonError::ShuttingDown);
        }
        let daemon = self.clone();
        let work = async move {
            // The app-server is not restarted while this operation runs.
            let _gate = daemon.shared.codex.gate.read().await;
            work.await
        };
        match self.shared.tasks.spawn(catch_panic(work)).await {
            Ok(Ok(done)) => done,
            Ok(Err(Panicked)) => Err(DaemonError::Internal),
            // The runtime is going away.
            Err(_) => Err(DaemonError::ShuttingDown),
        }
    }

    /// The error for a caller that needs the app-server while it cannot be called.
    fn unavailable_error(&self, now: &Availability) -> DaemonError {
        let reason = self.shared.codex.health(now).sentence();
        DaemonError::Unavailable { reason, retry_after: time_until_next_start(now) }
    }
}
