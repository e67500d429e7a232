//! One generation: a connection to the app-server from start to end, and the process behind it.
//!
//! [`Generation::run`] starts or connects, initializes, serves calls, and cleans up. The supervisor task calls it, once
//! per generation. When it returns, no call is pending, and the process and its descendants have ended or are reported as
//! left over.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::availability::{Availability, Failure, STOPPING, terminating};
use super::backoff::next_start_timeout;
use super::plan::{App, Plan};
use super::termination::Termination;
use crate::codex::listener::{AppServerEvent, Backlog, Closed, Listener};
use crate::codex::process::child::{
    self, ChildRecord, EndFailure, FAILED_STEP_TIMEOUT, Process, Program, STOP_STEP_TIMEOUT,
};
use crate::codex::process::descendants::Descendants;
use crate::codex::process::exit::{Exit, exit_of};
use crate::codex::process::filter::ProcessFilter;
use crate::codex::process::guard::GuardHandle;
use crate::codex::process::identity::Identity;
use crate::codex::process::info::{KnownProcess, ProcessInfo};
use crate::codex::process::limits::{POOL, SIGTERM_GRACE};
use crate::codex::process::platform;
use crate::codex::process::reaper::ChildRegistry;
use crate::codex::process::sandbox::Sandboxes;
use crate::codex::process::stderr_tail::StderrTail;
use crate::codex::process::stop_pace::{StopPace, stop_requested, wait_for_hurry};
use crate::codex::process::sweep;
use crate::codex::protocol::methods;
use crate::codex::redact;
use crate::codex::rpc::call_error::CallError;
use crate::codex::rpc::client::Client;
use crate::codex::rpc::connection::{Connection, ConnectionEnd, DRAIN_TIMEOUT, end_task};
use crate::codex::rpc::liveness;
use crate::codex::rpc::pending::Pending;
use crate::codex::rpc::reader::{MessageReader, StreamEnd};
use crate::codex::transport::stdio;

/// How long to wait for an exit status after the pipes ended, before the process is ended by force.
const EXIT_WAIT: Duration = Duration::from_millis(500);
/// How long a start in progress may still take after a stop was requested.
const SPAWN_TIMEOUT_AT_STOP: Duration = Duration::from_millis(500);
/// How long writing or removing child.json may take.
const CHILD_RECORD_TIMEOUT: Duration = Duration::from_secs(2);
/// How long one listing of the machine's processes may take.
const PROCESS_LIST_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the sandboxes of commands have in a hurried stop; they need 20 to 50 ms (measured on 0.169.0 and 0.171.0).
const HURRIED_SANDBOX_GRACE: Duration = Duration::from_millis(200);
/// The `source` of a connection's end when `initialize` failed.
const SOURCE_INITIALIZE: &str = methods::INITIALIZE;
/// The `source` of a connection's end when the app-server no longer responded.
const SOURCE_LIVENESS: &str = "liveness";

/// That the shared app-server of a generation is to get SIGTERM, and how often.
///
/// Codex then takes no new work, and exits when its turns have ended; at the second one it exits at once (measured on
/// 0.171.0).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct EndRequest {
    pub(crate) generation: u64,
    pub(crate) signals: u32,
}

/// One generation.
pub(crate) struct Generation<'a, F> {
    pub(crate) number: u64,
    pub(crate) plan: &'a Plan,
    pub(crate) backlog: &'a Arc<Backlog>,
    pub(crate) listener: &'a F,
    pub(crate) publish: &'a watch::Sender<Availability>,
    pub(crate) children: &'a ChildRegistry,
    /// Handle of the guard process of the child.
    pub(crate) guard: &'a GuardHandle,
    /// Generations up to this one are to be replaced.
    pub(crate) retired: &'a watch::Receiver<u64>,
    /// Which app-server is asked to end.
    pub(crate) end_request: &'a watch::Receiver<EndRequest>,
    /// Limit for connecting and for `initialize`, each.
    pub(crate) start_timeout: Duration,
    /// Children from before the first generation.
    pub(crate) preexisting_children: &'a [ProcessInfo],
}

/// What codexd has of an app-server that it started, besides the connection.
struct Child {
    process: Process,
    /// The task that reads its stderr.
    stderr: JoinHandle<()>,
    /// What it has started, where that cannot be found out after its end.
    descendants: Option<Descendants>,
}

/// How serving a connection ended.
pub(super) struct ServeOutcome {
    pub(super) over: ConnectionEnd,
    /// How long it accepted calls; `None` when `initialize` was not answered.
    pub(super) healthy: Option<Duration>,
    /// The kind of failure, if it failed.
    pub(super) failure: Failure,
}

impl<L: Listener, F: Fn(u64) -> L> Generation<'_, F> {
    /// Runs until the process and its descendants are gone.
    pub(crate) async fn run(&self, pace: watch::Receiver<StopPace>) -> Termination {
        match &self.plan.app {
            App::Spawn(program) => self.run_spawned(program, pace).await,
            App::External(address) => self.run_external(address, pace).await,
            App::Shared(server) => self.run_shared(server, pace).await,
        }
    }

    async fn run_spawned(&self, program: &Program, mut pace: watch::Receiver<StopPace>) -> Termination {
        let stop = async {
            stop_requested(&mut pace).await;
            tokio::time::sleep(SPAWN_TIMEOUT_AT_STOP).await;
            None
        };
        let spawned = tokio::select! {
            spawned = child::spawn(program, self.children) => Some(spawned),
            stopped = stop => stopped,
        };
        let (mut process, pipes) = match spawned {
            Some(Ok(spawned)) => spawned,
            failed => {
                // A start that hangs is already a process and holds our open file descriptors.
                self.sweep(program, Vec::new(), pace.clone()).await;
                let Some(Err(message)) = failed else {
                    return Termination::failed_to_start(STOPPING.to_owned(), Failure::NotStarted);
                };
                self.emit(AppServerEvent::SpawnFailed { message: message.clone() });
                return Termination::failed_to_start(message, Failure::NotStarted);
            }
        };
        if let Some(pid) = process.id() {
            self.guard.hold(pid);
        }
        self.emit(AppServerEvent::Started { pid: process.id() });
        let tail = Arc::new(Mutex::new(StderrTail::default()));
        let stderr = {
            let (tail, listener) = (Arc::clone(&tail), (self.listener)(self.number));
            tokio::spawn(async move { stdio::read_stderr(pipes.stderr, listener, &tail).await })
        };
        let (client, pending, lines) = Client::new(self.number, self.plan.call_timeout);
        let close = CancellationToken::new();
        let writer = tokio::spawn(stdio::write(pipes.stdin, lines, close.clone()));
        let mut messages = self.message_reader(&pending);
        let (last_received, cap) = (messages.last_received(), self.plan.line_cap);
        let reader = tokio::spawn(async move { messages.read_lines(pipes.stdout, cap).await });
        let mut connection =
            Connection { client, pending, last_received, reader: Some(reader), writer: Some(writer), close };

        // Recorded before the first message: from then on the process may do things that a later daemon has to end.
        let identity = self.record_child(program, process.id()).await;
        let descendants = identity.filter(|_| !platform::is_subreaper()).map(|identity| {
            let (record, instance) = (Arc::clone(&program.record), program.instance.clone());
            let (leader, generation) = (identity.pid, self.number);
            let last_received = Arc::clone(&connection.last_received);
            Descendants::watch(
                leader,
                self.process_filter(program),
                move || last_received.millis(),
                move |seen| {
                    let (identity, instance) = (identity.clone(), instance.clone());
                    record(Some(&ChildRecord { identity, generation, instance, descendants: seen.to_vec() }));
                },
            )
        });
        let served = self.serve(&mut connection, Some(&mut process), pace.clone()).await;
        let mut termination = self
            .end_spawned(served, connection, Child { process, stderr, descendants }, program, &mut pace)
            .await;
        termination.stderr_tail = tail.lock().unwrap_or_else(PoisonError::into_inner).lines();
        termination.append_error_line();
        termination
    }

    pub(super) fn message_reader(&self, pending: &Arc<Pending>) -> MessageReader<L> {
        MessageReader::new(Arc::clone(pending), (self.listener)(self.number), Arc::clone(self.backlog))
    }

    /// Writes the identity of the running process to child.json, and returns it.
    async fn record_child(&self, program: &Program, pid: Option<u32>) -> Option<Identity> {
        let (record, instance, generation) =
            (Arc::clone(&program.record), program.instance.clone(), self.number);
        let write = move || {
            let identity = pid.and_then(Identity::of);
            let descendants = Vec::new();
            let child =
                identity.clone().map(|identity| ChildRecord { identity, generation, instance, descendants });
            // Without an identity it has already ended.
            record(child.as_ref());
            identity
        };
        POOL.run(CHILD_RECORD_TIMEOUT, write).await.unwrap_or_else(|unanswered| {
            tracing::error!("failed to write child.json: the disk {unanswered}");
            None
        })
    }

    /// Initializes, then serves calls until the connection ends.
    ///
    /// When this returns, no call can be made and none is pending.
    pub(super) async fn serve(
        &self,
        connection: &mut Connection,
        process: Option<&mut Process>,
        pace: watch::Receiver<StopPace>,
    ) -> ServeOutcome {
        let (client, pending, last_received) = (
            connection.client.clone(),
            Arc::clone(&connection.pending),
            Arc::clone(&connection.last_received),
        );
        let mut ready = None;
        let mut failure = Failure::Ended;
        let over = {
            let over = connection.wait_for_end(process, pace, self.retired.clone());
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
                            reason = liveness::wait_until_unresponsive(&client, &last_received, self.plan.check_interval) => {
                                ConnectionEnd::Stream(StreamEnd::new(SOURCE_LIVENESS, reason))
                            }
                        }
                    }
                    Err((message, why)) => {
                        failure = why;
                        let sentence = format!("The app-server cannot be used: {message}.");
                        self.emit(AppServerEvent::ConnectFailed { message: sentence });
                        ConnectionEnd::Stream(StreamEnd::new(SOURCE_INITIALIZE, message))
                    }
                },
            }
        };
        let over = match over {
            ConnectionEnd::Stream(_) if self.end_request.borrow().generation == self.number => {
                ConnectionEnd::Retired
            }
            over => over,
        };
        let (now, cause) = match &over {
            ConnectionEnd::Stop => {
                (Availability::Stopped { reason: STOPPING.to_owned() }, "codexd is stopping")
            }
            ConnectionEnd::Retired => (
                Availability::Starting {
                    reason: Some("The app-server was ended so that it is started again.".to_owned()),
                },
                "the app-server is started again",
            ),
            ConnectionEnd::Stream(end) => (
                terminating(self.number, format!("The app-server connection is gone: {}.", end.message)),
                end.message.as_str(),
            ),
            ConnectionEnd::Exited(_) => {
                (terminating(self.number, "The app-server process ended.".to_owned()), "its process ended")
            }
        };
        // Published first: ending the rest of a failed process can take seconds.
        self.publish.send_replace(now);
        if !matches!(over, ConnectionEnd::Exited(_)) {
            pending.close(cause);
        }
        ServeOutcome { over, failure, healthy: ready.map(|ready: Instant| ready.elapsed()) }
    }

    async fn initialize(&self, client: &Client) -> Result<(), (String, Failure)> {
        let params = json!({
            "clientInfo": {
                "name": "baa-conductor-codexd",
                "title": "codexd local service",
                "version": self.plan.version,
            },
            // Turns with collaborationMode need it (measured).
            "capabilities": { "experimentalApi": true },
        });
        match client.call(methods::INITIALIZE, &params, self.start_timeout).await {
            Ok(info) => {
                client.record_version(&info);
                self.emit(AppServerEvent::Connected { info: &info });
                client.notify(methods::INITIALIZED);
                Ok(())
            }
            // The process runs: one that ends closes the connection first.
            Err(error @ CallError::Timeout { .. }) => {
                let (hint, next) = (&self.plan.start_timeout_hint, next_start_timeout(self.start_timeout));
                let message = format!(
                    "it did not initialize: {error}, though it runs; the next one is given {} s ({hint})",
                    next.as_secs_f32()
                );
                Err((message, Failure::SlowStart))
            }
            // A race: the reader fails the call before the caller learns from it how the connection ended.
            Err(CallError::Closed { .. }) => std::future::pending().await,
            Err(error) => Err((format!("it did not initialize: {error}"), Failure::Ended)),
        }
    }

    /// Ends what is left of a child and its connection, and reports how it ended.
    async fn end_spawned(
        &self,
        ServeOutcome { over, healthy, failure: why }: ServeOutcome,
        mut connection: Connection,
        Child { mut process, mut stderr, descendants }: Child,
        program: &Program,
        pace: &mut watch::Receiver<StopPace>,
    ) -> Termination {
        let is_retired = matches!(over, ConnectionEnd::Retired);
        let expected = is_retired || matches!(over, ConnectionEnd::Stop);
        let (end, status) = match over {
            ConnectionEnd::Exited(status) => (None, Some(status.map_err(EndFailure::Wait))),
            // Nothing indicates that it is about to exit by itself.
            ConnectionEnd::Stream(end) if [SOURCE_INITIALIZE, SOURCE_LIVENESS].contains(&end.source) => {
                (Some(end), None)
            }
            ConnectionEnd::Stream(end) => {
                let status = process.wait_at_most(EXIT_WAIT).await;
                (Some(end), status.map(|status| status.map_err(EndFailure::Wait)))
            }
            ConnectionEnd::Stop | ConnectionEnd::Retired => (None, None),
        };
        let step_timeout = if expected { STOP_STEP_TIMEOUT } else { FAILED_STEP_TIMEOUT };
        let mut known = descendants.as_ref().map(Descendants::seen).unwrap_or_default();
        // A record that is still being written names what the next start finds ended.
        drop(descendants);
        if status.is_none() {
            known.extend(self.list_process_tree(program).await.iter().map(KnownProcess::of));
        }
        // While its stdin is open: when stdin ends, the app-server sends SIGKILL to its commands. The server that Codex's npm
        // package starts may outlive the process that we started.
        self.end_sandboxes(program, pace).await;
        self.guard.release();
        let status = match status {
            Some(status) => status,
            None => process.end(&connection.close, pace, step_timeout).await,
        };
        connection.close.cancel();
        // Before draining the output: processes that it started may hold its pipes open for ever.
        self.sweep(program, known, pace.clone()).await;
        let end_of_stream = connection.drain_reader().await;
        end_task(connection.writer).await;
        if tokio::time::timeout(DRAIN_TIMEOUT, &mut stderr).await.is_err() {
            stderr.abort();
            let _ = stderr.await;
        }
        let (exit, failure) = match status {
            Ok(status) => (Some(exit_of(status, expected)), None),
            Err(failure) => (None, Some(failure)),
        };
        let (cause, exit) =
            self.report_closed(end.unwrap_or(end_of_stream), exit, expected, healthy.is_some());
        match failure {
            Some(EndFailure::Signal(error)) => {
                self.emit(AppServerEvent::KillFailed {
                    message: format!("The app-server could not be ended: {error}."),
                });
            }
            Some(EndFailure::Wait(error)) => {
                self.emit(AppServerEvent::ChildError {
                    message: format!("The app-server could not be ended: {error}."),
                });
            }
            None => {}
        }
        if let Some(exit) = &exit {
            self.emit(AppServerEvent::Exited(exit.clone()));
            let record = Arc::clone(&program.record);
            if let Err(unanswered) = POOL.run(CHILD_RECORD_TIMEOUT, move || record(None)).await {
                tracing::error!("failed to remove child.json: the disk {unanswered}");
            }
        }
        let healthy = healthy.unwrap_or_default();
        Termination { reason: cause, exit, healthy, stderr_tail: Vec::new(), failure: why, is_retired }
    }

    /// The processes that the child started, where they can no longer be found once it has ended.
    async fn list_process_tree(&self, program: &Program) -> Vec<ProcessInfo> {
        if platform::is_subreaper() {
            return Vec::new();
        }
        let filter = self.process_filter(program);
        // Without this list, the sweep still finds the marked processes.
        POOL.run(PROCESS_LIST_TIMEOUT, move || filter.running())
            .await
            .ok()
            .and_then(Result::ok)
            .unwrap_or_default()
    }

    fn process_filter(&self, program: &Program) -> ProcessFilter {
        ProcessFilter {
            includes_descendants: platform::is_subreaper(),
            owned: Some(self.children.clone()),
            preexisting_children: self.preexisting_children.to_vec(),
            ..ProcessFilter::marked(&program.instance)
        }
    }

    /// Ends the sandboxes of commands, so that they remove what they made in the user's directories.
    async fn end_sandboxes(&self, program: &Program, pace: &mut watch::Receiver<StopPace>) {
        let filter = self.process_filter(program);
        let mut ending = pin!(Sandboxes::all(filter).end(SIGTERM_GRACE));
        tokio::select! {
            () = &mut ending => {}
            () = wait_for_hurry(pace) => drop(tokio::time::timeout(HURRIED_SANDBOX_GRACE, ending).await),
        }
    }

    /// Ends every process that the child started and left behind, and the processes in `known`.
    async fn sweep(&self, program: &Program, known: Vec<KnownProcess>, pace: watch::Receiver<StopPace>) {
        let filter = self.process_filter(program);
        let hurry = move || *pace.borrow() == StopPace::Hurry;
        let sweep = move || sweep::sweep(&filter, &known, sweep::SWEEP_LIMIT, hurry);
        let swept = POOL.run(sweep::SWEEP_LIMIT + PROCESS_LIST_TIMEOUT, sweep).await;
        match swept {
            Ok(Ok((0, 0))) => {}
            Ok(Ok((ended, 0))) => tracing::info!(ended, "ended processes that the app-server left behind"),
            Ok(Ok((ended, left))) => {
                tracing::error!(ended, left, "failed to end all processes that the app-server left behind")
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "failed to list the processes that the app-server left behind")
            }
            Err(unanswered) => {
                tracing::error!(
                    "failed to end the processes that the app-server left behind: the system {unanswered}"
                )
            }
        }
    }

    /// Reports the end of the connection; returns the reason as a sentence, and the exit unchanged.
    ///
    /// A connection that ended before it was initialized is first reported as failed to connect.
    pub(super) fn report_closed(
        &self,
        end: StreamEnd,
        exit: Option<Exit>,
        expected: bool,
        initialized: bool,
    ) -> (String, Option<Exit>) {
        let reason = match (&exit, expected) {
            (_, true) => STOPPING.to_owned(),
            // The reason for ending the process is more useful than the exit status.
            _ if end.source == SOURCE_INITIALIZE => {
                format!("The app-server cannot be used: {}.", end.message)
            }
            _ if end.source == SOURCE_LIVENESS => format!("The app-server was replaced: {}.", end.message),
            (Some(Exit { signal: Some(signal), .. }), _) => format!("The app-server was ended by {signal}."),
            (Some(Exit { code: Some(code), .. }), _) => format!("The app-server exited with code {code}."),
            _ => format!("The app-server connection is gone: {}.", end.message),
        };
        // A failed `initialize` has already been reported.
        if !initialized && !expected && end.source != SOURCE_INITIALIZE {
            let message = format!("{reason} It had not answered initialize.");
            self.emit(AppServerEvent::ConnectFailed { message: redact::redact(&message) });
        }
        self.emit(AppServerEvent::Closed(Closed {
            source: end.source,
            message: end.message,
            flushed_trailing_message: end.flushed_trailing_message,
            trailing_message_length: end.trailing_message_length,
            exit: exit.clone(),
            expected,
            app_server_outlives_it: !matches!(self.plan.app, App::Spawn(_)),
        }));
        (redact::redact(&reason), exit)
    }

    pub(super) fn emit(&self, event: AppServerEvent<'_>) {
        let mut listener = (self.listener)(self.number);
        listener.on_event(event);
        listener.flush();
    }
}
