//! The use cases: start, stop, sessions, turns, status; the only room that knows all the ones below.

mod app_server_calls;
mod app_server_events;
#[expect(
    clippy::disallowed_methods,
    reason = "child.json is read before anything is served, and written on a thread of a pool"
)]
mod app_server_process;
#[expect(clippy::disallowed_methods, reason = "the command that makes a backup is a process of its own")]
mod backup;
mod codex_health;
mod descendants;
mod error;
mod events;
mod idempotency;
mod mcp_servers;
mod metrics;
mod panics;
mod queue;
mod reading;
mod recorder;
mod server_requests;
mod sessions;
mod skipped_items;
mod status;
#[cfg(test)]
mod tests;
mod trust;
mod turns;
mod unsupported_methods;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::codex::protocol::methods;
use crate::codex::{Availability, Client, StopPace, Supervisor};
use crate::config::{ChildStrategy, Config};
use crate::journal::{Bounds, Subscription};
use crate::state::State;
use app_server_calls::read;
use app_server_events::{EventHandler, Observers};
use codex_health::Codex;
use panics::Panicked;
use recorder::{Input, Recorder};
use server_requests::OpenRequests;
use skipped_items::SkippedItems;
use turns::submission::Submissions;
use turns::watch::Activity;
use unsupported_methods::UnsupportedMethods;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use crate::daemon::app_server_process::ChildFile;
pub(crate) use app_server_process::plan_for_inspection;
pub use backup::{Backup, BackupError, back_up};
pub(crate) use codex_health::refused_configuration;
pub use codex_health::{CodexHealth, CodexState};
pub use error::DaemonError;
pub use idempotency::RequestKey;
pub use mcp_servers::FailedMcpServer;
pub use metrics::Metrics;
pub(crate) use panics::{catch_panic, is_panic_caught};
pub use recorder::recovery::{OpenError, StateDirectories};
pub use server_requests::RequestAnswer;
pub use sessions::CreateSession;
pub use status::{Readiness, SessionView, SnapshotView};
pub use trust::TrustChoice;
pub use turns::interrupt::Interrupted;
pub use turns::{SubmitTurn, TurnAccepted, WhenBusy};

/// How long a call waits for an app-server that is being started, or soon will be.
const START: Duration = Duration::from_secs(10);
/// How long running turns are given to end after they were interrupted at a stop; the real app-server takes about
/// 10 ms (measured).
const INTERRUPT: Duration = Duration::from_secs(1);

/// How long the end of the app-server and of all that it started may take at a stop, before nothing is waited for any
/// more.
const END: Duration = Duration::from_secs(10);
/// How long it may take from then on.
const FORCED_END: Duration = Duration::from_secs(3);
/// How long use cases that are under way may take at a stop, once there is no app-server: they wait for the disk.
const LAST_USE_CASES: Duration = Duration::from_secs(1);
/// How long the disk may take at a stop.
const LAST_SYNC: Duration = Duration::from_secs(4);
/// How long each step of a stop may take once a second signal has come.
const HURRIED: Duration = Duration::from_secs(1);

/// Why the daemon could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file or folder cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The system refuses what every program needs.
    #[error("The recorder could not be started: {0}.")]
    Recorder(#[source] io::Error),
}

impl StartError {
    /// Whether a file or folder is not ours to use, so that another try would end the same way.
    pub fn is_refusal(&self) -> bool {
        let source = match self {
            Self::Open(OpenError::Lock(_) | OpenError::Newer { .. }) => return true,
            Self::Open(OpenError::File { source, .. }) | Self::Recorder(source) => source,
        };
        source.kind() == io::ErrorKind::PermissionDenied
    }
}

/// The daemon, as the edge and the commands see it; cheap to clone.
#[derive(Clone)]
pub struct Daemon {
    shared: Arc<Shared>,
}

struct Shared {
    config: Arc<Config>,
    _folders: StateDirectories,
    recorder: Recorder,
    availability: watch::Receiver<Availability>,
    codex: Arc<Codex>,
    supervisor: Mutex<Option<Supervisor>>,
    /// One lock for each thread and each key of a request, while one is needed.
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// The threads that the app-server of this generation knows.
    attached: Mutex<(u64, HashSet<String>)>,
    activity: Arc<Activity>,
    unsupported_methods: UnsupportedMethods,
    open_requests: Arc<OpenRequests>,
    submissions: Arc<Submissions>,
    skipped_items: Arc<SkippedItems>,
    /// Use cases run here, so that a caller that hangs up cancels nothing.
    tasks: TaskTracker,
    stopping: CancellationToken,
    pace: watch::Sender<StopPace>,
}

impl Daemon {
    /// Reads back the files in `folders`, starts the recorder and begins to start the app-server.
    ///
    /// An app-server that does not start is a state, not an error.
    pub async fn start(config: Config, folders: StateDirectories) -> Result<Self, StartError> {
        Self::start_guarded(config, folders, None).await
    }

    /// [`Daemon::start`] with a guard, which ends what the daemon leaves behind when it is killed.
    ///
    /// `program` is this very program, which the guard runs too.
    pub async fn start_guarded(
        config: Config,
        folders: StateDirectories,
        program: Option<PathBuf>,
    ) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let disk = folders.disk().clone();
        // Before anything is served, so that blocking keeps nobody waiting.
        app_server_process::end_leftover(&disk, &config.paths.child);
        let opened = recorder::recovery::open(&config, &folders)?;
        let recorder = Recorder::start(&config, opened).map_err(StartError::Recorder)?;
        // A turn that an earlier life left open ended with it.
        recorder.send(Input::Closed(events::closed_by_restart()));
        recorder.record(events::daemon_started(&config, &recorder.view().identity.daemon_id));
        recorder.caught_up().await;
        if let Some(external) = events::child_external(&config) {
            recorder.record(external);
        }
        let (follow_ups, queued_follow_ups) = mpsc::unbounded_channel();
        let pace = watch::Sender::new(StopPace::Run);
        let activity = Arc::new(Activity::default());
        let open_requests = Arc::new(OpenRequests::default());
        let submissions = Arc::new(Submissions::default());
        let skipped_items = Arc::new(SkippedItems::default());
        let codex = Arc::new(Codex::new(app_server_process::codex_home(&config)));
        let supervisor = {
            let (config, recorder) = (Arc::clone(&config), recorder.clone());
            let listener = {
                let (config, recorder) = (Arc::clone(&config), recorder.clone());
                let observers = Observers {
                    activity: Arc::clone(&activity),
                    open: Arc::clone(&open_requests),
                    submissions: Arc::clone(&submissions),
                    skipped_items: Arc::clone(&skipped_items),
                    codex: Arc::clone(&codex),
                };
                move |generation| {
                    let (config, recorder, follow_ups) =
                        (Arc::clone(&config), recorder.clone(), follow_ups.clone());
                    EventHandler::new(config, recorder, follow_ups, observers.clone(), generation)
                }
            };
            let plan = app_server_process::plan(
                &config,
                &recorder.view().identity.daemon_id,
                &disk,
                program,
                &codex,
            );
            Supervisor::start(plan, pace.subscribe(), recorder.backlog(), listener)
        };
        let availability = supervisor.availability();
        let daemon = Self {
            shared: Arc::new(Shared {
                config,
                _folders: folders,
                recorder,
                availability,
                codex,
                supervisor: Mutex::new(Some(supervisor)),
                locks: Mutex::default(),
                attached: Mutex::default(),
                activity,
                unsupported_methods: UnsupportedMethods::default(),
                open_requests,
                submissions,
                skipped_items,
                tasks: TaskTracker::new(),
                stopping: CancellationToken::new(),
                pace,
            }),
        };
        tokio::spawn(daemon.clone().watch_turns());
        tokio::spawn(daemon.clone().run_follow_ups(queued_follow_ups));
        tokio::spawn(daemon.clone().watch_codex());
        Ok(daemon)
    }

    /// The configuration it was started with.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Refuses new work from now on.
    pub fn refuse_work(&self) {
        self.shared.stopping.cancel();
    }

    /// Ends the app-server and brings everything to disk.
    pub async fn stop(&self) {
        self.refuse_work();
        let supervisor = self.shared.supervisor.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(supervisor) = supervisor else { return };
        self.shared.tasks.close();
        tokio::select! {
            () = self.drain() => {}
            () = self.stop_forced() => {}
        }
        self.quicken(StopPace::Stop);
        let mut ended = std::pin::pin!(supervisor.ended());
        if !self.within(END, ended.as_mut()).await {
            self.force_stop();
            if tokio::time::timeout(FORCED_END, ended).await.is_err() {
                tracing::error!("the app-server does not end; the guard goes on ending what is left");
            }
        }
        if !self.within(LAST_USE_CASES, self.shared.tasks.wait()).await {
            tracing::error!("use cases are left that wait for the disk");
        }
        self.shared.recorder.record(events::daemon_stopped());
        if !self.within(LAST_SYNC, self.shared.recorder.stop()).await {
            tracing::error!(
                "the disk does not take the last events; the next start goes on with those that it has"
            );
        }
    }

    /// Waits for one step of a stop, `limit` at most, and [`HURRIED`] once a second signal has come; returns whether it
    /// was done.
    async fn within(&self, limit: Duration, step: impl Future<Output = ()>) -> bool {
        let hurried = async {
            self.stop_forced().await;
            tokio::time::sleep(HURRIED).await;
        };
        tokio::select! {
            () = step => true,
            () = tokio::time::sleep(limit) => false,
            () = hurried => false,
        }
    }

    /// Returns once a stop must wait for nothing any more.
    pub async fn stop_forced(&self) {
        let mut pace = self.shared.pace.subscribe();
        // The sender lives as long as this daemon.
        let _ = pace.wait_for(|&pace| pace == StopPace::Hurry).await;
    }

    /// Makes a stop skip everything it waits for.
    pub fn force_stop(&self) {
        self.quicken(StopPace::Hurry);
    }

    /// A stop becomes faster, never slower.
    fn quicken(&self, pace: StopPace) {
        self.shared.pace.send_if_modified(|now| {
            let faster = pace > *now;
            *now = pace.max(*now);
            faster
        });
    }

    /// Lets the running turns end by themselves for a while, then interrupts them.
    async fn drain(&self) {
        let calm = async {
            // A turn that is still on its way to the app-server is heard of when its use case is over.
            self.shared.tasks.wait().await;
            self.idle().await;
        };
        let _ = tokio::time::timeout(self.config().limits.drain_timeout, calm).await;
        self.interrupt_turns().await;
    }

    /// Waits until no turn runs.
    async fn idle(&self) {
        let mut news = self.shared.recorder.view().log.news();
        while !self.turns_to_drain().is_empty() {
            if news.changed().await.is_err() {
                return;
            }
        }
    }

    /// The turns whose ends a stop waits for, as thread and turn ids: an app-server of our own ends with us, and what
    /// others began on one that goes on is theirs.
    fn turns_to_drain(&self) -> Vec<(String, String)> {
        let is_external = self.config().server.strategy == ChildStrategy::External;
        let state = self.state();
        let open = state.turns.open().filter(|turn| turn.started_by.is_some() || !is_external);
        let open = open.map(|turn| (turn.thread_id.clone(), turn.turn_id.clone()));
        let of_sub_agents = state.descendants.all_running().filter(|(thread_id, turn_id)| {
            !is_external || state.deciding_session(thread_id, Some(turn_id)).is_some()
        });
        let of_sub_agents =
            of_sub_agents.map(|(thread_id, turn_id)| (thread_id.to_owned(), turn_id.to_owned()));
        open.chain(of_sub_agents).collect()
    }

    /// Asks the app-server to end the turns that run, and waits a moment until they have.
    async fn interrupt_turns(&self) {
        let Availability::Ready(client) = self.shared.availability.borrow().clone() else { return };
        let turns = self.turns_to_drain();
        if turns.is_empty() {
            return;
        }
        for (thread_id, turn_id) in turns {
            let (daemon, client) = (self.clone(), client.clone());
            self.shared.tasks.spawn(async move {
                daemon.end_sandboxes(Some(&thread_id), reading::SANDBOXES).await;
                let params = serde_json::json!({ "threadId": thread_id, "turnId": turn_id });
                let _ = client.call(methods::TURN_INTERRUPT, &params, INTERRUPT).await;
            });
        }
        let _ = tokio::time::timeout(INTERRUPT, self.idle()).await;
    }

    /// What the event log holds.
    pub fn bounds(&self) -> Bounds {
        self.shared.recorder.view().log.bounds()
    }

    /// Follows the events from the one after `cursor`, which is one that [`Bounds::check`] let through.
    pub fn follow(&self, cursor: u64) -> Subscription {
        self.shared.recorder.view().log.follow(cursor)
    }

    fn state(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.shared.recorder.view().state()
    }

    /// The app-server's connection, if there is one now.
    fn current_client(&self) -> Result<Client, DaemonError> {
        match &*self.shared.availability.borrow() {
            Availability::Ready(client) => Ok(client.clone()),
            now => Err(app_server_process::unavailable_error(now, &self.shared.codex.health(now))),
        }
    }

    /// The app-server's connection of this generation, if it is still the one there is.
    ///
    /// An answer to an older generation would reach a stranger: ids restart at 0 in each process.
    fn client_of_generation(&self, generation: u64) -> Option<Client> {
        self.current_client().ok().filter(|client| client.generation() == generation)
    }

    /// The app-server's connection, once there is one: for as long as a start takes, and no longer than that when it is
    /// known that none comes in that time.
    async fn wait_for_client(&self) -> Result<Client, DaemonError> {
        if self.shared.stopping.is_cancelled() {
            return Err(DaemonError::ShuttingDown);
        }
        // FollowUp before the app-server is: what it did could not be promised.
        if let Some(error) = self.shared.recorder.view().storage_error() {
            return Err(DaemonError::Storage(error));
        }
        let mut availability = self.shared.availability.clone();
        let deadline = tokio::time::Instant::now() + START;
        loop {
            let now = availability.borrow_and_update().clone();
            if let Availability::Ready(client) = now {
                return Ok(client);
            }
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            if app_server_process::time_until_next_start(&now).is_some_and(|next| next > left) {
                return Err(app_server_process::unavailable_error(&now, &self.shared.codex.health(&now)));
            }
            tokio::select! {
                () = self.shared.stopping.cancelled() => return Err(DaemonError::ShuttingDown),
                changed = tokio::time::timeout_at(deadline, availability.changed()) => match changed {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return Err(DaemonError::ShuttingDown),
                    Err(_) => return Err(app_server_process::unavailable_error(&now, &self.shared.codex.health(&now))),
                },
            }
        }
    }

    /// Records events and returns when they are on disk.
    async fn record_durably(
        &self,
        build: impl FnOnce(&State) -> Vec<crate::state::NewEvent> + Send + 'static,
    ) -> Result<(), DaemonError> {
        self.shared.recorder.record_durably(build).await.map_err(DaemonError::Storage)
    }

    /// Runs a use case to its end, whether its caller waits for it or not.
    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, DaemonError>> + Send + 'static,
    ) -> Result<T, DaemonError> {
        if self.shared.stopping.is_cancelled() {
            return Err(DaemonError::ShuttingDown);
        }
        let daemon = self.clone();
        let work = async move {
            // As long as it is under way the app-server is not replaced.
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
}
