//! The daemons of a run, each with its app-server, and what is done to them: kills and restarts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::sync::{Mutex, watch};

use crate::api::{self, Method};
use crate::random::SeededRandom;
use crate::record::Record;
use crate::series::Event;
use crate::support::codex::{CodexHome, codex};
use crate::support::daemon::{Daemon, DaemonBuilder};
use crate::support::http::Target;

/// The bound of the event log, small enough that a run of hours removes segments.
pub(crate) const EVENT_LOG_BYTES: u64 = 8 << 20;
/// The size of its segments.
pub(crate) const SEGMENT_BYTES: u64 = 1 << 20;
/// The size at which the output of the app-server starts a new file.
pub(crate) const OUTPUT_LOG_BYTES: u64 = 1 << 20;

/// The app-server of a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AppServer {
    /// The real Codex, with the offline model.
    Codex,
    /// The fake app-server of the tests.
    Fake,
}

/// One daemon of the run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) app_server: AppServer,
    /// Whether the daemon itself is killed and restarted. The memory of the others shows what a process keeps.
    pub(crate) restarts: bool,
}

/// The daemons of every run.
pub(crate) const PLANS: [Plan; 4] = [
    Plan { name: "codex", app_server: AppServer::Codex, restarts: false },
    Plan { name: "codex-restarted", app_server: AppServer::Codex, restarts: true },
    Plan { name: "fake", app_server: AppServer::Fake, restarts: false },
    Plan { name: "fake-restarted", app_server: AppServer::Fake, restarts: true },
];

/// A running daemon, as its clients see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Running {
    pub(crate) base: String,
    pub(crate) pid: u32,
}

/// One daemon and what its clients and the sampler need to know about it.
pub(crate) struct Instance {
    pub(crate) plan: Plan,
    pub(crate) record: Arc<Record>,
    /// The daemon, or `None` while it does not run.
    pub(crate) running: watch::Sender<Option<Running>>,
    pub(crate) state_directory: PathBuf,
    pub(crate) logs_directory: PathBuf,
    /// The working directory of its sessions; `None` is that of the daemon.
    pub(crate) workspace: Option<PathBuf>,
    programs: Programs,
    home: Option<Arc<CodexHome>>,
}

/// Copies of the programs, so that a build during the run changes nothing.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) codexd: PathBuf,
    pub(crate) fake_codex: PathBuf,
    /// The threads of the fake app-server.
    pub(crate) store: PathBuf,
}

impl Instance {
    /// Starts a daemon in this directory and waits until it accepts turns.
    pub(crate) async fn start(
        plan: Plan,
        record: Arc<Record>,
        root: TempDir,
        programs: Programs,
        home: Option<Arc<CodexHome>>,
    ) -> (Self, Daemon) {
        let daemon = builder(plan, &programs, home.as_deref()).within(root).start().await;
        let instance = Self {
            plan,
            record,
            running: watch::Sender::new(Some(running(&daemon))),
            state_directory: daemon.state_dir(),
            logs_directory: daemon.logs_dir(),
            workspace: home.as_ref().map(|home| home.workspace()),
            programs,
            home,
        };
        instance.ready().await;
        (instance, daemon)
    }

    /// The base URL of the running daemon; waits while it does not run.
    pub(crate) async fn base(&self) -> String {
        let mut receiver = self.running.subscribe();
        let running = receiver.wait_for(Option::is_some).await.map(|running| running.clone());
        running.ok().flatten().map(|running| running.base).unwrap_or_default()
    }

    /// Waits until the daemon accepts turns.
    pub(crate) async fn ready(&self) {
        loop {
            let health = api::call(&self.base().await, Method::GET, "/healthz", None, "").await;
            if health.is_ok_and(|answer| answer.json["service"]["ready"] == true) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Kills and restarts at random intervals until `stop` is true.
    pub(crate) async fn disturb(
        self: Arc<Self>,
        daemon: Arc<Mutex<Daemon>>,
        mut random: SeededRandom,
        pause: Duration,
        mut stop: watch::Receiver<bool>,
    ) {
        let pause = pause.as_millis() as u64;
        loop {
            let waiting = random.milliseconds(pause / 2, pause * 3 / 2);
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(waiting) => {}
            }
            if self.plan.restarts && random.chance(60) {
                self.restart(&mut *daemon.lock().await, random.chance(50)).await;
            } else {
                self.kill_app_server().await;
            }
            self.ready().await;
        }
    }

    /// Ends the daemon, by SIGKILL or in order, and starts it on the same directories and address.
    async fn restart(&self, daemon: &mut Daemon, kill: bool) {
        self.record.mark(if kill { Event::DaemonKilled } else { Event::DaemonRestarted });
        if kill {
            daemon.kill().await;
        } else {
            let stopped = daemon.stop().await;
            if !stopped.status.success() {
                self.record.fault(format!("the daemon ended with {} after SIGTERM", stopped.status));
            }
            if let Some((pid, line)) = daemon.survivors().first() {
                self.record.fault(format!("process {pid} outlived the daemon: {line}"));
            }
        }
        self.running.send_replace(None);
        let next = builder(self.plan, &self.programs, self.home.as_deref()).state_from(daemon);
        let next = next.address_of(daemon).start().await;
        self.running.send_replace(Some(running(&next)));
        // The old one is dropped, which ends what a killed daemon left and the new one has not ended.
        *daemon = next;
    }

    async fn kill_app_server(&self) {
        let status = api::call(&self.base().await, Method::GET, "/v1/codexd/status", None, "").await;
        let pid = status.ok().and_then(|answer| {
            answer.json["data"]["snapshot"]["daemon"]["child"]["pid"]
                .as_i64()
                .and_then(|pid| i32::try_from(pid).ok())
        });
        let Some(pid) = pid.and_then(Pid::from_raw) else { return };
        self.record.mark(Event::AppServerKilled);
        // It may have ended meanwhile.
        let _ = kill_process(pid, Signal::KILL);
    }
}

fn running(daemon: &Daemon) -> Running {
    Running { base: daemon.base_url().to_owned(), pid: daemon.pid() }
}

fn builder(plan: Plan, programs: &Programs, home: Option<&CodexHome>) -> DaemonBuilder {
    let builder = Daemon::builder().program(&programs.codexd);
    let builder = match home {
        Some(home) => builder.real(home),
        None => {
            let arguments = [Path::new("app-server"), Path::new("--store"), &programs.store];
            builder.server(&programs.fake_codex, &arguments)
        }
    };
    let bytes = [
        ("--event-log-bytes", EVENT_LOG_BYTES),
        ("--event-segment-bytes", SEGMENT_BYTES),
        ("--output-log-bytes", OUTPUT_LOG_BYTES),
        // Few, so that a short run reaches the limit.
        ("--closed-session-limit", 20),
        ("--client-timeout", 5),
        ("--request-timeout", 8),
        ("--drain-timeout", u64::from(plan.restarts)),
    ];
    bytes.iter().fold(builder, |builder, (flag, value)| builder.arg(flag).arg(value.to_string()))
}

/// A Codex home for a daemon with the real Codex. Installs Codex when it is not installed.
pub(crate) fn codex_home(plan: Plan, model: &crate::support::model::MockModel) -> Option<Arc<CodexHome>> {
    let is_real = plan.app_server == AppServer::Codex;
    is_real.then(|| {
        codex();
        Arc::new(CodexHome::new(model))
    })
}
