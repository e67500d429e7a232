//! One of the three ways to an app-server, with its processes and clients.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::app_server::AppServer;
use crate::connection::{Connection, Seen, SeenTurn};
use crate::driver::Thread;
use crate::process::{Cpu, Memory, Tree};
use crate::support::codex::CodexHome;
use crate::support::daemon::Daemon;
use crate::support::http::{Target, get, get_text};
use crate::support::model::MockModel;
use crate::support::wait::wait_until_async;
use crate::support::websocket::EVENTS_PATH;

/// The deltas of a turn.
pub(crate) const DELTAS: usize = 20;
/// The pause of the model after each delta.
pub(crate) const PAUSE: Duration = Duration::from_millis(10);

/// The longest time without the end of a turn.
const PATIENCE: Duration = Duration::from_secs(60);

/// How the clients reach the app-server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// They are clients of the app-server.
    Alone,
    /// They are clients of codexd, and the app-server is its child.
    Spawn,
    /// They are clients of codexd, and the app-server is the one of the machine.
    Shared,
}

impl Way {
    pub(crate) const ALL: [Self; 3] = [Self::Alone, Self::Spawn, Self::Shared];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Spawn => "`spawn`",
            Self::Shared => "`shared`",
        }
    }
}

/// The processes and clients of one way; the fields are dropped in this order, clients first.
pub(crate) struct Peer {
    pub(crate) way: Way,
    clients: usize,
    followers: Vec<Connection>,
    threads: Vec<Thread>,
    seen: mpsc::UnboundedReceiver<SeenTurn>,
    codex: Tree,
    codexd: Option<Tree>,
    server: Server,
    home: CodexHome,
}

enum Server {
    AppServer(AppServer),
    Daemon(Daemon),
}

/// When what happened, after the turns were requested.
#[derive(Default)]
pub(crate) struct Batch {
    /// Of each turn, until it was accepted.
    pub(crate) accepted: Vec<Duration>,
    /// Of each turn and client, until the first delta.
    pub(crate) first_deltas: Vec<Duration>,
    /// Of each turn and client, until the end of the turn.
    pub(crate) ends: Vec<Duration>,
}

impl Batch {
    fn add(&mut self, seen: SeenTurn, began: Instant) {
        assert_eq!(seen.deltas, DELTAS, "a client missed a part of the turn of {}", seen.thread_id);
        self.first_deltas.push(seen.first_delta - began);
        self.ends.push(seen.end - began);
    }
}

impl Peer {
    /// Starts everything: `clients` follow `sessions` that have had turns.
    pub(crate) async fn start(way: Way, model: &MockModel, clients: usize, sessions: usize) -> Self {
        let home = home(model);
        let (server, codex, codexd) = Server::start(way, &home).await;
        let (sender, seen) = mpsc::unbounded_channel();
        let cwd = home.workspace();
        let cwd = cwd.to_str().unwrap();
        let threads = match &server {
            Server::AppServer(server) => {
                let connection = Connection::open_app_server(&server.endpoint, &sender).await;
                Thread::of_app_server(connection, cwd, sessions).await
            }
            Server::Daemon(daemon) => Thread::of_daemon(daemon.authority(), cwd, sessions).await,
        };
        let followers = Vec::new();
        let mut peer = Self { way, clients: 1, followers, threads, seen, codex, codexd, server, home };
        if let Server::Daemon(_) = peer.server {
            peer.follow(1, &sender).await;
        }
        // A thread can be followed once it is on disk.
        peer.run_turns().await;
        peer.follow(clients - 1, &sender).await;
        peer.clients = clients;
        peer.run_turns().await;
        assert!(peer.home.path().join("sessions").is_dir(), "Codex uses another home");
        peer
    }

    /// Adds clients that follow all threads.
    async fn follow(&mut self, count: usize, seen: &Seen) {
        for _ in 0..count {
            let connection = match &self.server {
                Server::AppServer(server) => {
                    let connection = Connection::open_app_server(&server.endpoint, seen).await;
                    for thread in &self.threads {
                        let params = json!({ "threadId": thread.thread_id(), "excludeTurns": true });
                        connection.call("thread/resume", params).await;
                    }
                    connection
                }
                Server::Daemon(daemon) => {
                    Connection::open(&format!("ws://{}{EVENTS_PATH}", daemon.authority()), seen).await
                }
            };
            self.followers.push(connection);
        }
    }

    /// Starts one turn in each session at once, and waits until all clients have received all of them.
    pub(crate) async fn run_turns(&mut self) -> Batch {
        let prompt = format!("mock:deltas={DELTAS} mock:delay={}", PAUSE.as_millis());
        for thread in &self.threads {
            thread.reopen().await;
        }
        let began = Instant::now();
        let mut starting = JoinSet::new();
        for thread in &self.threads {
            let (thread, prompt) = (thread.clone(), prompt.clone());
            starting.spawn(async move {
                thread.start_turn(&prompt).await;
                began.elapsed()
            });
        }
        let mut batch = Batch::default();
        while batch.accepted.len() < self.threads.len()
            || batch.ends.len() < self.clients * self.threads.len()
        {
            tokio::select! {
                Some(accepted) = starting.join_next() => batch.accepted.push(accepted.unwrap()),
                seen = self.seen.recv() => batch.add(seen.unwrap(), began),
                () = tokio::time::sleep(PATIENCE) => panic!("a client did not receive the end of a turn"),
            }
        }
        batch
    }

    /// The CPU time so far of Codex and of codexd.
    pub(crate) fn cpu(&self) -> (Cpu, Cpu) {
        (self.codex.cpu(), self.codexd.map_or_else(Cpu::default, Tree::cpu))
    }

    /// The memory of Codex and of codexd.
    pub(crate) fn memory(&self) -> (Memory, Option<Memory>) {
        (self.codex.memory(), self.codexd.map(Tree::memory))
    }

    /// How often codexd has synced its log, and for how many seconds in total.
    pub(crate) async fn syncs(&self) -> (f64, f64) {
        let Server::Daemon(daemon) = &self.server else { return (0.0, 0.0) };
        let text = get_text(daemon, "/metrics", &[], "text/plain; version=0.0.4; charset=utf-8").await;
        let value = |name: &str| {
            let name = format!("codexd_event_log_sync_duration_seconds_{name} ");
            text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap()
        };
        (value("count"), value("sum"))
    }
}

impl Server {
    /// Starts the processes; returns them with those of Codex and of codexd.
    async fn start(way: Way, home: &CodexHome) -> (Self, Tree, Option<Tree>) {
        let arguments: &[&str] = match way {
            Way::Alone => {
                let server = AppServer::on_tcp(home).await;
                let codex = Tree { root: server.process.id(), without: None };
                return (Self::AppServer(server), codex, None);
            }
            Way::Spawn => &[],
            Way::Shared => &["--server-strategy", "shared"],
        };
        // As many WebSockets as the largest load has clients.
        let mut builder = Daemon::builder().real(home).arg("--websocket-limit").arg("128");
        for argument in arguments {
            builder = builder.arg(argument);
        }
        if let Some(program) = std::env::var_os("CODEXD_BENCH_PROGRAM") {
            builder = builder.program(program);
        }
        let daemon = builder.start().await;
        let codex = wait_until_async("the app-server of codexd", async || {
            let status = get(&daemon, "/v1/codexd/status").await;
            let child = &status.data(200)["snapshot"]["daemon"]["child"];
            (child["state"] == "running").then(|| child["pid"].as_u64().unwrap() as u32)
        })
        .await;
        let codexd = Tree { root: daemon.pid(), without: Some(codex) };
        (Self::Daemon(daemon), Tree { root: codex, without: None }, Some(codexd))
    }
}

/// A home whose workspace is trusted, so that codexd passes on no decision of its own and all turns are the same.
fn home(model: &MockModel) -> CodexHome {
    let home = CodexHome::new(model);
    let workspace = home.workspace();
    home.configure(|config| {
        format!("{config}\n[projects.\"{}\"]\ntrust_level = \"trusted\"\n", workspace.display())
    });
    home
}
