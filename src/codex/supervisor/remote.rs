//! A generation whose app-server outlives it: an external one, or the one that all programs of the user share.
//!
//! Nothing here ends an app-server by itself; one that codexd started gets SIGTERM when a client requests a restart. The
//! shared one is joined where it answers at its socket; it is started where none
//! answers and the one that was known last does not run. Several programs may do that at the same moment: Codex lets one
//! server have the socket and the others exit, and everybody joins the one that answers.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use rustix::process::Signal;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::availability::{Failure, STOPPING, terminating};
use super::backoff::next_start_timeout;
use super::generation::{EndRequest, Generation, ServeOutcome};
use super::plan::{SharedProcess, SharedServer};
use super::termination::Termination;
use crate::codex::listener::{AppServerEvent, Listener};
use crate::codex::process::detached::{self, Detached, Output, without_scope};
use crate::codex::process::exit::exit_of;
use crate::codex::process::identity::Identity;
use crate::codex::process::limits::POOL;
use crate::codex::process::stderr_tail::error_line;
use crate::codex::process::stop_pace::{StopPace, stop_requested};
use crate::codex::rpc::client::Client;
use crate::codex::rpc::connection::{Connection, ConnectionEnd, WriterEnd, end_task};
use crate::codex::transport::websocket::{self, Address, SOCKET_URL, Socket};

/// The pause between two attempts to connect while an app-server starts or ends.
const CONNECT_INTERVAL: Duration = Duration::from_millis(50);
/// How long the socket may still not answer after the app-server that was started has exited: another one that started
/// at the same moment has the socket then, and may not listen yet.
const JOIN_GRACE: Duration = Duration::from_secs(3);
/// How long an app-server that has closed its socket may take to exit before that is reported.
const EXIT_GRACE: Duration = Duration::from_secs(1);
/// How long another program that started the app-server that was known last has to start it again, before codexd starts
/// one. `codex app-server daemon restart` takes 0.7 to 1.2 s (measured on 0.171.0), and it manages only what it started
/// itself, so it could not restart the app-server of codexd.
const OWNER_GRACE: Duration = Duration::from_secs(5);
/// How long reading or writing the identity of the app-server may take.
const RECORD_TIMEOUT: Duration = Duration::from_secs(2);

/// Why there is no connection to the socket.
enum Unconnected {
    /// Nothing listens there.
    Absent,
    /// Something else: what listens there cannot be used.
    Unusable(String),
}

impl<L: Listener, F: Fn(u64) -> L> Generation<'_, F> {
    pub(super) async fn run_external(
        &self,
        address: &Address,
        mut pace: watch::Receiver<StopPace>,
    ) -> Termination {
        let limit = self.start_timeout;
        let connecting = tokio::time::timeout(limit, websocket::connect(address, self.plan.line_cap));
        let connected = tokio::select! {
            connected = connecting => connected.unwrap_or_else(|_| Err(no_answer(limit))),
            () = stop_requested(&mut pace) => return stopped(),
        };
        match connected {
            Ok(socket) => self.run_connected(socket, pace).await,
            Err(reason) => self.failed_to_connect(
                format!("The app-server cannot be reached: {reason}."),
                Failure::Unreachable,
            ),
        }
    }

    pub(super) async fn run_shared(
        &self,
        server: &SharedServer,
        mut pace: watch::Receiver<StopPace>,
    ) -> Termination {
        let joined = tokio::select! {
            joined = self.join_or_start(server) => joined,
            () = stop_requested(&mut pace) => return stopped(),
        };
        let (socket, identity, launcher) = match joined {
            Ok(joined) => joined,
            Err(termination) => return termination,
        };
        let pid = identity.as_ref().map(|identity| identity.pid);
        let (mut is_known, mut is_ours) = (false, false);
        if let Some(identity) = identity.clone() {
            let known = known(server).await.filter(|known| known.identity == identity);
            is_known = known.is_some();
            is_ours =
                known.as_ref().is_some_and(|known| known.is_ours) || is_started(&identity, launcher).await;
            let joined = SharedProcess { identity, is_ours };
            if known.as_ref() != Some(&joined) {
                record(server, joined).await;
            }
        }
        self.emit(AppServerEvent::Joined { pid, is_known, is_ours });
        tokio::select! {
            termination = self.run_connected(socket, pace) => termination,
            never = self.send_end_signals(identity.filter(|_| is_ours)) => match never {},
        }
    }

    /// Sends SIGTERM to the app-server as often as it is requested.
    async fn send_end_signals(&self, server: Option<Identity>) -> Infallible {
        let mut requests = self.end_request.clone();
        let mut sent = 0;
        loop {
            let is_due = |request: &EndRequest| request.generation == self.number && request.signals > sent;
            // An error means that the supervisor's handle is gone.
            let (Some(server), Ok(_)) = (server.clone(), requests.wait_for(is_due).await) else {
                std::future::pending::<()>().await;
                continue;
            };
            sent += 1;
            let pid = server.pid;
            tracing::info!(pid, sent, "sending SIGTERM to the shared app-server");
            let failure = match POOL.run(RECORD_TIMEOUT, move || server.signal(Signal::TERM)).await {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(unanswered) => format!("the system {unanswered}"),
            };
            let message = format!("SIGTERM could not be sent to the app-server, process {pid}: {failure}.");
            self.emit(AppServerEvent::KillFailed { message });
        }
    }

    /// Connects to the app-server that answers, or starts one; returns the PID of what was started, too.
    async fn join_or_start(
        &self,
        server: &SharedServer,
    ) -> Result<(Socket, Option<Identity>, Option<u32>), Termination> {
        let unusable = |reason| self.failed_to_connect(reason, Failure::Unreachable);
        let began = Instant::now();
        let mut is_told = false;
        loop {
            match self.join(server).await {
                Ok((socket, identity)) => return Ok((socket, identity, None)),
                Err(Unconnected::Unusable(reason)) => return Err(unusable(reason)),
                Err(Unconnected::Absent) => {}
            }
            let Some(SharedProcess { identity, is_ours }) = known(server).await else { break };
            if !identity.is_running() {
                if is_ours || began.elapsed() >= OWNER_GRACE {
                    break;
                }
                tokio::time::sleep(CONNECT_INTERVAL).await;
                continue;
            }
            let pid = identity.pid;
            if !is_told && began.elapsed() >= EXIT_GRACE {
                is_told = true;
                let message = format!(
                    "Nothing listens at the control socket {}, but the app-server that did, process {pid}, still runs; \
                     no second one is started. It may be finishing its turns: wait until it exits, or end it with \
                     \"kill {pid}\".",
                    server.socket.display()
                );
                self.emit(AppServerEvent::ConnectFailed { message: message.clone() });
                self.publish.send_replace(terminating(self.number, message));
            }
            tokio::time::sleep(CONNECT_INTERVAL).await;
        }
        let started = detached::start(&server.program, self.children).await;
        let started = started.map_err(|message| {
            self.emit(AppServerEvent::SpawnFailed { message: message.clone() });
            Termination::failed_to_start(message, Failure::NotStarted)
        })?;
        let pid = started.child.id();
        if let Some(identity) = pid.and_then(Identity::of) {
            record(server, SharedProcess { identity, is_ours: true }).await;
        }
        self.emit(AppServerEvent::Started { pid });
        let (socket, identity) = self.join_started(server, started).await?;
        Ok((socket, identity, pid))
    }

    /// Connects to the socket once the app-server that was started, or another one, listens there.
    async fn join_started(
        &self,
        server: &SharedServer,
        mut started: Detached,
    ) -> Result<(Socket, Option<Identity>), Termination> {
        let mut deadline = Instant::now() + self.start_timeout;
        let mut exit = None;
        loop {
            let reason = match self.join(server).await {
                Ok(joined) => return Ok(joined),
                Err(Unconnected::Unusable(reason)) => reason,
                Err(Unconnected::Absent) => "nothing listens at its control socket".to_owned(),
            };
            if exit.is_none()
                && let Ok(Some(status)) = started.child.try_wait()
            {
                exit = Some(exit_of(status, false));
                deadline = deadline.min(Instant::now() + JOIN_GRACE);
            }
            if Instant::now() < deadline {
                tokio::time::sleep(CONNECT_INTERVAL).await;
                continue;
            }
            let Some(exit) = exit else {
                let (hint, next) = (&self.plan.start_timeout_hint, next_start_timeout(self.start_timeout));
                let message = format!(
                    "The app-server runs, but {reason} after {} s; the next attempt is given {} s ({hint}).",
                    self.start_timeout.as_secs_f32(),
                    next.as_secs_f32()
                );
                return Err(self.failed_to_connect(message, Failure::SlowStart));
            };
            let Output { tail, is_without_scope } = output(started).await;
            if is_without_scope {
                let message = without_scope(error_line(&tail).unwrap_or("it does not say why"));
                self.emit(AppServerEvent::SpawnFailed { message: message.clone() });
                return Err(Termination::failed_to_start(message, Failure::NotStarted));
            }
            let end = match (exit.code, &exit.signal) {
                (Some(code), _) => format!("exited with code {code}"),
                (None, Some(signal)) => format!("was ended by {signal}"),
                (None, None) => "ended".to_owned(),
            };
            let mut termination = Termination {
                exit: Some(exit),
                stderr_tail: tail,
                ..Termination::failed_to_start(
                    format!("The app-server {end} before it listened at its control socket."),
                    Failure::Ended,
                )
            };
            termination.append_error_line();
            self.emit(AppServerEvent::ConnectFailed { message: termination.reason.clone() });
            return Err(termination);
        }
    }

    /// Connects to what listens at the socket, and identifies it.
    async fn join(&self, server: &SharedServer) -> Result<(Socket, Option<Identity>), Unconnected> {
        let path = server.socket.display();
        let connected =
            tokio::time::timeout(self.start_timeout, websocket::connect_unix(&server.socket)).await;
        let unusable = |reason: String| {
            Unconnected::Unusable(format!("The app-server at {path} cannot be used: {reason}."))
        };
        let stream = match connected {
            Ok(Ok(stream)) => stream,
            // A socket file without a listener, and no socket file.
            Ok(Err(error)) if is_absent(&error) => return Err(Unconnected::Absent),
            Ok(Err(error)) => return Err(unusable(error.to_string())),
            Err(_) => return Err(unusable(no_answer(self.start_timeout))),
        };
        let pid = peer_of_this_user(&stream).map_err(unusable)?;
        let opening = websocket::open(SOCKET_URL, Box::new(stream), self.plan.line_cap);
        let opened = tokio::time::timeout(self.start_timeout, opening).await;
        let socket = opened.unwrap_or_else(|_| Err(no_answer(self.start_timeout))).map_err(unusable)?;
        Ok((socket, pid.and_then(Identity::of)))
    }

    fn failed_to_connect(&self, message: String, failure: Failure) -> Termination {
        self.emit(AppServerEvent::ConnectFailed { message: message.clone() });
        Termination::failed_to_start(message, failure)
    }

    /// Serves a connection until it ends.
    async fn run_connected(&self, socket: Socket, pace: watch::Receiver<StopPace>) -> Termination {
        let (sink, stream) = socket.split();
        let (client, pending, lines) = Client::new(self.number, self.plan.call_timeout);
        let close = CancellationToken::new();
        let writer = tokio::spawn(websocket::write(sink, lines, close.clone()));
        let mut messages = self.message_reader(&pending);
        let (last_received, cap) = (messages.last_received(), self.plan.line_cap);
        let reader = tokio::spawn(async move { websocket::read(stream, &mut messages, cap).await });
        let mut connection =
            Connection { client, pending, last_received, reader: Some(reader), writer: Some(writer), close };

        let ServeOutcome { over, healthy, failure } = self.serve(&mut connection, None, pace).await;
        connection.close.cancel();
        let end_of_stream = connection.drain_reader().await;
        let written = end_task(connection.writer).await;
        if let (ConnectionEnd::Stop | ConnectionEnd::Retired, Some(WriterEnd::CloseFailed(reason))) =
            (&over, written)
        {
            let message = format!("The app-server connection could not be closed: {reason}.");
            self.emit(AppServerEvent::CloseFailed { message });
        }
        let is_retired = matches!(over, ConnectionEnd::Retired);
        let (end, expected) = match over {
            ConnectionEnd::Stream(end) => (end, false),
            ConnectionEnd::Stop | ConnectionEnd::Retired | ConnectionEnd::Exited(_) => (end_of_stream, true),
        };
        let (cause, _) = self.report_closed(end, None, expected, healthy.is_some());
        let failure = if healthy.is_some() { Failure::Unreachable } else { failure };
        Termination {
            healthy: healthy.unwrap_or_default(),
            is_retired,
            ..Termination::failed_to_start(cause, failure)
        }
    }
}

/// Whether nothing listens at a socket: there is no file, or no process has it open.
fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused)
}

/// The PID of the process that listens at the socket, where the system reports one; an error when another user listens.
fn peer_of_this_user(stream: &UnixStream) -> Result<Option<u32>, String> {
    let peer = stream
        .peer_cred()
        .map_err(|error| format!("the system does not report who listens there: {error}"))?;
    let user = rustix::process::geteuid().as_raw();
    if peer.uid() != user && peer.uid() != 0 {
        return Err(format!("it belongs to another user, with the ID {}", peer.uid()));
    }
    Ok(peer.pid().and_then(|pid| pid.try_into().ok()).filter(|&pid: &u32| pid > 0))
}

/// What an app-server wrote before it exited.
async fn output(started: Detached) -> Output {
    POOL.run(RECORD_TIMEOUT, move || started.output()).await.unwrap_or_default()
}

/// Whether a process is the one that was started, or was started by that: by npm's script, or not at all by us but by
/// another program at the same moment.
async fn is_started(server: &Identity, launcher: Option<u32>) -> bool {
    let (server, Some(launcher)) = (server.clone(), launcher) else { return false };
    POOL.run(RECORD_TIMEOUT, move || server.descends_from(launcher)).await.unwrap_or(false)
}

async fn known(server: &SharedServer) -> Option<SharedProcess> {
    let known = Arc::clone(&server.known);
    POOL.run(RECORD_TIMEOUT, move || known()).await.ok().flatten()
}

async fn record(server: &SharedServer, process: SharedProcess) {
    let record = Arc::clone(&server.record);
    if let Err(unanswered) = POOL.run(RECORD_TIMEOUT, move || record(&process)).await {
        tracing::error!("failed to record the shared app-server: the disk {unanswered}");
    }
}

fn no_answer(limit: Duration) -> String {
    format!("no answer to the handshake within {} s", limit.as_secs_f32())
}

fn stopped() -> Termination {
    Termination::failed_to_start(STOPPING.to_owned(), Failure::Unreachable)
}
