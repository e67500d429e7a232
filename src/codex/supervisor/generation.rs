//! One generation: a connection from its beginning to its end, and the process behind it.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::availability::{Availability, Failure, STOPPING, dying};
use super::backoff::longer;
use super::plan::{App, Plan};
use crate::codex::listener::{Backlog, Closed, Heard, Listener};
use crate::codex::process::child::{
    self, ChildRecord, EndFailure, LITTLE_PATIENCE, PATIENCE, Process, Program,
};
use crate::codex::process::exit::{Exit, exit_of};
use crate::codex::process::filter::Ours;
use crate::codex::process::guard::Orders;
use crate::codex::process::identity::Identity;
use crate::codex::process::info::Seen;
use crate::codex::process::limits::{POOL, SIGTERM_GRACE};
use crate::codex::process::platform;
use crate::codex::process::reaper::Wards;
use crate::codex::process::sandbox::Sandboxes;
use crate::codex::process::stderr_tail::{self, Tail};
use crate::codex::process::stop_pace::{StopPace, hurry, over};
use crate::codex::process::sweep;
use crate::codex::protocol::methods;
use crate::codex::redact;
use crate::codex::rpc::call_error::CallError;
use crate::codex::rpc::client::Client;
use crate::codex::rpc::connection::{LAST_WORDS, Link, Over, WriterEnd, end_task};
use crate::codex::rpc::liveness;
use crate::codex::rpc::pending::Pending;
use crate::codex::rpc::reader::{Ear, StreamEnd};
use crate::codex::transport::stdio;
use crate::codex::transport::websocket::{self, Address};

/// How long an exit status is waited for after the pipes ended, before the process is ended by force.
const LAST_BREATH: Duration = Duration::from_millis(500);
/// How long a start that is under way may still take at a stop.
const SPAWN_AT_STOP: Duration = Duration::from_millis(500);
/// How long child.json may take to be written or removed.
const RECORD: Duration = Duration::from_secs(2);
/// How long a look at the processes of this machine may take.
const LIST: Duration = Duration::from_secs(1);
/// How long the sandboxes of commands have when a stop waits for nothing any more; they need 20 to 50 ms (measured on
/// 0.169.0 and 0.171.0).
const HURRIED_GRACE: Duration = Duration::from_millis(200);
/// How many characters of what a process said of its failure are quoted.
const QUOTED: usize = 300;
/// Where the end of a connection comes from when `initialize` failed.
const INITIALIZE: &str = methods::INITIALIZE;
/// The same when nothing was heard any more.
const LIVENESS: &str = "liveness";

/// One generation.
pub(crate) struct Life<'a, F> {
    pub(crate) generation: u64,
    pub(crate) plan: &'a Plan,
    pub(crate) backlog: &'a Arc<Backlog>,
    pub(crate) listener: &'a F,
    pub(crate) publish: &'a watch::Sender<Availability>,
    pub(crate) wards: &'a Wards,
    /// The guard of the child.
    pub(crate) guard: &'a Orders,
    /// Generations up to this one are to be ended, and others take their place.
    pub(crate) retired: &'a watch::Receiver<u64>,
    /// How long connecting and `initialize` may take, each.
    pub(crate) start_timeout: Duration,
    /// Children from before the first generation.
    pub(crate) strangers: &'a [Seen],
}

/// How a generation ended.
#[derive(Debug)]
pub(crate) struct Death {
    /// What it died of, as a sentence.
    pub(crate) cause: String,
    /// How its process ended, as far as it is known.
    pub(crate) exit: Option<Exit>,
    /// How long it could be called.
    pub(crate) healthy: Duration,
    /// The last lines of its stderr.
    pub(crate) last_words: Vec<String>,
    /// In what way it failed.
    pub(crate) failure: Failure,
    /// Whether its end was wanted, because another one is to take its place.
    pub(crate) is_retired: bool,
}

impl Death {
    /// That of one which never lived.
    fn at_birth(cause: String, failure: Failure) -> Self {
        Self {
            cause,
            exit: None,
            healthy: Duration::ZERO,
            last_words: Vec::new(),
            failure,
            is_retired: false,
        }
    }

    /// Adds to the cause what the process said of it.
    ///
    /// Only one that ended by itself with a failure says why: one that a signal ended could not, and one that exited
    /// with 0 knows of no failure.
    fn quote(&mut self) {
        let failed =
            self.exit.as_ref().is_some_and(|exit| !exit.expected && exit.code.is_some_and(|code| code != 0));
        if failed && let Some(line) = stderr_tail::cause(&self.last_words) {
            let line: String = line.trim_end_matches('.').chars().take(QUOTED).collect();
            self.cause = format!("{} It said last: {line}.", self.cause);
        }
    }
}

/// What became of a connection that was served.
struct Served {
    over: Over,
    /// How long it could be called; `None` when `initialize` was not answered.
    healthy: Option<Duration>,
    /// In what way it failed, when it did.
    failure: Failure,
}

impl<L: Listener, F: Fn(u64) -> L> Life<'_, F> {
    /// Lives; nothing of it is left when this returns.
    pub(crate) async fn run(&self, pace: watch::Receiver<StopPace>) -> Death {
        match &self.plan.app {
            App::Spawn(program) => self.run_spawned(program, pace).await,
            App::External(address) => self.run_external(address, pace).await,
        }
    }

    async fn run_spawned(&self, program: &Program, mut pace: watch::Receiver<StopPace>) -> Death {
        let stop = async {
            over(&mut pace).await;
            tokio::time::sleep(SPAWN_AT_STOP).await;
            None
        };
        let spawned = tokio::select! {
            spawned = child::spawn(program, self.wards) => Some(spawned),
            stopped = stop => stopped,
        };
        let (mut process, pipes) = match spawned {
            Some(Ok(spawned)) => spawned,
            failed => {
                // A start that hangs is a process already, and holds what the daemon has open.
                self.sweep(program, Vec::new(), pace.clone()).await;
                let Some(Err(message)) = failed else {
                    return Death::at_birth(STOPPING.to_owned(), Failure::NotStarted);
                };
                self.tell(Heard::SpawnFailed { message: message.clone() });
                return Death::at_birth(message, Failure::NotStarted);
            }
        };
        if let Some(pid) = process.id() {
            self.guard.hold(pid);
        }
        self.tell(Heard::Started { pid: process.id() });
        let tail = Arc::new(Mutex::new(Tail::default()));
        let stderr = {
            let (tail, listener) = (Arc::clone(&tail), (self.listener)(self.generation));
            tokio::spawn(async move { stdio::drain(pipes.stderr, listener, &tail).await })
        };
        let (client, pending, lines) = Client::new(self.generation, self.plan.call_timeout);
        let close = CancellationToken::new();
        let writer = tokio::spawn(stdio::write(pipes.stdin, lines, close.clone()));
        let mut ear = self.ear(&pending);
        let (pulse, cap) = (ear.pulse(), self.plan.line_cap);
        let reader = tokio::spawn(async move { ear.read_lines(pipes.stdout, cap).await });
        let mut link = Link { client, pending, pulse, reader: Some(reader), writer: Some(writer), close };

        // On disk before it is spoken to: from then on it does things that a later life may have to end.
        self.remember(program, process.id()).await;
        let served = self.serve(&mut link, Some(&mut process), pace.clone()).await;
        let mut death = self.end_spawned(served, link, &mut process, stderr, program, &mut pace).await;
        death.last_words = tail.lock().unwrap_or_else(PoisonError::into_inner).lines();
        death.quote();
        death
    }

    async fn run_external(&self, address: &Address, mut pace: watch::Receiver<StopPace>) -> Death {
        let patience = self.start_timeout;
        let connecting = tokio::time::timeout(patience, websocket::connect(address, self.plan.line_cap));
        let connected = tokio::select! {
            connected = connecting => connected.unwrap_or_else(|_| {
                Err(format!("no answer to the handshake within {} s", patience.as_secs_f32()))
            }),
            () = over(&mut pace) => return Death::at_birth(STOPPING.to_owned(), Failure::Unreachable),
        };
        let socket = match connected {
            Ok(socket) => socket,
            Err(reason) => {
                let message = format!("The app-server cannot be reached: {reason}.");
                self.tell(Heard::ConnectFailed { message: message.clone() });
                return Death::at_birth(message, Failure::Unreachable);
            }
        };
        let (sink, stream) = socket.split();
        let (client, pending, lines) = Client::new(self.generation, self.plan.call_timeout);
        let close = CancellationToken::new();
        let writer = tokio::spawn(websocket::write(sink, lines, close.clone()));
        let mut ear = self.ear(&pending);
        let (pulse, cap) = (ear.pulse(), self.plan.line_cap);
        let reader = tokio::spawn(async move { websocket::read(stream, &mut ear, cap).await });
        let mut link = Link { client, pending, pulse, reader: Some(reader), writer: Some(writer), close };

        let Served { over, healthy, failure } = self.serve(&mut link, None, pace).await;
        link.close.cancel();
        let heard = link.last_words().await;
        let written = end_task(link.writer).await;
        if let (Over::Stop | Over::Retired, Some(WriterEnd::CloseFailed(reason))) = (&over, written) {
            let message = format!("The app-server connection could not be closed: {reason}.");
            self.tell(Heard::CloseFailed { message });
        }
        let is_retired = matches!(over, Over::Retired);
        let (end, expected) = match over {
            Over::Stream(end) => (end, false),
            Over::Stop | Over::Retired | Over::Exited(_) => (heard, true),
        };
        let (cause, _) = self.closed(end, None, expected, healthy.is_some());
        let failure = if healthy.is_some() { Failure::Unreachable } else { failure };
        Death { healthy: healthy.unwrap_or_default(), is_retired, ..Death::at_birth(cause, failure) }
    }

    fn ear(&self, pending: &Arc<Pending>) -> Ear<L> {
        Ear::new(Arc::clone(pending), (self.listener)(self.generation), Arc::clone(self.backlog))
    }

    /// Brings to disk which process runs.
    async fn remember(&self, program: &Program, pid: Option<u32>) {
        let (record, instance, generation) =
            (Arc::clone(&program.record), program.instance.clone(), self.generation);
        let remember = move || match pid.and_then(Identity::of) {
            Some(identity) => record(Some(&ChildRecord { identity, generation, instance })),
            // It has ended already.
            None => record(None),
        };
        if let Err(unanswered) = POOL.run(RECORD, remember).await {
            tracing::error!("child.json could not be written: the disk {unanswered}");
        }
    }

    /// Initializes, then serves until the connection is over, for whatever reason.
    ///
    /// When this returns no call can be made and none waits any more.
    async fn serve(
        &self,
        link: &mut Link,
        process: Option<&mut Process>,
        pace: watch::Receiver<StopPace>,
    ) -> Served {
        let (client, pending, pulse) =
            (link.client.clone(), Arc::clone(&link.pending), Arc::clone(&link.pulse));
        let mut ready = None;
        let mut failure = Failure::Ended;
        let over = {
            let over = link.over(process, pace, self.retired.clone());
            tokio::pin!(over);
            tokio::select! {
                biased;
                over = &mut over => over,
                initialized = self.initialize(&client) => match initialized {
                    Ok(()) => {
                        ready = Some(Instant::now());
                        self.publish.send_replace(Availability::Ready(client.clone()));
                        tokio::select! {
                            biased;
                            over = &mut over => over,
                            reason = liveness::gone(&client, &pulse, self.plan.check_interval) => {
                                Over::Stream(StreamEnd::new(LIVENESS, reason))
                            }
                        }
                    }
                    Err((message, why)) => {
                        failure = why;
                        let sentence = format!("The app-server cannot be used: {message}.");
                        self.tell(Heard::ConnectFailed { message: sentence });
                        Over::Stream(StreamEnd::new(INITIALIZE, message))
                    }
                },
            }
        };
        let (now, cause) = match &over {
            Over::Stop => (Availability::Stopped { reason: STOPPING.to_owned() }, "codexd is stopping"),
            Over::Retired => (
                Availability::Starting {
                    after: Some("The app-server was ended so that it reads its files anew.".to_owned()),
                },
                "the app-server is started again",
            ),
            Over::Stream(end) => (
                dying(self.generation, format!("The app-server connection is gone: {}.", end.message)),
                end.message.as_str(),
            ),
            Over::Exited(_) => {
                (dying(self.generation, "The app-server process ended.".to_owned()), "its process ended")
            }
        };
        // Said at once: ending what is left of a sick process can take seconds.
        self.publish.send_replace(now);
        if !matches!(over, Over::Exited(_)) {
            pending.close(cause);
        }
        Served { over, failure, healthy: ready.map(|ready: Instant| ready.elapsed()) }
    }

    async fn initialize(&self, client: &Client) -> Result<(), (String, Failure)> {
        let params = json!({
            "clientInfo": {
                "name": "baa-conductor-codexd",
                "title": "codexd local service",
                "version": self.plan.version,
            },
            // collaborationMode on a turn needs it (measured).
            "capabilities": { "experimentalApi": true },
        });
        match client.call(methods::INITIALIZE, &params, self.start_timeout).await {
            Ok(info) => {
                client.note_initialized(&info);
                self.tell(Heard::Connected { info: &info });
                client.notify(methods::INITIALIZED);
                Ok(())
            }
            // It lives: one that ends closes the connection first.
            Err(error @ CallError::Timeout { .. }) => {
                let (hint, next) = (&self.plan.start_timeout_hint, longer(self.start_timeout));
                let message = format!(
                    "it did not initialize: {error}, though it runs; the next one is given {} s ({hint})",
                    next.as_secs_f32()
                );
                Err((message, Failure::SlowStart))
            }
            Err(error) => Err((format!("it did not initialize: {error}"), Failure::Ended)),
        }
    }

    /// Ends what is left of a child and its connection, and tells how it went.
    async fn end_spawned(
        &self,
        Served { over, healthy, failure: why }: Served,
        mut link: Link,
        process: &mut Process,
        stderr: JoinHandle<()>,
        program: &Program,
        pace: &mut watch::Receiver<StopPace>,
    ) -> Death {
        let is_retired = matches!(over, Over::Retired);
        let expected = is_retired || matches!(over, Over::Stop);
        let (end, status) = match over {
            Over::Exited(status) => (None, Some(status.map_err(EndFailure::Wait))),
            // Nothing says that it is about to end by itself.
            Over::Stream(end) if [INITIALIZE, LIVENESS].contains(&end.source) => (Some(end), None),
            Over::Stream(end) => {
                let status = process.wait_at_most(LAST_BREATH).await;
                (Some(end), status.map(|status| status.map_err(EndFailure::Wait)))
            }
            Over::Stop | Over::Retired => (None, None),
        };
        let patience = if expected { PATIENCE } else { LITTLE_PATIENCE };
        let seen = if status.is_none() { self.see_family(program).await } else { Vec::new() };
        // As long as its stdin is open: it ends its commands with SIGKILL when that ends. The one that Codex's npm package
        // starts may outlive the one that we started.
        self.end_sandboxes(program, pace).await;
        self.guard.release();
        let status = match status {
            Some(status) => status,
            None => process.end(&link.close, pace, patience).await,
        };
        link.close.cancel();
        // Before its last words: what it started may hold its pipes open for ever.
        self.sweep(program, seen, pace.clone()).await;
        let heard = link.last_words().await;
        end_task(link.writer).await;
        let mut stderr = stderr;
        if tokio::time::timeout(LAST_WORDS, &mut stderr).await.is_err() {
            stderr.abort();
            let _ = stderr.await;
        }
        let (exit, failure) = match status {
            Ok(status) => (Some(exit_of(status, expected)), None),
            Err(failure) => (None, Some(failure)),
        };
        let (cause, exit) = self.closed(end.unwrap_or(heard), exit, expected, healthy.is_some());
        match failure {
            Some(EndFailure::Signal(error)) => {
                self.tell(Heard::KillFailed {
                    message: format!("The app-server could not be ended: {error}."),
                });
            }
            Some(EndFailure::Wait(error)) => {
                self.tell(Heard::ChildError {
                    message: format!("The app-server could not be ended: {error}."),
                });
            }
            None => {}
        }
        if let Some(exit) = &exit {
            self.tell(Heard::Exited(exit.clone()));
            let record = Arc::clone(&program.record);
            if let Err(unanswered) = POOL.run(RECORD, move || record(None)).await {
                tracing::error!("child.json could not be removed: the disk {unanswered}");
            }
        }
        let healthy = healthy.unwrap_or_default();
        Death { cause, exit, healthy, last_words: Vec::new(), failure: why, is_retired }
    }

    /// What the child has started, where that is not known any more once it has ended.
    async fn see_family(&self, program: &Program) -> Vec<Seen> {
        if platform::are_orphans_ours() {
            return Vec::new();
        }
        let ours = self.ours(program);
        // Without it, the sweep still finds what is marked.
        POOL.run(LIST, move || ours.running()).await.ok().and_then(Result::ok).unwrap_or_default()
    }

    fn ours(&self, program: &Program) -> Ours {
        Ours {
            instance: program.instance.clone(),
            descendants: platform::are_orphans_ours(),
            spared: self.wards.pids(),
            strangers: self.strangers.to_vec(),
        }
    }

    /// Lets the sandboxes of commands remove what they made in the user's directories.
    async fn end_sandboxes(&self, program: &Program, pace: &mut watch::Receiver<StopPace>) {
        let ours = self.ours(program);
        let mut ending = pin!(Sandboxes::all(ours).end(SIGTERM_GRACE));
        tokio::select! {
            () = &mut ending => {}
            () = hurry(pace) => drop(tokio::time::timeout(HURRIED_GRACE, ending).await),
        }
    }

    /// Ends everything that the child started and left behind, and those that were seen before.
    async fn sweep(&self, program: &Program, seen: Vec<Seen>, pace: watch::Receiver<StopPace>) {
        let ours = self.ours(program);
        let hurry = move || *pace.borrow() == StopPace::Hurry;
        let sweep = move || sweep::sweep(&ours, &seen, sweep::SWEEP, hurry);
        let swept = POOL.run(sweep::SWEEP + LIST, sweep).await;
        match swept {
            Ok(Ok((0, 0))) => {}
            Ok(Ok((ended, 0))) => tracing::info!(ended, "ended what the app-server left behind"),
            Ok(Ok((ended, left))) => {
                tracing::error!(ended, left, "the app-server left processes that do not end")
            }
            Ok(Err(error)) => tracing::error!(%error, "what the app-server left behind cannot be found"),
            Err(unanswered) => {
                tracing::error!("what the app-server left behind cannot be ended: the system {unanswered}")
            }
        }
    }

    /// Tells the end of the connection; returns it as a sentence, and the exit as it came.
    ///
    /// One that ended before it was initialized was never connected, which is told first.
    fn closed(
        &self,
        end: StreamEnd,
        exit: Option<Exit>,
        expected: bool,
        initialized: bool,
    ) -> (String, Option<Exit>) {
        let reason = match (&exit, expected) {
            (_, true) => STOPPING.to_owned(),
            // How the process ended after it was sent away tells less than why it was.
            _ if end.source == INITIALIZE => format!("The app-server cannot be used: {}.", end.message),
            _ if end.source == LIVENESS => format!("The app-server was replaced: {}.", end.message),
            (Some(Exit { signal: Some(signal), .. }), _) => format!("The app-server was ended by {signal}."),
            (Some(Exit { code: Some(code), .. }), _) => format!("The app-server exited with code {code}."),
            _ => format!("The app-server connection is gone: {}.", end.message),
        };
        // A failed `initialize` has told it already.
        if !initialized && !expected && end.source != INITIALIZE {
            let message = format!("{reason} It had not answered initialize.");
            self.tell(Heard::ConnectFailed { message: redact::redact(&message) });
        }
        self.tell(Heard::Closed(Closed {
            source: end.source,
            message: end.message,
            flushed_trailing_message: end.flushed_trailing_message,
            trailing_message_length: end.trailing_message_length,
            exit: exit.clone(),
            expected,
        }));
        (redact::redact(&reason), exit)
    }

    fn tell(&self, heard: Heard<'_>) {
        let mut listener = (self.listener)(self.generation);
        listener.hear(heard);
        listener.flush();
    }
}
