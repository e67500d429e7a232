//! The task that keeps the health of Codex current.
//!
//! It reads the account after each start.
//! The app-server reads its login and its configuration at its start only (measured on 0.169.0 and 0.171.0), so where
//! these have changed and matter it is restarted as soon as no turn runs: that does not count as a failure, and the
//! sessions continue.
//! Files are checked before a turn is submitted, and once a second while the user may fix something in them; otherwise
//! they are not checked.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;

use super::files::Changes;
use super::installed::INSTALLED_CHECK_INTERVAL;
use super::{CodexHealth, CodexState};
use crate::blocking::Pool;
use crate::codex::protocol::methods;
use crate::codex::{Availability, Client, Supervisor, Waiting};
use crate::config::{ChildStrategy, Platform};
use crate::daemon::app_server::read_response::decode;
use crate::daemon::core::Core;
use crate::daemon::directory_access;
use crate::state::{ChildEvent, SessionStatus};

/// The threads that check files of Codex.
static FILES: Pool = Pool::new("codex-files", 2, 4);
/// How often the files are checked while something is wrong.
const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How often a restart is tried while turns run.
const RESTART_RETRY: Duration = Duration::from_millis(100);
/// How long the answer to `account/read` may take.
const ACCOUNT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a turn waits for an app-server that is started again for it.
const RESTART_WAIT: Duration = Duration::from_secs(10);

/// Keeps the health of Codex current; clones share all state.
#[derive(Clone)]
pub(in crate::daemon) struct CodexMonitor {
    pub(in crate::daemon) core: Arc<Core>,
    /// Taken when the daemon stops.
    pub(in crate::daemon) supervisor: Arc<Mutex<Option<Supervisor>>>,
}

impl CodexMonitor {
    /// Watches until the daemon stops.
    pub(in crate::daemon) async fn watch(self) {
        let mut availability = self.core.availability.clone();
        let mut asked = 0;
        let mut recorded = CodexState::Ready;
        let mut file_check = tokio::time::interval(FILE_CHECK_INTERVAL);
        file_check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut installed_check = tokio::time::interval(INSTALLED_CHECK_INTERVAL);
        installed_check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let needs_restart = self.core.codex.facts.needs_restart();
            let is_wrong = !matches!(self.core.codex_health().state, CodexState::Ready | CodexState::Stopped);
            tokio::select! {
                changed = availability.changed() => if changed.is_err() { return },
                () = self.core.codex.changed.notified() => {
                    // At once, so that a file that is corrected a moment later is seen to have changed.
                    if self.core.codex.facts.has_refused_call() {
                        self.check_config().await;
                    }
                }
                _ = file_check.tick(), if is_wrong => self.check_files().await,
                // It may wait for the program, and the app-server may need something meanwhile.
                _ = installed_check.tick() => drop(tokio::spawn(self.clone().look_for_installed())),
                () = tokio::time::sleep(RESTART_RETRY), if needs_restart => {}
                () = self.core.stopping.cancelled() => return,
            }
            let now = availability.borrow_and_update().clone();
            if let Availability::Ready(client) = now
                && client.generation() != asked
            {
                asked = client.generation();
                let (codex, generation) = (Arc::clone(&self.core.codex), asked);
                client.observe(move |method, error| codex.answered(generation, method, error));
                tokio::spawn(self.clone().read_account(client));
                tokio::spawn(self.clone().look_for_installed());
            }
            if self.core.codex.facts.needs_restart()
                && self.restart_when_idle("The login was refused twice in a row").await
            {
                self.core.codex.facts.restarted();
            }
            self.record_state(&mut recorded);
        }
    }

    /// Records the health when it has changed and no other event shows it.
    fn record_state(&self, recorded: &mut CodexState) {
        let health = self.core.codex_health();
        if health.state == *recorded || !(health.state.has_event() || health.state == CodexState::Ready) {
            return;
        }
        *recorded = health.state;
        let CodexHealth { state, message, command, .. } = health;
        let state = state.name().to_owned();
        self.core.recorder.record(ChildEvent::CodexStateChanged { state, message, command });
    }

    async fn look_for_installed(self) {
        self.check_directories().await;
        self.check_shared_login().await;
        self.check_installed().await;
    }

    /// Checks whether the directories of the sessions can be read, where the system may not allow it.
    async fn check_directories(&self) {
        let server = &self.core.config.server;
        if Platform::current() != Platform::MacOs || server.strategy == ChildStrategy::External {
            return;
        }
        let directories = {
            let view = self.core.recorder.view();
            let state = view.state();
            let sessions = state.sessions.iter().filter(|one| one.status == SessionStatus::Active);
            let directories = sessions.filter_map(|session| session.cwd.as_deref().map(PathBuf::from));
            directories.chain([server.cwd.clone()]).collect()
        };
        self.core.codex.directory_access.check(directories, directory_access::list).await;
    }

    async fn read_account(self, client: Client) {
        let answer =
            client.call(methods::ACCOUNT_READ, &json!({ "refreshToken": false }), ACCOUNT_TIMEOUT).await;
        // An app-server without this method does not report its account.
        let answer = answer.and_then(|answer| decode(methods::ACCOUNT_READ, &answer)).unwrap_or_default();
        self.core.codex.facts.account(client.generation(), &answer);
        self.core.codex.changed.notify_one();
    }

    /// What has changed of the files that the app-server read at its start.
    pub(in crate::daemon) async fn changes(&self) -> Changes {
        if !self.core.codex.files.are_known() {
            return Changes::default();
        }
        let (codex, config) = (Arc::clone(&self.core.codex), Arc::clone(&self.core.config));
        let check = move || {
            let server = &config.server;
            let program = server.find_program();
            codex.files.changes(program.ok().as_deref())
        };
        // A file system that does not answer must not keep a turn from its app-server.
        FILES.run(FILE_CHECK_INTERVAL, check).await.unwrap_or_default()
    }

    /// Stores the state of the configuration file after a call was refused because of it.
    async fn check_config(&self) {
        let codex = Arc::clone(&self.core.codex);
        if let Ok(stamp) = FILES.run(FILE_CHECK_INTERVAL, move || codex.files.config_stamp()).await {
            self.core.codex.facts.config_seen(stamp);
        }
    }

    /// Does what follows from files that were changed while something is wrong.
    async fn check_files(&self) {
        let now = self.core.availability.borrow().clone();
        let state = self.core.codex_health().state;
        match now {
            Availability::Waiting(Waiting { until: Some(_), generation, .. }) => {
                let changes = self.changes().await;
                if changes.program || changes.config {
                    tracing::info!(
                        "the program or its configuration has changed: starting the app-server now"
                    );
                    self.retire(generation);
                }
            }
            Availability::Ready(_) => {
                let changes = self.changes().await;
                if changes.auth && matches!(state, CodexState::NoAccount | CodexState::LoginRefused) {
                    self.restart_when_idle("The login in auth.json has changed").await;
                } else if changes.config && state == CodexState::ConfigBroken {
                    if self.core.codex.facts.now().config.is_some() {
                        self.restart_when_idle("config.toml has changed").await;
                    } else {
                        // It is read again for each thread that is started, so no restart is needed.
                        self.check_config().await;
                    }
                }
            }
            Availability::Starting { .. } | Availability::Waiting(_) | Availability::Stopped { .. } => {}
        }
    }

    /// Looks whether the login on disk is another one than when codexd connected to the shared app-server.
    pub(in crate::daemon) async fn check_shared_login(&self) {
        let Availability::Ready(client) = self.core.availability.borrow().clone() else { return };
        if self.core.config.server.strategy != ChildStrategy::Shared {
            return;
        }
        let login = &self.core.codex.shared_login;
        let mut noted = login.noted.lock().await;
        let is_new = std::mem::replace(&mut *noted, client.generation()) != client.generation();
        let is_another = if login.is_of_server.swap(false, Ordering::Relaxed) || is_new {
            let codex = Arc::clone(&self.core.codex);
            let _ = FILES.run(FILE_CHECK_INTERVAL, move || codex.files.note_login()).await;
            false
        } else {
            self.changes().await.account
        };
        login.is_another.store(is_another, Ordering::Relaxed);
    }

    /// Restarts the app-server if the login on disk has changed since its start; called before a turn is submitted. While
    /// a turn runs there is no restart, and the new turn uses the old login.
    pub(in crate::daemon) async fn renew_login(&self) {
        if !matches!(*self.core.availability.borrow(), Availability::Ready(_)) {
            return;
        }
        let is_refused =
            || matches!(self.core.codex_health().state, CodexState::NoAccount | CodexState::LoginRefused);
        let changes = self.changes().await;
        if changes.account || changes.auth && is_refused() {
            self.restart_when_idle("The login in auth.json has changed").await;
        }
    }

    /// Restarts the app-server if it is idle, and waits for the next connection, up to a limit.
    async fn restart_when_idle(&self, reason: &str) -> bool {
        // Every call to the app-server holds the gate for reading, so no call is in flight here.
        let Ok(_exclusive) = self.core.codex.gate.try_write() else { return false };
        let Availability::Ready(client) = self.core.availability.borrow().clone() else { return false };
        let is_at_work = {
            let state = self.core.state();
            state.turns.open().next().is_some() || state.requests.pending().next().is_some()
        };
        if is_at_work || self.core.codex.facts.has_failing_turn() || !self.owns_app_server() {
            return false;
        }
        let (generation, reason) = (client.generation(), reason.to_owned());
        self.core.recorder.record(ChildEvent::Restarting { generation, reason });
        self.retire(client.generation());
        let mut availability = self.core.availability.clone();
        let is_another = |now: &Availability| match now {
            Availability::Ready(next) => next.generation() > client.generation(),
            Availability::Starting { .. } => false,
            Availability::Waiting(waiting) => waiting.until.is_some(),
            Availability::Stopped { .. } => true,
        };
        let _ = tokio::time::timeout(RESTART_WAIT, availability.wait_for(is_another)).await;
        true
    }

    /// Has the app-server of this generation, or the pause after its end, followed by the next one at once.
    pub(super) fn retire(&self, generation: u64) {
        let supervisor = self.supervisor.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(supervisor) = &*supervisor {
            supervisor.retire(generation);
        }
    }

    pub(in crate::daemon) fn owns_app_server(&self) -> bool {
        !self.core.config.server.strategy.has_other_clients()
    }
}
