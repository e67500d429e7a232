//! The query of every route, one struct each: the handlers parse them, and the OpenAPI document describes their parameters
//! by the documentation of the fields. Stateless; the query of the event stream is in `stream::query`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::values::WholeNumber;
use crate::ids::{SessionId, ThreadId};
use crate::state::{Purpose, SessionStatus};

/// The order of a list of sessions.
#[derive(Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Order {
    Newest,
    Oldest,
}

/// The selection and order of a list of sessions.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct SessionQuery {
    /// Only sessions with this status.
    pub(super) status: Option<SessionStatus>,
    /// Only sessions with this purpose.
    pub(super) purpose: Option<Purpose>,
    /// Only sessions whose thread is archived, or only the others.
    pub(super) archived: Option<bool>,
    /// Only sessions of this thread.
    #[serde(rename = "threadId")]
    pub(super) thread_id: Option<ThreadId>,
    /// Which sessions come first; default: oldest.
    pub(super) order: Option<Order>,
    /// Only sessions that come after this one.
    pub(super) after: Option<SessionId>,
    /// The maximum number of sessions.
    pub(super) limit: Option<WholeNumber<1, 10_000>>,
    /// `metadata.KEY=VALUE` selects sessions with this label; may be repeated.
    #[serde(default)]
    pub(super) metadata: BTreeMap<String, String>,
}

/// The selection of threads.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct ThreadQuery {
    /// Only threads whose title contains this text.
    pub(super) search: Option<String>,
    /// Only threads with exactly this working directory.
    pub(super) cwd: Option<String>,
    /// Archived threads instead of the others; default: false.
    pub(super) archived: Option<bool>,
    /// The maximum number of threads; default: 50.
    pub(super) limit: Option<WholeNumber<1, 1_000>>,
    /// Continues after a page: its `next`.
    pub(super) after: Option<String>,
}

/// How a session is closed.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct CloseQuery {
    /// Whether a turn in progress is interrupted first.
    pub(super) interrupt: Option<bool>,
}

/// How long the response waits for the end of a turn.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct WaitQuery {
    /// How long the response waits for the end of the turn; default: not at all.
    #[schemars(extend("x-unit" = "seconds"))]
    pub(super) wait: Option<WholeNumber<0, 3600>>,
}

/// The selection of requests of the app-server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RequestQuery {
    /// Only requests of this session.
    pub(super) session_id: Option<SessionId>,
}
