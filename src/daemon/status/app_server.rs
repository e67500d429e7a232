//! The app-server as `GET /v1/codexd/app-server` shows it.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use crate::codex::Availability;
use crate::codex::protocol::responses::AccountRead;
use crate::codex::protocol::versions;
use crate::config::ChildStrategy;
use crate::daemon::codex_health::facts::Facts;
use crate::daemon::codex_health::restart::RestartView;
use crate::daemon::error::DaemonError;
use crate::daemon::services::Daemon;
use crate::state::ChildStatus;
use crate::timestamp::Timestamp;

/// The app-server.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppServerView {
    /// `spawn`, `shared` or `external`.
    pub strategy: &'static str,
    /// How it is.
    pub status: ChildStatus,
    /// The version of Codex that it reports; `null` while it is not connected.
    pub version: Option<String>,
    /// The version of the file that the server command names now; `null` where it is not known.
    pub installed_version: Option<String>,
    /// What it calls itself; `null` while it is not connected.
    pub user_agent: Option<String>,
    /// Its PID while it runs; `null` where it is not known.
    pub pid: Option<u32>,
    /// When it was started or joined, RFC 3339, UTC, milliseconds.
    pub started_at: Option<Timestamp>,
    /// Its generation, counted from 1 since the daemon started.
    pub generation: Option<u64>,
    /// The oldest version that codexd supports with this strategy.
    pub minimum_version: String,
    /// Whether its version is supported; `null` where it is not known.
    pub supported: Option<bool>,
    /// Its account; `null` until it is read.
    pub account: Option<AccountView>,
    /// What else there is to know, each as a sentence.
    pub notes: Vec<String>,
    /// The restart that a client requested and that waits; `null` when there is none.
    pub restart: Option<RestartView>,
}

/// The account of the app-server; it has no secrets.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccountView {
    /// Its kind, such as `chatgpt` or `apiKey`; `null` when there is none.
    pub r#type: Option<String>,
    /// Its plan.
    pub plan_type: Option<String>,
    /// Whether the model needs an account of OpenAI.
    pub requires_openai_auth: Option<bool>,
}

impl From<AccountRead> for AccountView {
    fn from(read: AccountRead) -> Self {
        let AccountRead { r#type, plan_type, requires_openai_auth, .. } = read;
        Self { r#type, plan_type, requires_openai_auth }
    }
}

impl Daemon {
    /// Restarts the app-server when it has no work, or by force after `drain`; returns what it waits for.
    pub fn restart_app_server(
        &self,
        drain: Option<Duration>,
        force: bool,
    ) -> Result<RestartView, DaemonError> {
        self.codex.restart(drain.unwrap_or(self.core.config.limits.drain_timeout), force)
    }

    /// The app-server, after a look at the installed Codex.
    pub async fn app_server(&self) -> AppServerView {
        self.codex.check_shared_login().await;
        self.codex.check_installed().await;
        // The events before this moment are in the records then.
        self.core.recorder.caught_up().await;
        let child = self.core.state().daemon.child.clone();
        let strategy = self.core.config.server.strategy;
        let is_connected = matches!(&*self.core.availability.borrow(), Availability::Ready(_));
        let facts = if is_connected { self.core.codex.facts() } else { Facts::default() };
        let minimum = versions::minimum(strategy == ChildStrategy::Shared);
        let health = self.core.codex_health();
        AppServerView {
            strategy: strategy.as_str(),
            status: child.status,
            version: facts.version().map(str::to_owned),
            installed_version: self.core.codex.installed_version(),
            pid: child.pid,
            started_at: child.started_at,
            generation: child.generation,
            minimum_version: versions::text(minimum),
            supported: facts.version_numbers().map(|numbers| numbers >= minimum),
            notes: health.notes,
            restart: self.codex.restart_view(),
            user_agent: facts.user_agent,
            account: facts.account_read.map(AccountView::from),
        }
    }
}
