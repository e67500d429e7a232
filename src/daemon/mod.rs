//! The use cases: start, stop, sessions, turns, status; the only room that knows all the ones below.

mod drafts;
mod error;
mod hearing;
mod keeper;
mod opening;
mod output;
mod recorder;
mod sessions;
mod status;
mod syncer;
#[cfg(test)]
mod tests;
mod turns;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app_server::wire::RpcError;
use crate::app_server::{Address, App, Availability, CallError, Client, Plan, Program, StopPace, Supervisor};
use crate::config::{Config, Endpoint, find_program};
use crate::journal::{Bounds, Next, Subscription};
use crate::state::State;
use hearing::{Asked, Hearing};
use recorder::{Input, Recorder};

pub use error::DaemonError;
pub use opening::{Folders, OpenError};
pub use sessions::CreateSession;
pub use status::{Readiness, SessionView, SnapshotView};
pub use turns::{SubmitTurn, TurnAccepted};

/// How long a call waits for an app-server that is being started.
const START: Duration = Duration::from_secs(10);
/// The longest message of the app-server that is kept, in bytes.
const LINE_CAP: usize = 64 * 1024 * 1024;
/// How long running turns are given to end after they were interrupted at a stop; the real app-server takes about
/// 10 ms (measured).
const INTERRUPT: Duration = Duration::from_secs(1);

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

/// The daemon, as the edge and the commands see it; cheap to clone.
#[derive(Clone)]
pub struct Daemon {
    shared: Arc<Shared>,
}

struct Shared {
    config: Arc<Config>,
    _folders: Folders,
    recorder: Recorder,
    availability: watch::Receiver<Availability>,
    supervisor: Mutex<Option<Supervisor>>,
    /// One lock a session, so that of two turns that arrive at once the second one sees the first.
    turn_locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Use cases run here, so that a caller that hangs up cancels nothing.
    tasks: TaskTracker,
    stopping: CancellationToken,
    pace: watch::Sender<StopPace>,
}

impl Daemon {
    /// Reads back the files in `folders`, starts the recorder and begins to start the app-server.
    ///
    /// An app-server that does not start is a state, not an error.
    pub async fn start(config: Config, folders: Folders) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let opened = opening::open(&config, &folders)?;
        let recorder = Recorder::start(&config, opened).map_err(StartError::Recorder)?;
        // A turn that an earlier life left open ended with it.
        recorder.send(Input::Closed(drafts::earlier_life()));
        recorder.note(drafts::daemon_started(&config, &recorder.view().identity.daemon_id));
        recorder.caught_up().await;
        if let Some(external) = drafts::child_external(&config) {
            recorder.note(external);
        }
        let (asked, questions) = mpsc::unbounded_channel();
        let pace = watch::Sender::new(StopPace::Run);
        let supervisor = {
            let (config, recorder) = (Arc::clone(&config), recorder.clone());
            let listener = {
                let (config, recorder) = (Arc::clone(&config), recorder.clone());
                move |generation| {
                    Hearing::new(Arc::clone(&config), recorder.clone(), asked.clone(), generation)
                }
            };
            Supervisor::start(plan(&config, &recorder), pace.subscribe(), recorder.backlog(), listener)
        };
        let availability = supervisor.availability();
        tokio::spawn(refuse_requests(questions, availability.clone(), recorder.clone()));
        Ok(Self {
            shared: Arc::new(Shared {
                config,
                _folders: folders,
                recorder,
                availability,
                supervisor: Mutex::new(Some(supervisor)),
                turn_locks: Mutex::default(),
                tasks: TaskTracker::new(),
                stopping: CancellationToken::new(),
                pace,
            }),
        })
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
        let mut pace = self.shared.pace.subscribe();
        tokio::select! {
            () = self.interrupt_turns() => {}
            _ = pace.wait_for(|&pace| pace == StopPace::Hurry) => {}
        }
        self.quicken(StopPace::Stop);
        supervisor.ended().await;
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        self.shared.recorder.note(drafts::daemon_stopped());
        self.shared.recorder.stop().await;
    }

    /// Makes a stop skip everything it waits for.
    pub fn hurry(&self) {
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

    /// Asks the app-server to end the turns that run, and waits a moment until they have.
    async fn interrupt_turns(&self) {
        let Availability::Ready(client) = self.shared.availability.borrow().clone() else { return };
        let turns: Vec<_> = {
            let state = self.state();
            let turn = |session: &crate::state::Session| {
                Some((session.thread_id.clone()?, session.current_turn_id.clone()?))
            };
            state.sessions.busy().filter_map(|session| turn(session)).collect()
        };
        if turns.is_empty() {
            return;
        }
        let through = self.state().through;
        for (thread_id, turn_id) in turns {
            let client = client.clone();
            self.shared.tasks.spawn(async move {
                let params = serde_json::json!({ "threadId": thread_id, "turnId": turn_id });
                let _ = client.call("turn/interrupt", &params, INTERRUPT).await;
            });
        }
        let idle = async {
            let mut events = self.follow(through);
            while self.state().sessions.busy().next().is_some() {
                let Ok(Next::Lines(_)) = events.next().await else { return };
            }
        };
        let _ = tokio::time::timeout(INTERRUPT, idle).await;
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

    /// The app-server's connection, once there is one.
    async fn client(&self) -> Result<Client, DaemonError> {
        if self.shared.stopping.is_cancelled() {
            return Err(DaemonError::ShuttingDown);
        }
        // Asked before the app-server is: what it did could not be promised.
        if let Some(error) = self.shared.recorder.view().storage() {
            return Err(DaemonError::Storage(error));
        }
        let mut availability = self.shared.availability.clone();
        let settled = availability.wait_for(|now| !matches!(now, Availability::Starting));
        match tokio::time::timeout(START, settled).await {
            Ok(Ok(now)) => match &*now {
                Availability::Ready(client) => Ok(client.clone()),
                Availability::Down { reason } => Err(DaemonError::Unavailable { reason: reason.clone() }),
                Availability::Starting => Err(still_starting()),
            },
            Ok(Err(_)) => Err(DaemonError::ShuttingDown),
            Err(_) => Err(still_starting()),
        }
    }

    /// Runs a use case to its end, whether its caller waits for it or not.
    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, DaemonError>> + Send + 'static,
    ) -> Result<T, DaemonError> {
        if self.shared.stopping.is_cancelled() {
            return Err(DaemonError::ShuttingDown);
        }
        let task = self.shared.tasks.spawn(work);
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a use case failed");
            Err(DaemonError::ShuttingDown)
        })
    }

    /// Calls the app-server and records what its answer means where the answer stands in the stream; returns when
    /// that is on disk.
    async fn call_and_record<T: Send + 'static>(
        &self,
        client: &Client,
        method: &'static str,
        params: &impl Serialize,
        read: impl FnOnce(&RawValue) -> Result<(T, recorder::Build), String> + Send + 'static,
    ) -> Result<T, DaemonError> {
        let recorder = self.shared.recorder.clone();
        let (sender, receiver) = oneshot::channel();
        let settle = move |outcome: Result<&RawValue, CallError>| {
            let read = |result: &RawValue| {
                let (value, build) = read(result)
                    .map_err(|reason| CallError::Malformed { method: method.to_owned(), reason })?;
                let (promise, kept) = oneshot::channel();
                recorder.send(Input::Promised(build, promise));
                Ok((value, kept))
            };
            let _ = sender.send(outcome.and_then(read));
        };
        client.call_in_order(method, params, CALL, settle).await;
        let (value, kept) = receiver.await.map_err(|_| DaemonError::ShuttingDown)??;
        match kept.await {
            Ok(Ok(())) => Ok(value),
            Ok(Err(error)) => Err(DaemonError::Storage(error)),
            Err(_) => Err(DaemonError::ShuttingDown),
        }
    }
}

/// How long the app-server may take to answer a call.
const CALL: Duration = Duration::from_secs(30);

fn still_starting() -> DaemonError {
    DaemonError::Unavailable { reason: format!("it did not start within {} s.", START.as_secs()) }
}

fn plan(config: &Arc<Config>, recorder: &Recorder) -> Plan {
    let server = &config.server;
    let app = match server.endpoint.target() {
        Endpoint::WebSocket(url) => App::External(Address::Url(url.clone())),
        Endpoint::Unix(path) => App::External(Address::Unix(path.clone())),
        Endpoint::Stdio => {
            let find = {
                let config = Arc::clone(config);
                move || {
                    let server = &config.server;
                    let path = server.child_environment.path.as_deref();
                    find_program(&server.command, path, &server.cwd).map_err(|error| error.to_string())
                }
            };
            App::Spawn(Program {
                find: Arc::new(find),
                arguments: server.args.clone(),
                folder: server.cwd.clone(),
                environment: vec![
                    ("BAA_CODEXD_DAEMON_ID".to_owned(), recorder.view().identity.daemon_id.clone()),
                    ("BAA_CODEXD_SERVER_ENDPOINT".to_owned(), server.endpoint.to_string()),
                ],
            })
        }
    };
    Plan { app, version: config.version.to_owned(), line_cap: LINE_CAP }
}

/// Answers every request of the app-server with an error, so that no turn waits for ever for somebody who is not
/// there.
async fn refuse_requests(
    mut questions: mpsc::UnboundedReceiver<Asked>,
    availability: watch::Receiver<Availability>,
    recorder: Recorder,
) {
    while let Some(asked) = questions.recv().await {
        recorder.note(drafts::request_refused(&asked.method, &asked.params));
        // An answer to an older generation would reach a stranger: ids restart at 0 in each process.
        if let Availability::Ready(client) = &*availability.borrow()
            && client.generation() == asked.generation
        {
            let message = format!("codexd cannot answer {}", asked.method);
            client.refuse(&asked.id, &RpcError { code: -32601, message });
        }
    }
}
