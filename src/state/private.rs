//! State that clients do not see as records: the settings of sessions, queued turns, responses to requests with an
//! idempotency key, and answers about trust.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::answers::Answers;
use super::queued_turn::QueuedTurn;
use super::server_requests::RequestPolicy;
use super::session::Session;
use super::usage_limit::UsageLimit;
use crate::ids::SessionId;

/// How many records of sessions that have changed or are removed are kept for the answers that name them.
const MAX_FORMER_SESSIONS: usize = 500;
/// For how many directories it is remembered whether they are trusted.
const MAX_DIRECTORIES: usize = 1_000;

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

/// State that clients do not see as records.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PrivateState {
    /// By session id; a session without such state has no entry. Shared with `records.json` while that is written.
    pub sessions: Arc<BTreeMap<SessionId, PrivateSession>>,
    /// By idempotency key.
    pub answers: Answers,
    /// Records of sessions before a change that [`super::answers::SessionMoment`] does not have; answers name them by their numbers.
    pub(super) former_sessions: BTreeMap<u64, Arc<Session>>,
    /// The last answer about whether a directory is trusted, by its path.
    pub trust_answers: BTreeMap<String, bool>,
    /// The usage limits that are known, by model provider.
    pub usage_limits: BTreeMap<String, UsageLimit>,
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
        Arc::make_mut(&mut self.sessions).entry(session_id.clone()).or_default()
    }

    /// Takes a waiting turn out; `false` when it is not there.
    pub(super) fn dequeue(&mut self, session_id: &SessionId, queue_id: &str) -> bool {
        let Some(memory) = Arc::make_mut(&mut self.sessions).get_mut(session_id) else { return false };
        let before = memory.queue.len();
        memory.queue.retain(|turn| turn.queue_id != queue_id);
        memory.queue.len() != before
    }

    /// Keeps a record that is about to change, or to be removed, for the answers that have it.
    pub(super) fn keep_former(&mut self, session: &Arc<Session>) {
        let former_sessions = &mut self.former_sessions;
        self.answers.set_former(&session.session_id, || add_former(former_sessions, Arc::clone(session)));
    }
}

/// Keeps a record for answers, and returns its number; the oldest of [`MAX_FORMER_SESSIONS`] goes.
pub(super) fn add_former(former_sessions: &mut BTreeMap<u64, Arc<Session>>, session: Arc<Session>) -> u64 {
    if let Some((&number, last)) = former_sessions.last_key_value()
        && *last == session
    {
        return number;
    }
    let number = former_sessions.last_key_value().map_or(0, |(number, _)| number + 1);
    if former_sessions.len() >= MAX_FORMER_SESSIONS {
        former_sessions.pop_first();
    }
    former_sessions.insert(number, session);
    number
}
