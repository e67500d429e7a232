//! State that clients do not see as records: the settings of sessions, queued turns, responses to requests with an
//! idempotency key, and answers about trust.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::server_requests::RequestPolicy;
use super::session::Session;

/// How many answers are kept at most; the oldest go first.
const MAX_RESPONSES: usize = 10_000;
/// For how many directories it is remembered whether they are trusted.
const MAX_DIRECTORIES: usize = 1_000;

/// A turn that waits until its session is idle.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueuedTurn {
    /// Its name.
    pub queue_id: String,
    /// When it was queued, RFC 3339, UTC, milliseconds.
    pub queued_at: String,
    /// The input of the user.
    pub input: Vec<Value>,
    /// The settings passed to the app-server, by its own names.
    pub settings: Map<String, Value>,
    /// Whether it was given to the app-server and nothing is known of the outcome.
    #[serde(default)]
    pub submitted: bool,
    /// Its position among the queued turns of its thread, for all sessions: the lowest starts first.
    #[serde(default)]
    pub order: u64,
}

/// What is remembered of one session.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PrivateSession {
    /// The settings passed to the app-server when the thread was started, by its own names.
    pub settings: Map<String, Value>,
    /// Turns that wait, the next one first.
    pub queue: VecDeque<QueuedTurn>,
    /// What it does with requests of the app-server.
    pub requests: RequestPolicy,
    /// The value of `trust` in the request that created it, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<bool>,
}

/// The idempotency key of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdempotencyKey {
    /// The value of the Idempotency-Key header.
    pub key: String,
    /// What the request was, as a digest; another request must not use the same key.
    pub digest: String,
    /// Until when it is remembered, RFC 3339, UTC, milliseconds.
    pub expires_at: String,
}

/// The response to a request with an idempotency key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredResponse {
    /// The request.
    #[serde(flatten)]
    pub key: IdempotencyKey,
    /// The session as the answer had it; `None` while the outcome is unknown.
    pub session: Option<Arc<Session>>,
    /// The turn that was accepted.
    pub turn_id: Option<String>,
    /// The turn that was queued.
    pub queue_id: Option<String>,
    /// The `clientUserMessageId` of the turn that was sent to the app-server.
    pub client_message_id: Option<String>,
    /// Whether the input was added to a turn that ran already; earlier versions did not write it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub steered: bool,
}

/// State that clients do not see as records.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PrivateState {
    /// By session id; a session without such state has no entry.
    pub sessions: BTreeMap<String, PrivateSession>,
    /// By idempotency key.
    pub answers: BTreeMap<String, StoredResponse>,
    /// The last answer about whether a directory is trusted, by its path.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub trust_answers: BTreeMap<String, bool>,
}

impl PrivateState {
    /// The turns that wait in a session, the next one first.
    pub fn queue(&self, session_id: &str) -> impl Iterator<Item = &QueuedTurn> {
        self.sessions.get(session_id).into_iter().flat_map(|memory| &memory.queue)
    }

    /// The sessions in which turns wait.
    pub fn queued_sessions(&self) -> impl Iterator<Item = &String> {
        self.sessions.iter().filter(|(_, memory)| !memory.queue.is_empty()).map(|(session_id, _)| session_id)
    }

    /// Stores the answer about a directory; beyond [`MAX_DIRECTORIES`] another one is removed.
    pub(super) fn trust(&mut self, directory: &str, trusted: bool) {
        if !self.trust_answers.contains_key(directory) && self.trust_answers.len() >= MAX_DIRECTORIES {
            self.trust_answers.pop_first();
        }
        self.trust_answers.insert(directory.to_owned(), trusted);
    }

    pub(super) fn of(&mut self, session_id: &str) -> &mut PrivateSession {
        self.sessions.entry(session_id.to_owned()).or_default()
    }

    /// Takes a waiting turn out; `false` when it is not there.
    pub(super) fn dequeue(&mut self, session_id: &str, queue_id: &str) -> bool {
        let Some(memory) = self.sessions.get_mut(session_id) else { return false };
        let before = memory.queue.len();
        memory.queue.retain(|turn| turn.queue_id != queue_id);
        memory.queue.len() != before
    }

    /// Stores a response, and removes those that have expired at `at`.
    pub(super) fn answer(&mut self, at: &str, answer: StoredResponse) {
        // Times of one form sort like their texts.
        self.answers.retain(|_, known| known.key.expires_at.as_str() > at);
        while self.answers.len() >= MAX_RESPONSES {
            let oldest = self.answers.values().min_by(|a, b| a.key.expires_at.cmp(&b.key.expires_at));
            let Some(oldest) = oldest.map(|answer| answer.key.key.clone()) else { break };
            self.answers.remove(&oldest);
        }
        self.answers.insert(answer.key.key.clone(), answer);
    }
}
