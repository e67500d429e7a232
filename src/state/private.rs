//! State that clients do not see as records: the settings of sessions, queued turns, responses to requests with an
//! idempotency key, and answers about trust.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::held::Held;
use super::server_requests::RequestPolicy;
use super::session::{Session, SessionStatus};
use crate::ids::{SessionId, TurnId};

/// How many answers are kept at most; the oldest go first. An answer takes less than 1 KiB: its key has at most 200 bytes.
const MAX_RESPONSES: usize = 10_000;
/// How many records of sessions that have changed or are removed are kept for the answers that name them.
const MAX_FORMER_SESSIONS: usize = 500;
/// How many characters of a digest are kept; it distinguishes the bodies that a client sends with one key.
const DIGEST_CHARS: usize = 16;
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

/// What is needed to answer a request with an idempotency key again.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredResponse {
    /// The beginning of the digest of the request.
    pub(super) digest: String,
    /// Until when it is remembered, RFC 3339, UTC, milliseconds.
    pub expires_at: String,
    /// The session of the request.
    pub session_id: SessionId,
    /// The session as the answer had it; `None` while the outcome is unknown.
    pub session: Option<SessionMoment>,
    /// The turn that was accepted.
    pub turn_id: Option<TurnId>,
    /// The turn that was queued.
    pub queue_id: Option<String>,
    /// The `clientUserMessageId` of the turn that was sent to the app-server.
    pub client_message_id: Option<String>,
    /// Whether the input was added to a turn that ran already.
    pub steered: bool,
}

/// The fields of a session's record that turns and queues change, as they were at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionMoment {
    pub(super) updated_at: String,
    pub(super) current_turn_id: Option<TurnId>,
    pub(super) last_turn_id: Option<TurnId>,
    pub(super) last_turn_status: Option<String>,
    pub(super) status: SessionStatus,
    pub(super) held: Option<Box<Held>>,
    pub(super) closed_reason: Option<String>,
    /// Where the other fields are in [`PrivateState::former_sessions`]; `None` while they are those of the record.
    pub(super) former: Option<u64>,
}

impl SessionMoment {
    pub(super) fn of(session: &Session) -> Self {
        Self {
            updated_at: session.updated_at.clone(),
            current_turn_id: session.current_turn_id.clone(),
            last_turn_id: session.last_turn_id.clone(),
            last_turn_status: session.last_turn_status.clone(),
            status: session.status,
            held: session.held.clone().map(Box::new),
            closed_reason: session.closed_reason.clone(),
            former: None,
        }
    }

    /// The record at that moment, when its other fields are those of `session`.
    pub(super) fn in_record(&self, session: &Session) -> Session {
        Session {
            updated_at: self.updated_at.clone(),
            current_turn_id: self.current_turn_id.clone(),
            last_turn_id: self.last_turn_id.clone(),
            last_turn_status: self.last_turn_status.clone(),
            status: self.status,
            held: self.held.as_deref().cloned(),
            closed_reason: self.closed_reason.clone(),
            ..session.clone()
        }
    }
}

impl StoredResponse {
    /// The response to a request of unknown outcome.
    pub(super) fn new(key: &IdempotencyKey, session_id: &SessionId) -> Self {
        Self {
            digest: key.digest.chars().take(DIGEST_CHARS).collect(),
            expires_at: key.expires_at.clone(),
            session_id: session_id.clone(),
            session: None,
            turn_id: None,
            queue_id: None,
            client_message_id: None,
            steered: false,
        }
    }

    /// Whether the request had this digest.
    pub fn is_of(&self, digest: &str) -> bool {
        digest.starts_with(&self.digest)
    }
}

/// State that clients do not see as records.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PrivateState {
    /// By session id; a session without such state has no entry.
    pub sessions: BTreeMap<SessionId, PrivateSession>,
    /// By idempotency key.
    pub answers: BTreeMap<Arc<str>, Arc<StoredResponse>>,
    /// Records of sessions before a change that [`SessionMoment`] does not have; answers name them by their numbers.
    pub(super) former_sessions: BTreeMap<u64, Arc<Session>>,
    /// The last answer about whether a directory is trusted, by its path.
    pub trust_answers: BTreeMap<String, bool>,
}

impl PrivateState {
    /// The turns that wait in a session, the next one first.
    pub fn queue(&self, session_id: &SessionId) -> impl Iterator<Item = &QueuedTurn> {
        self.sessions.get(session_id).into_iter().flat_map(|memory| &memory.queue)
    }

    /// The sessions in which turns wait.
    pub fn queued_sessions(&self) -> impl Iterator<Item = &SessionId> {
        self.sessions.iter().filter(|(_, memory)| !memory.queue.is_empty()).map(|(session_id, _)| session_id)
    }

    /// Stores the answer about a directory; beyond [`MAX_DIRECTORIES`] another one is removed.
    pub(super) fn trust(&mut self, directory: &str, trusted: bool) {
        if !self.trust_answers.contains_key(directory) && self.trust_answers.len() >= MAX_DIRECTORIES {
            self.trust_answers.pop_first();
        }
        self.trust_answers.insert(directory.to_owned(), trusted);
    }

    pub(super) fn of(&mut self, session_id: &SessionId) -> &mut PrivateSession {
        self.sessions.entry(session_id.clone()).or_default()
    }

    /// Takes a waiting turn out; `false` when it is not there.
    pub(super) fn dequeue(&mut self, session_id: &SessionId, queue_id: &str) -> bool {
        let Some(memory) = self.sessions.get_mut(session_id) else { return false };
        let before = memory.queue.len();
        memory.queue.retain(|turn| turn.queue_id != queue_id);
        memory.queue.len() != before
    }

    /// Stores a response, and removes those that have expired at `at`.
    pub(super) fn answer(&mut self, at: &str, key: &str, answer: StoredResponse) {
        // Times of one form sort like their texts.
        self.answers.retain(|_, known| known.expires_at.as_str() > at);
        while self.answers.len() >= MAX_RESPONSES {
            let oldest = self.answers.iter().min_by(|(_, a), (_, b)| a.expires_at.cmp(&b.expires_at));
            let Some(oldest) = oldest.map(|(key, _)| Arc::clone(key)) else { break };
            self.answers.remove(&oldest);
        }
        self.answers.insert(key.into(), Arc::new(answer));
    }

    /// Keeps a record that is about to change, or to be removed, for the answers that have it.
    pub(super) fn keep_former(&mut self, session: &Arc<Session>) {
        let mut answers = self.answers.values();
        let has_record = |answer: &StoredResponse| {
            answer.session_id == session.session_id
                && answer.session.as_ref().is_some_and(|moment| moment.former.is_none())
        };
        if !answers.any(|answer| has_record(answer)) {
            return;
        }
        let number = self.add_former(Arc::clone(session));
        for answer in self.answers.values_mut().filter(|answer| has_record(answer)) {
            if let Some(moment) = &mut Arc::make_mut(answer).session {
                moment.former = Some(number);
            }
        }
    }

    /// Keeps a record for answers, and returns its number; the oldest of [`MAX_FORMER_SESSIONS`] goes.
    pub(super) fn add_former(&mut self, session: Arc<Session>) -> u64 {
        if let Some((&number, last)) = self.former_sessions.last_key_value()
            && *last == session
        {
            return number;
        }
        let number = self.former_sessions.last_key_value().map_or(0, |(number, _)| number + 1);
        if self.former_sessions.len() >= MAX_FORMER_SESSIONS {
            self.former_sessions.pop_first();
        }
        self.former_sessions.insert(number, session);
        number
    }
}
