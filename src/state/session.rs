//! [`Session`]: the record of a session in memory.
//!
//! It is no JSON; [`super::session_forms`] has its two forms that are: [`SessionBody`](super::SessionBody), in responses and
//! events, and [`SessionRow`](super::session_forms::SessionRow), in `records.json`.
//!
//! A new field is declared in all three (in the forms with `#[serde(default)]`, because logs and files of earlier versions
//! do not have it) and named once in the conversions of `session_forms`. If turns or queues change it, it is also one of
//! [`SessionMoment`](super::answers::SessionMoment). The compiler reports each place that is missing. The rest is the event
//! that sets it (`events/session.rs`, `fold.rs`), where a session is opened (`daemon/sessions.rs`), and the test of
//! `session_forms`, which has the keys in their order.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::held::Held;
use crate::ids::{SessionId, ThreadId, TurnId};
use crate::timestamp::Timestamp;

/// What a session is for; codexd treats all three alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// A conversation, the default.
    #[default]
    Duplex,
    /// Unattended work.
    Worker,
    /// A test of the installation.
    Smoke,
}

impl Purpose {
    /// The name used in requests and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Purpose::Duplex => "duplex",
            Purpose::Worker => "worker",
            Purpose::Smoke => "smoke",
        }
    }

    /// The purpose with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Purpose::Duplex, Purpose::Worker, Purpose::Smoke]
            .into_iter()
            .find(|purpose| purpose.as_str() == name)
    }
}

/// Whether a session takes turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionStatus {
    /// It takes turns.
    Active,
    /// It ended; it can still be read.
    Closed,
}

/// What codexd sends the app-server about the session's directory: whether it may use the `.codex` in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Trust {
    /// Nothing: the user, or the caller's own `config`, has decided.
    #[default]
    AsUser,
    /// That it is not trusted, because there is no decision.
    Untrusted,
    /// That it is trusted, because the client requested it.
    Trusted,
}

/// One conversation with the app-server.
///
/// What many sessions have in common is in memory once.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    /// Its id, which is never used again.
    pub session_id: SessionId,
    /// What it is for.
    pub purpose: Purpose,
    /// The app-server's thread.
    pub thread_id: Option<ThreadId>,
    /// Whether it takes turns.
    pub status: SessionStatus,
    /// The endpoint of its app-server, as configured.
    pub endpoint: Arc<str>,
    /// The process id of that app-server when the session was opened; `None` for an external one.
    pub child_pid: Option<u32>,
    /// When it was opened.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// The working directory the app-server reported.
    pub cwd: Option<Arc<str>>,
    /// The model the app-server reported.
    pub model: Option<Arc<str>>,
    /// The provider the app-server reported.
    pub model_provider: Option<Arc<str>>,
    /// The service tier the app-server reported.
    pub service_tier: Option<Arc<str>>,
    /// The reasoning effort the app-server reported.
    pub reasoning_effort: Option<Arc<str>>,
    /// The turn that runs now.
    pub current_turn_id: Option<TurnId>,
    /// The newest turn.
    pub last_turn_id: Option<TurnId>,
    /// The newest turn's status, as the app-server reports it.
    pub last_turn_status: Option<Cow<'static, str>>,
    /// The name of its thread in Codex, else the first words of its first message; `None` until there is one.
    pub title: Option<Arc<str>>,
    /// Whether its thread is archived.
    pub archived: bool,
    /// The caller's own labels.
    pub metadata: Arc<BTreeMap<String, String>>,
    /// Why the turns that wait in it do not begin; `None` when they do, or when none waits.
    pub held: Option<Box<Held>>,
    /// Why it was closed, as a sentence; `None` while it is active.
    pub closed_reason: Option<String>,
    /// Whether the app-server may use the `.codex` in its directory.
    pub trust: Trust,
}

impl Session {
    /// Takes over the texts of another record where they are the same.
    pub(super) fn share_texts(&mut self, other: &Self) {
        if self.endpoint == other.endpoint {
            self.endpoint = Arc::clone(&other.endpoint);
        }
        if self.metadata == other.metadata {
            self.metadata = Arc::clone(&other.metadata);
        }
        for (own, other) in [
            (&mut self.cwd, &other.cwd),
            (&mut self.model, &other.model),
            (&mut self.model_provider, &other.model_provider),
            (&mut self.service_tier, &other.service_tier),
            (&mut self.reasoning_effort, &other.reasoning_effort),
        ] {
            if own == other {
                own.clone_from(other);
            }
        }
    }
}
