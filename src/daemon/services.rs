//! The [`Daemon`]: it constructs the services, and `http` and `commands` call them through it.
//!
//! ```text
//! sessions ─► turns ─► queue ─► turn starter ─► threads ─► core
//!                └───────┴─► Codex monitor ────────────────► ┤
//! server requests, skipped items, turn watch (─► queue), calls, reconnect (─► threads) ─► ┘
//! ```
//!
//! Calls go along the arrows only. What a message of the app-server changes is in [`Receivers`], which the services share
//! with the event handlers.

use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::codex::{StopPace, Supervisor};
use crate::config::Config;
use crate::daemon::app_server_events::Receivers;
use crate::daemon::calls::Calls;
use crate::daemon::codex_health::CodexHealth;
use crate::daemon::codex_health::watch::CodexMonitor;
use crate::daemon::core::Core;
use crate::daemon::hooks::{HookSetup, Hooks};
use crate::daemon::idempotency::Answers;
use crate::daemon::keep_awake::{KeepAwake, KeepAwakeView};
use crate::daemon::queue::Queue;
use crate::daemon::recorder::recovery::StateDirectories;
use crate::daemon::server_requests::ServerRequests;
use crate::daemon::sessions::Sessions;
use crate::daemon::skipped_items::SkippedItemReader;
use crate::daemon::threads::Threads;
use crate::daemon::turns::Turns;
use crate::daemon::turns::activity::Activity;
use crate::daemon::turns::contents::TurnReader;
use crate::daemon::turns::reconnect::Reconnect;
use crate::daemon::turns::start::TurnStarter;
use crate::journal::{Bounds, Subscription};

/// The daemon; clones share all state.
#[derive(Clone)]
pub struct Daemon {
    /// Creating, reading and closing sessions.
    pub sessions: Sessions,
    /// Submitting, reading and interrupting turns.
    pub turns: Turns,
    /// The queued turns.
    pub queue: Queue,
    /// The requests of the app-server.
    pub requests: ServerRequests,
    /// Calls of clients to the app-server.
    pub calls: Calls,
    /// The hooks.
    pub hooks: Hooks,
    pub(super) core: Arc<Core>,
    pub(super) codex: CodexMonitor,
    pub(super) reconnect: Reconnect,
    pub(super) activity: Arc<Activity>,
    pub(super) keep_awake: KeepAwake,
    pub(super) pace: watch::Sender<StopPace>,
    _directories: Arc<StateDirectories>,
}

impl Daemon {
    /// Constructs the services over what the event handlers of `supervisor` write to.
    pub(super) fn wire(
        receivers: Receivers,
        supervisor: Supervisor,
        directories: StateDirectories,
        pace: watch::Sender<StopPace>,
        hooks: HookSetup,
    ) -> Self {
        let Receivers { config, recorder, activity, open, submissions, skipped_items, codex, .. } = receivers;
        let (availability, tasks, stopping) =
            (supervisor.availability(), TaskTracker::new(), CancellationToken::new());
        let (looked_at, turns_run) = (watch::Sender::new(0), watch::Sender::new(false));
        let keep_awake = KeepAwake::start(&config, hooks.runner.clone(), turns_run.subscribe());
        let core =
            Arc::new(Core { config, recorder, availability, codex, looked_at, turns_run, tasks, stopping });
        let codex =
            CodexMonitor { core: Arc::clone(&core), supervisor: Arc::new(Mutex::new(Some(supervisor))) };
        let (threads, answers) = (Threads::new(&core), Answers::new(&core));
        let starter = TurnStarter { core: Arc::clone(&core), threads: threads.clone(), submissions };
        let queue = Queue {
            core: Arc::clone(&core),
            threads: threads.clone(),
            starter: starter.clone(),
            codex: codex.clone(),
        };
        let turns = Turns {
            core: Arc::clone(&core),
            threads: threads.clone(),
            answers: answers.clone(),
            starter,
            queue: queue.clone(),
            codex: codex.clone(),
            skipped_items: SkippedItemReader {
                core: Arc::clone(&core),
                table: skipped_items,
                reader: TurnReader::new(&core),
            },
        };
        let reconnect =
            Reconnect { core: Arc::clone(&core), threads: threads.clone(), open: Arc::clone(&open) };
        let calls = Calls { core: Arc::clone(&core), threads: threads.clone() };
        Self {
            sessions: Sessions { core: Arc::clone(&core), threads, answers, turns: turns.clone() },
            turns,
            queue,
            requests: ServerRequests { core: Arc::clone(&core), open },
            calls,
            hooks: Hooks::start(&core, hooks),
            core,
            codex,
            reconnect,
            activity,
            keep_awake,
            pace,
            _directories: Arc::new(directories),
        }
    }

    /// The configuration it was started with.
    pub fn config(&self) -> &Config {
        &self.core.config
    }

    /// The health of Codex, and what to do.
    pub fn codex(&self) -> CodexHealth {
        self.core.codex_health()
    }

    /// Whether the machine is kept awake.
    pub fn keep_awake(&self) -> KeepAwakeView {
        self.keep_awake.view()
    }

    /// What the event log holds.
    pub fn bounds(&self) -> Bounds {
        self.core.recorder.view().log.bounds()
    }

    /// Follows the events from the one after `cursor`, which is one that [`Bounds::check`] let through.
    pub fn follow(&self, cursor: u64) -> Subscription {
        self.core.recorder.view().log.follow(cursor)
    }
}
