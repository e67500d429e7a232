//! The requests of the app-server that wait for an answer, or did.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::codex::protocol::decisions;
use crate::ids::{RequestId, SessionId, ThreadId, TurnId};
use crate::timestamp::Timestamp;

/// How many resolved requests are remembered.
const MAX_RESOLVED: usize = 500;

/// Whether a request still waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema, Deserialize)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "RequestStatus")]
pub enum ServerRequestStatus {
    /// It waits for an answer.
    Pending,
    /// It is resolved.
    Resolved,
}

/// What resolved a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ResolvedBy {
    /// A client answered.
    Client,
    /// It was declined because no client answered in time.
    Timeout,
    /// The policy of the session declines every request.
    Policy,
    /// Another client of the app-server answered.
    OtherClient,
    /// The app-server no longer needs it, for example after an interrupt.
    AppServer,
    /// Its turn ended.
    TurnEnd,
    /// The connection to the app-server ended.
    ConnectionClosed,
}

/// What a session does with requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestPolicy {
    /// Declines at once instead of asking.
    pub decline: bool,
    /// How long is waited for an answer, in seconds; `None` leaves it to the daemon's setting.
    pub timeout_seconds: Option<u64>,
}

/// A request of the app-server, as clients see it; absent values are written out as `null`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Request")]
pub struct ServerRequest {
    /// Its id, which is never used again.
    pub request_id: RequestId,
    /// The method, as the app-server names it.
    pub method: String,
    /// Whether it still waits.
    pub status: ServerRequestStatus,
    /// The session that started the turn at the root; `null` when none did.
    pub session_id: Option<SessionId>,
    /// The thread.
    pub thread_id: Option<ThreadId>,
    /// The turn that waits for it.
    pub turn_id: Option<TurnId>,
    /// The thread of the session: `thread_id`, unless that is the thread of a sub-agent.
    #[serde(default)]
    pub root_thread_id: Option<ThreadId>,
    /// The turn of that thread.
    #[serde(default)]
    pub root_turn_id: Option<TurnId>,
    /// The item it is about.
    pub item_id: Option<String>,
    /// The decisions that may be taken.
    pub decisions: Vec<Value>,
    /// What is asked, in full.
    pub params: Value,
    /// RFC 3339, UTC, milliseconds.
    pub created_at: Timestamp,
    /// When it is declined without an answer, RFC 3339, UTC, milliseconds; `null` when it is left to the other clients
    /// of the app-server, because no session started its turn.
    pub expires_at: Option<Timestamp>,
    /// RFC 3339, UTC, milliseconds.
    pub resolved_at: Option<Timestamp>,
    /// Who ended it.
    pub resolved_by: Option<ResolvedBy>,
    /// What was decided, if anything was.
    pub decision: Option<Value>,
    /// Why it ended, as a sentence.
    pub reason: Option<String>,
}

impl ServerRequest {
    /// Who or what resolved it, as a sentence.
    pub fn resolution(&self) -> &str {
        self.reason.as_deref().unwrap_or("A client of codexd answered it.")
    }
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolution {
    /// Which.
    pub request_id: RequestId,
    /// Who ended it.
    pub resolved_by: ResolvedBy,
    /// What was decided, if anything was.
    pub decision: Option<Value>,
    /// Why, as a sentence.
    pub reason: Option<String>,
}

/// Where the parameters of a request that was too long to be kept have its length, in bytes; of the parameters
/// themselves they have no more than ids.
pub const SKIPPED_BYTES: &str = "skippedBytes";

/// The decisions that may be taken about a request.
pub fn offered_decisions(method: &str, params: &Value) -> Vec<Value> {
    if params.get(SKIPPED_BYTES).is_some() {
        // What is not known is not allowed either.
        return vec![decisions::DECLINE.into()];
    }
    decisions::offered(method, params)
}

/// All requests that are remembered.
#[derive(Debug, Clone, Default)]
pub struct ServerRequests {
    records: BTreeMap<u64, Arc<ServerRequest>>,
    by_id: HashMap<RequestId, u64>,
    next: u64,
}

impl ServerRequests {
    /// One request by its id.
    pub fn get(&self, request_id: &RequestId) -> Option<&Arc<ServerRequest>> {
        self.records.get(self.by_id.get(request_id)?)
    }

    /// All requests, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<ServerRequest>> {
        self.records.values()
    }

    /// Those that wait, oldest first.
    pub fn pending(&self) -> impl Iterator<Item = &Arc<ServerRequest>> {
        self.records.values().filter(|request| request.status == ServerRequestStatus::Pending)
    }

    /// Adds a request.
    pub fn insert(&mut self, request: Arc<ServerRequest>) {
        let ordinal = match self.by_id.get(&request.request_id) {
            Some(ordinal) => *ordinal,
            None => {
                self.next += 1;
                self.by_id.insert(request.request_id.clone(), self.next);
                self.next
            }
        };
        self.records.insert(ordinal, request);
    }

    /// Ends a request that waits; `false` when there is none.
    pub(super) fn resolve(
        &mut self,
        at: &Timestamp,
        request_id: &RequestId,
        by: ResolvedBy,
        decision: Option<&Value>,
        reason: Option<&str>,
    ) -> bool {
        let ordinal = self.by_id.get(request_id);
        let Some(request) = ordinal.and_then(|ordinal| self.records.get_mut(ordinal)) else { return false };
        if request.status == ServerRequestStatus::Resolved {
            return false;
        }
        let request = Arc::make_mut(request);
        request.status = ServerRequestStatus::Resolved;
        request.resolved_at = Some(at.clone());
        request.resolved_by = Some(by);
        request.decision = decision.cloned();
        request.reason = reason.map(str::to_owned);
        self.forget();
        true
    }

    fn forget(&mut self) {
        while self.records.len() > MAX_RESOLVED {
            let oldest =
                self.records.iter().find(|(_, request)| request.status == ServerRequestStatus::Resolved);
            let Some((ordinal, request)) = oldest.map(|(ordinal, request)| (*ordinal, Arc::clone(request)))
            else {
                return;
            };
            self.records.remove(&ordinal);
            self.by_id.remove(&request.request_id);
        }
    }
}

impl PartialEq for ServerRequests {
    fn eq(&self, other: &Self) -> bool {
        self.records.values().eq(other.records.values())
    }
}
