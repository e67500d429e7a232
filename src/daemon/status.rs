//! Readiness, the status snapshot and the view of one session.

pub(in crate::daemon) mod account;
pub(in crate::daemon) mod app_server;
pub(in crate::daemon) mod view;

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::codex::Availability;
use crate::config::ConfigView;
use crate::daemon::app_server::availability;
use crate::daemon::error::DaemonError;
use crate::daemon::mcp_servers::FailedMcpServer;
use crate::daemon::services::Daemon;
use crate::daemon::status::view::DaemonView;
use crate::ids::{SessionId, ThreadId};
use crate::journal::Line;
use crate::state::snapshot::Identity;
use crate::state::{
    AccountState, ChildPhase, Event, QueuedTurn, ServerRequest, Session, SessionBody, State, write_sessions,
};
use crate::timestamp::Timestamp;

/// Whether turns can be taken now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// `true` when they can.
    pub ready: bool,
    /// Why not, as a sentence.
    pub reason: Option<String>,
}

/// The status snapshot; all parts are of the same moment.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotView {
    /// The configuration.
    pub config: ConfigView,
    /// Who this daemon is.
    pub identity: Identity,
    /// The daemon and its child.
    pub daemon: DaemonView,
    /// All sessions.
    pub session_registry: RegistryView,
    /// The newest events.
    pub recent_events: RecentView,
    /// The account that the app-server works with, as far as it is known.
    pub account: AccountState,
    /// What it depends on.
    #[serde(skip)]
    pub version: SnapshotVersion,
}

/// What a snapshot depends on: two with the same version are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotVersion {
    /// The newest event that the records include.
    applied: u64,
    /// The newest event that clients can see; with a disk that fails it may be an older one.
    visible: u64,
    /// The version of the installed Codex.
    installed: Option<String>,
}

impl SnapshotVersion {
    /// The number of the newest event that all of the snapshot includes.
    pub fn through(&self) -> u64 {
        self.applied.min(self.visible)
    }
}

/// The sessions' part of the snapshot.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistryView {
    /// When one of them last changed.
    pub updated_at: Option<Timestamp>,
    /// Oldest first.
    #[serde(serialize_with = "write_sessions")]
    #[schemars(with = "Vec<SessionBody>")]
    pub sessions: Vec<Arc<Session>>,
}

/// The events' part of the snapshot.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecentView {
    /// How many are kept at most.
    pub max_entries: usize,
    /// The time of the newest one.
    pub updated_at: Option<Timestamp>,
    /// Oldest first.
    #[schemars(with = "Vec<Event>")]
    pub events: EventLines,
}

/// Events as lines of the log; they are parsed one by one as they are serialized, because there may be thousands.
#[derive(Debug, Clone, Default)]
pub struct EventLines(pub Vec<Line>);

impl Serialize for EventLines {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(event))
    }
}

/// A session with the newest events about it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionView {
    /// Those of the recent events that name the session or its thread, oldest first.
    #[schemars(with = "Vec<Event>")]
    pub recent_events: Vec<Value>,
    /// The session.
    pub session: SessionBody,
    /// The turns that wait, the next one first.
    pub queued_turns: Vec<QueuedTurn>,
    /// The requests that wait for an answer, oldest first.
    pub requests: Vec<Arc<ServerRequest>>,
    /// The MCP servers that did not start for its thread.
    pub mcp_servers: Vec<FailedMcpServer>,
}

impl Daemon {
    /// Whether turns can be taken now, and why not.
    pub fn readiness(&self) -> Readiness {
        let reason = if self.core.stopping.is_cancelled() {
            Some("codexd is stopping.".to_owned())
        } else if let Some(error) = self.core.recorder.view().storage_error() {
            Some(format!("The event log cannot be written: {error}."))
        } else {
            match &*self.core.availability.borrow() {
                // The record follows a moment later; readiness and record must agree.
                Availability::Ready(_) if !self.is_recorded_as_running() => {
                    Some("The app-server is being started.".to_owned())
                }
                now => availability::unavailable_reason(now).map(|_| self.core.codex.health(now).sentence()),
            }
        };
        Readiness { ready: reason.is_none(), reason }
    }

    fn is_recorded_as_running(&self) -> bool {
        matches!(self.core.state().daemon.child.state, ChildPhase::Running | ChildPhase::External)
    }

    /// Waits until the app-server was started, or could not be.
    pub async fn settled(&self) -> Readiness {
        let mut availability = self.core.availability.clone();
        let is_settled = |now: &Availability| match now {
            Availability::Starting { .. } => false,
            Availability::Waiting(waiting) => waiting.until.is_some(),
            Availability::Ready(_) | Availability::Stopped { .. } => true,
        };
        let _ = availability.wait_for(is_settled).await;
        self.core.recorder.caught_up().await;
        self.readiness()
    }

    /// [`Daemon::settled`], and whether Codex has an account is known, unless it takes long to tell.
    pub async fn settled_with_account(&self) {
        /// Codex answers from a file, in milliseconds.
        const ACCOUNT_WAIT: Duration = Duration::from_secs(3);
        if self.settled().await.ready {
            let _ = tokio::time::timeout(ACCOUNT_WAIT, self.core.codex.account_known()).await;
        }
    }

    /// Everything at one moment.
    pub fn snapshot(&self) -> SnapshotView {
        let view = self.core.recorder.view();
        let (daemon, sessions_updated_at, sessions, version, recent) = {
            let state = view.state();
            let sessions: Vec<_> = state.sessions.iter().cloned().collect();
            let recent = view.recent_events();
            let version = self.version_of(&state);
            (state.daemon.clone(), state.sessions_updated_at.clone(), sessions, version, recent)
        };
        let installed = version.installed.clone();
        SnapshotView {
            config: self.core.config.view(),
            identity: view.identity.clone(),
            recent_events: RecentView {
                max_entries: view.recent,
                updated_at: daemon.updated_at.clone(),
                events: EventLines(recent),
            },
            account: daemon.account.clone(),
            daemon: DaemonView::of(&self.core.config, daemon, installed),
            session_registry: RegistryView { updated_at: sessions_updated_at, sessions },
            version,
        }
    }

    /// The version of the snapshot at this moment.
    pub fn snapshot_version(&self) -> SnapshotVersion {
        self.version_of(&self.core.state())
    }

    /// The version of a snapshot of these records; they must not change meanwhile.
    fn version_of(&self, state: &State) -> SnapshotVersion {
        let visible = self.core.recorder.view().log.bounds().latest;
        SnapshotVersion { applied: state.through, visible, installed: self.core.codex.installed_version() }
    }

    /// One session with the newest events about it.
    pub fn session_view(&self, session_id: &SessionId) -> Result<SessionView, DaemonError> {
        let view = self.core.recorder.view();
        let (session, queued_turns, requests, recent) = {
            let state = view.state();
            let queued: Vec<_> = state.private.queue(session_id).cloned().collect();
            let mine = |request: &&Arc<ServerRequest>| state.lists_request(session_id, request);
            let requests = state.requests.pending().filter(mine).cloned().collect();
            (state.sessions.get(session_id).cloned(), queued, requests, view.recent_events())
        };
        let session = session.ok_or_else(|| DaemonError::UnknownSession(session_id.clone()))?;
        let about = |event: &Value| {
            let named =
                |key: &str| event.get("detail").and_then(|detail| detail.get(key)).and_then(Value::as_str);
            let is_in_thread = |key: &str| {
                named(key).is_some_and(|id| Some(id) == session.thread_id.as_ref().map(ThreadId::as_str))
            };
            named("sessionId") == Some(session_id.as_str())
                || is_in_thread("threadId")
                || is_in_thread("rootThreadId")
        };
        let recent_events = recent.iter().map(event).filter(about).collect();
        let mcp_servers = self.core.codex.mcp_servers.of(session.thread_id.as_ref());
        let session = SessionBody::from(&*session);
        Ok(SessionView { recent_events, session, queued_turns, requests, mcp_servers })
    }
}

/// The event of a line; lines are of our own making, so this fails for none.
pub fn event(line: &Line) -> Value {
    serde_json::from_slice(line.json()).unwrap_or_default()
}
