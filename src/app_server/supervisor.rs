//! Looking after the app-server: one task from its start to its end.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::child::{self, Process, Program, StopPace};
use super::client::Client;
use super::listener::{Backlog, Closed, Exit, Heard, Listener};
use super::pending::Pending;
use super::reader::{Ear, StreamEnd};
use super::spawned;
use super::websocket::{self, Address};

/// How long `initialize` may take, connecting included; cold it takes 60 to 500 ms (measured).
const START: Duration = Duration::from_secs(10);
/// How long the output of an ended process is still read: something it started may hold the pipe open.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How long an exit status is waited for after the pipes ended, before the process is ended by force.
const LAST_BREATH: Duration = Duration::from_millis(500);

/// Which app-server to look after.
#[derive(Clone)]
pub enum App {
    /// A child process of ours.
    Spawn(Program),
    /// Somebody else's.
    External(Address),
}

/// What to look after, and how.
#[derive(Clone)]
pub struct Plan {
    /// Which app-server.
    pub app: App,
    /// Our version, which the app-server puts into its user agent.
    pub version: String,
    /// The longest message that is kept, in bytes.
    pub line_cap: usize,
}

/// Whether the app-server can be called now.
#[derive(Debug, Clone)]
pub enum Availability {
    /// It is being started.
    Starting,
    /// It can.
    Ready(Client),
    /// It cannot.
    Down {
        /// Why, as a sentence.
        reason: String,
    },
}

/// The handle of the task that looks after the app-server.
#[derive(Debug)]
pub struct Supervisor {
    availability: watch::Receiver<Availability>,
    task: JoinHandle<()>,
}

impl Supervisor {
    /// Starts the app-server; what is heard goes to the listeners that `listener` makes for each generation.
    ///
    /// It ends when `pace` says so.
    pub fn start<L: Listener>(
        plan: Plan,
        pace: watch::Receiver<StopPace>,
        backlog: Arc<Backlog>,
        listener: impl Fn(u64) -> L + Send + Sync + 'static,
    ) -> Self {
        let (publish, availability) = watch::channel(Availability::Starting);
        let task = tokio::spawn(async move {
            let generation = 1;
            let life = Life { generation, plan: &plan, backlog, listener: &listener, publish: &publish };
            let reason = life.run(pace).await;
            publish.send_replace(Availability::Down { reason });
        });
        Self { availability, task }
    }

    /// Whether the app-server can be called, now and from now on.
    pub fn availability(&self) -> watch::Receiver<Availability> {
        self.availability.clone()
    }

    /// Waits until the app-server has ended.
    pub async fn ended(self) {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the task that looks after the app-server failed");
        }
    }
}

/// One generation, from its start to its end.
struct Life<'a, F> {
    generation: u64,
    plan: &'a Plan,
    backlog: Arc<Backlog>,
    listener: &'a F,
    publish: &'a watch::Sender<Availability>,
}

/// The tasks of one connection.
struct Link {
    client: Client,
    pending: Arc<Pending>,
    /// Ends when nothing more is heard; taken once it has.
    reader: Option<JoinHandle<StreamEnd>>,
    /// Ends when nothing more can be said.
    writer: JoinHandle<String>,
    /// Closes our side.
    close: CancellationToken,
}

/// Why a connection is over.
enum Over {
    Stop,
    Stream(StreamEnd),
    Exited(std::io::Result<std::process::ExitStatus>),
}

impl Link {
    /// Waits until the connection is over.
    async fn over(&mut self, process: Option<&mut Process>, mut pace: watch::Receiver<StopPace>) -> Over {
        let reader = async {
            let end = match self.reader.as_mut() {
                Some(reader) => reader.await.unwrap_or_else(reader_failed),
                None => std::future::pending().await,
            };
            self.reader = None;
            end
        };
        let exit = async {
            match process {
                Some(process) => process.wait().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The order matters: a process that ends closes its pipes first, and the last words in them tell more.
            biased;
            _ = pace.wait_for(|&pace| pace > StopPace::Run) => Over::Stop,
            end = reader => Over::Stream(end),
            reason = &mut self.writer => {
                Over::Stream(StreamEnd::new("stdin.error", reason.unwrap_or_else(|error| error.to_string())))
            }
            status = exit => Over::Exited(status),
        }
    }

    /// Lets the reader finish what it has, within reason.
    async fn last_words(&mut self) -> StreamEnd {
        let Some(mut reader) = self.reader.take() else {
            return StreamEnd::new("stdout.end", "its stdout ended");
        };
        match tokio::time::timeout(LAST_WORDS, &mut reader).await {
            Ok(end) => end.unwrap_or_else(reader_failed),
            Err(_) => {
                reader.abort();
                StreamEnd::new("process.exit", "its process ended, its stdout is still open")
            }
        }
    }
}

impl<L: Listener, F: Fn(u64) -> L> Life<'_, F> {
    /// Returns why there is no app-server any more, as a sentence.
    async fn run(&self, pace: watch::Receiver<StopPace>) -> String {
        match &self.plan.app {
            App::Spawn(program) => self.run_spawned(program, pace).await,
            App::External(address) => self.run_external(address, pace).await,
        }
    }

    async fn run_spawned(&self, program: &Program, mut pace: watch::Receiver<StopPace>) -> String {
        let (mut process, pipes) = match child::spawn(program) {
            Ok(spawned) => spawned,
            Err(message) => {
                self.tell(Heard::SpawnFailed { message: message.clone() });
                return message;
            }
        };
        self.tell(Heard::Started { pid: process.id() });
        let stderr = tokio::spawn(spawned::drain(pipes.stderr, (self.listener)(self.generation)));
        let (client, pending, lines) = Client::new(self.generation);
        let close = CancellationToken::new();
        let writer = tokio::spawn(spawned::write(pipes.stdin, lines, close.clone()));
        let mut ear = self.ear(&pending);
        let cap = self.plan.line_cap;
        let reader = tokio::spawn(async move { ear.read_lines(pipes.stdout, cap).await });
        let mut link = Link { client, pending, reader: Some(reader), writer, close };

        let over = self.serve(&mut link, Some(&mut process), pace.clone()).await;
        let reason = self.end_spawned(over, link, &mut process, &mut pace).await;
        // Something the child started may hold its stderr open for ever.
        let abort = stderr.abort_handle();
        if tokio::time::timeout(LAST_WORDS, stderr).await.is_err() {
            abort.abort();
        }
        reason
    }

    async fn run_external(&self, address: &Address, mut pace: watch::Receiver<StopPace>) -> String {
        let connecting = tokio::time::timeout(START, websocket::connect(address, self.plan.line_cap));
        let connected = tokio::select! {
            connected = connecting => connected.unwrap_or_else(|_| Err(no_answer("the handshake"))),
            _ = pace.wait_for(|&pace| pace > StopPace::Run) => return "codexd is stopping.".to_owned(),
        };
        let socket = match connected {
            Ok(socket) => socket,
            Err(reason) => {
                let message = format!("The app-server cannot be reached: {reason}.");
                self.tell(Heard::ConnectFailed { message: message.clone() });
                return message;
            }
        };
        let (sink, stream) = socket.split();
        let (client, pending, lines) = Client::new(self.generation);
        let close = CancellationToken::new();
        let writer = tokio::spawn(websocket::write(sink, lines, close.clone()));
        let mut ear = self.ear(&pending);
        let reader = tokio::spawn(async move { websocket::read(stream, &mut ear).await });
        let mut link = Link { client, pending, reader: Some(reader), writer, close };

        let over = self.serve(&mut link, None, pace).await;
        link.close.cancel();
        let heard = link.last_words().await;
        match over {
            Over::Stream(end) => self.closed(end, None, false),
            _ => self.closed(heard, None, true),
        }
    }

    fn ear(&self, pending: &Arc<Pending>) -> Ear<L> {
        Ear::new(Arc::clone(pending), (self.listener)(self.generation), Arc::clone(&self.backlog))
    }

    /// Initializes, then serves until the connection is over, for whatever reason.
    ///
    /// When this returns no call can be made and none waits any more.
    async fn serve(
        &self,
        link: &mut Link,
        process: Option<&mut Process>,
        pace: watch::Receiver<StopPace>,
    ) -> Over {
        let (client, pending) = (link.client.clone(), Arc::clone(&link.pending));
        let over = {
            let over = link.over(process, pace);
            tokio::pin!(over);
            tokio::select! {
                biased;
                over = &mut over => over,
                initialized = self.initialize(&client) => match initialized {
                    Ok(()) => {
                        self.publish.send_replace(Availability::Ready(client));
                        over.await
                    }
                    Err(message) => {
                        let sentence = format!("The app-server cannot be used: {message}.");
                        self.tell(Heard::ConnectFailed { message: sentence });
                        Over::Stream(StreamEnd::new("initialize", message))
                    }
                },
            }
        };
        let (reason, cause) = match &over {
            Over::Stop => ("codexd is stopping.".to_owned(), "codexd is stopping"),
            Over::Stream(end) => {
                (format!("The app-server connection is gone: {}.", end.message), end.message.as_str())
            }
            Over::Exited(_) => ("The app-server process ended.".to_owned(), "its process ended"),
        };
        // Said at once: ending what is left of a sick process can take seconds.
        self.publish.send_replace(Availability::Down { reason });
        if !matches!(over, Over::Exited(_)) {
            pending.close(cause);
        }
        over
    }

    async fn initialize(&self, client: &Client) -> Result<(), String> {
        let params = json!({
            "clientInfo": {
                "name": "baa-conductor-codexd",
                "title": "codexd local service",
                "version": self.plan.version,
            },
            // collaborationMode on a turn needs it (measured).
            "capabilities": { "experimentalApi": true },
        });
        match client.call("initialize", &params, START).await {
            Ok(info) => {
                self.tell(Heard::Connected { info: &info });
                client.notify("initialized");
                Ok(())
            }
            Err(error) => Err(format!("it did not initialize: {error}")),
        }
    }

    /// Ends what is left of a child and its connection, and tells how it went.
    async fn end_spawned(
        &self,
        over: Over,
        mut link: Link,
        process: &mut Process,
        pace: &mut watch::Receiver<StopPace>,
    ) -> String {
        let expected = matches!(over, Over::Stop);
        let (end, status) = match over {
            Over::Exited(status) => (None, Some(status)),
            Over::Stream(end) => (Some(end), process.wait_at_most(LAST_BREATH).await),
            Over::Stop => (None, None),
        };
        let status = match status {
            Some(status) => status,
            None => process.end(&link.close, pace).await,
        };
        link.close.cancel();
        let heard = link.last_words().await;
        let end = end.unwrap_or(heard);
        let exit = match status {
            Ok(status) => Some(child::exit_of(status, expected)),
            Err(error) => {
                self.tell(Heard::ChildError {
                    message: format!("The app-server could not be ended: {error}."),
                });
                None
            }
        };
        if let Some(exit) = &exit {
            self.tell(Heard::Exited(exit.clone()));
        }
        self.closed(end, exit, expected)
    }

    fn closed(&self, end: StreamEnd, exit: Option<Exit>, expected: bool) -> String {
        let reason = match (&exit, expected) {
            (_, true) => "codexd is stopping.".to_owned(),
            // How the process ended after it was sent away tells less than why it was.
            _ if end.source == "initialize" => format!("The app-server cannot be used: {}.", end.message),
            (Some(Exit { signal: Some(signal), .. }), _) => format!("The app-server was ended by {signal}."),
            (Some(Exit { code: Some(code), .. }), _) => format!("The app-server exited with code {code}."),
            _ => format!("The app-server connection is gone: {}.", end.message),
        };
        self.tell(Heard::Closed(Closed {
            source: end.source,
            message: end.message,
            flushed_trailing_message: end.flushed_trailing_message,
            trailing_message_length: end.trailing_message_length,
            exit,
            expected,
        }));
        reason
    }

    fn tell(&self, heard: Heard<'_>) {
        let mut listener = (self.listener)(self.generation);
        listener.hear(heard);
        listener.flush();
    }
}

fn reader_failed(error: tokio::task::JoinError) -> StreamEnd {
    StreamEnd::new("reader.error", format!("its reader failed: {error}"))
}

fn no_answer(what: &str) -> String {
    format!("no answer to {what} within {} s", START.as_secs())
}
