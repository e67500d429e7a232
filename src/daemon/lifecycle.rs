//! Starting and stopping the daemon.
//!
//! A stop drains or interrupts the turns, ends the app-server, waits for running operations and syncs the log.
//! Each step has a time limit; a second signal shortens them all ([`Daemon::force_stop`]).

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::codex::{StopPace, Supervisor};
use crate::config::{ChildStrategy, Config};
use crate::daemon::app_server::{child_file, plan};
use crate::daemon::app_server_events::{EventHandler, Receivers};
use crate::daemon::codex_health::Codex;
use crate::daemon::events;
use crate::daemon::hooks::{self, HookSetup, owner_of};
use crate::daemon::recorder::handle::Recorder;
use crate::daemon::recorder::input::Input;
use crate::daemon::recorder::recovery::{self, OpenError, StateDirectories};
use crate::daemon::server_requests::open::OpenRequests;
use crate::daemon::services::Daemon;
use crate::daemon::turns::drain::{interrupt_turns, wait_until_idle};
use crate::daemon::turns::submission::Submissions;
use crate::daemon::turns::watch::TurnWatch;
use crate::state::{ChildEvent, DaemonEvent};

/// How long the app-server and its descendants may take to end at a stop, before the stop is forced.
const APP_SERVER_STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long they may take after the stop was forced.
const FORCED_STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the programs of hooks may take to end at a stop.
const HOOKS_TIMEOUT: Duration = Duration::from_secs(4);
/// How long running operations may take at a stop, once the app-server has ended: they wait for the disk only.
const OPERATIONS_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the last sync may take at a stop.
const FINAL_SYNC_TIMEOUT: Duration = Duration::from_secs(4);
/// How long each step of a stop may take after a second signal.
const FORCED_STEP_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the daemon could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file or directory cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The system refuses what every program needs.
    #[error("The recorder could not be started: {0}.")]
    Recorder(#[source] io::Error),
}

impl StartError {
    /// Whether access to a file or directory is refused, so that a retry would fail the same way.
    pub fn is_refusal(&self) -> bool {
        let source = match self {
            Self::Open(OpenError::Lock(_) | OpenError::Newer { .. }) => return true,
            Self::Open(OpenError::File { source, .. }) | Self::Recorder(source) => source,
        };
        source.kind() == io::ErrorKind::PermissionDenied
    }
}

impl Daemon {
    /// Reads the files in `directories`, starts the recorder and begins to start the app-server.
    ///
    /// An app-server that does not start is a state, not an error.
    pub async fn start(config: Config, directories: StateDirectories) -> Result<Self, StartError> {
        Self::start_guarded(config, directories, None).await
    }

    /// [`Daemon::start`] with a guard, which ends what the daemon leaves behind when it is killed.
    ///
    /// `program` is this very program, which the guard runs too.
    pub async fn start_guarded(
        config: Config,
        directories: StateDirectories,
        program: Option<PathBuf>,
    ) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let disk = directories.disk().clone();
        // Blocks; no request is served yet.
        child_file::end_leftover(&disk, &config.paths.child);
        let mut opened = recovery::open(&config, &directories)?;
        let found = std::mem::take(&mut opened.hooks);
        let owner = owner_of(&config.paths.state_dir);
        if found.hooks.is_some() {
            hooks::end_leftover(&owner);
        }
        let recorder = Recorder::start(&config, opened).map_err(StartError::Recorder)?;
        let has_other_clients = config.server.strategy.has_other_clients();
        if !has_other_clients {
            // A turn that the previous run left open ended with it.
            recorder.send(Input::Closed(events::closed_by_restart()));
        }
        recorder.record(events::daemon_started(&config, &recorder.view().identity.daemon_id));
        recorder.caught_up().await;
        if config.server.strategy == ChildStrategy::External {
            recorder.record(ChildEvent::External { endpoint: config.server.endpoint.to_string() });
        }
        let (follow_ups, queued_follow_ups) = mpsc::unbounded_channel();
        let pace = watch::Sender::new(StopPace::Run);
        let receivers = Receivers {
            config: Arc::clone(&config),
            recorder: recorder.clone(),
            follow_ups,
            activity: Arc::default(),
            open: Arc::new(OpenRequests::new(recorder.clone())),
            submissions: Arc::new(Submissions::new(recorder.clone())),
            skipped_items: Arc::default(),
            codex: Arc::new(Codex::new(
                plan::codex_home(&config),
                config.server.strategy == ChildStrategy::Shared,
                config.server.demo,
            )),
        };
        let plan = plan::plan(&config, &recorder.view().identity.daemon_id, &disk, program, &receivers.codex);
        let listener = {
            let receivers = receivers.clone();
            move |generation| EventHandler::new(receivers.clone(), generation)
        };
        let supervisor = Supervisor::start(plan, pace.subscribe(), recorder.backlog(), listener);
        let hooks = HookSetup { found, runner: supervisor.program_runner(), disk, owner };
        let daemon = Self::wire(receivers, supervisor, directories, pace, hooks);
        let activity = Arc::clone(&daemon.activity);
        tokio::spawn(TurnWatch::new(&daemon.core, &daemon.queue, activity).run());
        if has_other_clients {
            tokio::spawn(daemon.reconnect.clone().run());
        }
        let skipped_items = daemon.turns.skipped_items.clone();
        let reconnect = daemon.reconnect.clone();
        tokio::spawn(daemon.requests.clone().run_follow_ups(skipped_items, reconnect, queued_follow_ups));
        tokio::spawn(daemon.codex.clone().watch());
        Ok(daemon)
    }

    /// Refuses new work from now on.
    pub fn refuse_work(&self) {
        self.core.stopping.cancel();
    }

    /// Ends the app-server and brings everything to disk.
    pub async fn stop(&self) {
        self.refuse_work();
        let supervisor = self.codex.supervisor.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(supervisor) = supervisor else { return };
        self.core.tasks.close();
        tokio::select! {
            () = self.drain() => {}
            () = self.stop_forced() => {}
        }
        self.quicken(StopPace::Stop);
        // At the same time, so that hooks do not make a stop longer.
        let mut ended = std::pin::pin!(async {
            let _ = tokio::join!(supervisor.ended(), self.stop_hooks(), self.keep_awake.stop());
        });
        if !self.within(APP_SERVER_STOP_TIMEOUT, ended.as_mut()).await {
            self.force_stop();
            if tokio::time::timeout(FORCED_STOP_TIMEOUT, ended).await.is_err() {
                tracing::error!("the app-server did not end in time; the guard ends the remaining processes");
            }
        }
        if !self.within(OPERATIONS_TIMEOUT, self.core.tasks.wait()).await {
            tracing::error!("operations are still waiting for the disk");
        }
        self.core.recorder.record(DaemonEvent::Stopped {});
        if !self.within(FINAL_SYNC_TIMEOUT, self.core.recorder.stop()).await {
            tracing::error!(
                "failed to sync the last events in time; the next start uses the events that are on disk"
            );
        }
    }

    async fn stop_hooks(&self) {
        if tokio::time::timeout(HOOKS_TIMEOUT, self.hooks.stop()).await.is_err() {
            tracing::error!(
                "the hooks did not stop in time; the next start ends what is left of their programs"
            );
        }
    }

    /// Waits for one step of a stop, `limit` at most, and [`FORCED_STEP_TIMEOUT`] once a second signal has come; returns whether it
    /// was done.
    async fn within(&self, limit: Duration, step: impl Future<Output = ()>) -> bool {
        let hurried = async {
            self.stop_forced().await;
            tokio::time::sleep(FORCED_STEP_TIMEOUT).await;
        };
        tokio::select! {
            () = step => true,
            () = tokio::time::sleep(limit) => false,
            () = hurried => false,
        }
    }

    /// Returns once a stop is forced and must not wait any more.
    pub async fn stop_forced(&self) {
        let mut pace = self.pace.subscribe();
        // The sender exists as long as this daemon.
        let _ = pace.wait_for(|&pace| pace == StopPace::Hurry).await;
    }

    /// Makes a stop skip everything it waits for.
    pub fn force_stop(&self) {
        self.quicken(StopPace::Hurry);
    }

    /// A stop becomes faster, never slower.
    fn quicken(&self, pace: StopPace) {
        self.pace.send_if_modified(|now| {
            let faster = pace > *now;
            *now = pace.max(*now);
            faster
        });
    }

    /// Lets the running turns end by themselves for a while, then interrupts them; those of an app-server that outlives the
    /// daemon go on without it.
    async fn drain(&self) {
        let has_other_clients = self.core.config.server.strategy.has_other_clients();
        let calm = async {
            // A turn that is being submitted is known once its operation has finished.
            self.core.tasks.wait().await;
            if !has_other_clients {
                wait_until_idle(&self.core).await;
            }
        };
        let _ = tokio::time::timeout(self.core.config.limits.drain_timeout, calm).await;
        if !has_other_clients {
            interrupt_turns(&self.core).await;
        }
    }
}
