//! `records.json`: all records of sessions, threads, turns and requests, from which a start continues.
//!
//! There is one row for each turn and each idempotency key, because there can be ten thousand of them: a JSON array
//! without names.
//! Up to format version 3, `session-registry.json` was this file; see [`super::registry_file`]. It is read in every version;
//! see [`super::earlier_registry`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::answers::Answers;
use super::compact::{Digits, digest, status};
use super::descendants::{Descendants, RunningTurn};
use super::earlier_registry::{EarlierAnswer, EarlierTurn};
use super::private::{PrivateSession, PrivateState};
use super::records::State;
use super::server_requests::ServerRequest;
use super::session::Session;
use super::session_forms::{read_numbered_rows, read_rows, write_numbered_rows, write_rows};
use super::turn::{KeptContents, Phase, Threads, Turn};
use super::usage_limit::{OnUsageLimit, UsageLimit};
use crate::ids::{SessionId, ThreadId, TurnId};
use crate::timestamp::Timestamp;

/// What `records.json` holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordsFile {
    /// The layout's version.
    #[serde(default)]
    pub format_version: u32,
    /// The newest event it includes.
    #[serde(default)]
    pub through_seq: u64,
    /// The newest event that was known to be in the log on disk when it was written; absent in files of earlier versions,
    /// which were never ahead of the log.
    #[serde(default)]
    pub synced_through: Option<u64>,
    /// When a session last changed.
    pub updated_at: Option<Timestamp>,
    /// All sessions, oldest first.
    #[serde(serialize_with = "write_rows", deserialize_with = "read_rows")]
    pub sessions: Vec<Arc<Session>>,
    /// The newest turns of each thread.
    #[serde(default, serialize_with = "write_threads", deserialize_with = "read_threads")]
    pub(super) threads: Threads,
    /// The answers to requests with an idempotency key, by the session of the request.
    #[serde(default)]
    pub(super) answers: Answers,
    /// Records that answers name by their numbers.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        serialize_with = "write_numbered_rows",
        deserialize_with = "read_numbered_rows"
    )]
    pub(super) former_sessions: BTreeMap<u64, Arc<Session>>,
    /// The threads of sub-agents, by their ids.
    #[serde(default)]
    pub(super) descendants: Descendants,
    /// The turns that run in threads which may turn out to be those of sub-agents.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    early_turns: VecDeque<(ThreadId, RunningTurn)>,
    /// What the app-server asked, oldest first.
    #[serde(default)]
    pub(super) requests: Vec<Arc<ServerRequest>>,
    /// What is remembered beside them.
    #[serde(default)]
    memory: MemoryFile,
    /// The newest turns of each thread, as version 2 wrote them.
    #[serde(default, skip_serializing)]
    thread_turns: BTreeMap<String, Vec<EarlierTurn>>,
    /// The newest turns of each session, as version 1 wrote them.
    #[serde(default, skip_serializing)]
    turns: BTreeMap<String, Vec<EarlierTurn>>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MemoryFile {
    sessions: Arc<BTreeMap<SessionId, PrivateSession>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    trust_answers: BTreeMap<String, bool>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    usage_limits: BTreeMap<String, UsageLimit>,
    /// By idempotency key, as version 2 wrote them.
    #[serde(skip_serializing)]
    answers: BTreeMap<String, EarlierAnswer>,
}

impl RecordsFile {
    /// The version of the layout.
    pub(super) const FORMAT: u32 = 1;

    /// The file that holds `state`'s records.
    pub fn of(state: &State) -> Self {
        let private = &state.private;
        Self {
            format_version: Self::FORMAT,
            through_seq: state.through,
            synced_through: None,
            updated_at: state.sessions_updated_at.clone(),
            sessions: state.sessions.iter().cloned().collect(),
            threads: state.turns.by_thread().clone(),
            answers: private.answers.clone(),
            former_sessions: private.former_sessions.clone(),
            descendants: state.descendants.clone(),
            early_turns: state.descendants.early.clone(),
            requests: state.requests.iter().cloned().collect(),
            memory: MemoryFile {
                sessions: private.sessions.clone(),
                trust_answers: private.trust_answers.clone(),
                usage_limits: private.usage_limits.clone(),
                answers: BTreeMap::new(),
            },
            thread_turns: BTreeMap::new(),
            turns: BTreeMap::new(),
        }
    }

    /// Puts what the file holds into empty records.
    pub(super) fn restore_to(self, state: &mut State) {
        for session in self.sessions {
            state.sessions.insert(Arc::unwrap_or_clone(session));
        }
        for request in self.requests {
            state.requests.insert(request);
        }
        let MemoryFile { sessions, trust_answers, usage_limits, answers } = self.memory;
        let former_sessions = self.former_sessions;
        state.private =
            PrivateState { sessions, answers: self.answers, former_sessions, trust_answers, usage_limits };
        for (key, answer) in answers {
            answer.add_to(&key, state);
        }
        let earlier = self.thread_turns.into_values().chain(self.turns.into_values()).flatten();
        let earlier = earlier.map(|turn| turn.into_turn(self.through_seq)).collect();
        state.turns.restore(self.threads, earlier);
        state.descendants = Descendants { early: self.early_turns, ..self.descendants };
        state.sessions_through = self.through_seq;
        state.sessions_updated_at = self.updated_at;
    }
}

/// The turns of one thread; `startedBy` is the session that started those that name no other.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ThreadRows {
    started_by: Option<SessionId>,
    turns: Vec<TurnRow>,
}

/// Turn, first event, how many numbers later the newest event is, start, end, status, and what is not as usual.
#[derive(Serialize, Deserialize)]
struct TurnRow(
    TurnId,
    u64,
    u64,
    Digits,
    Option<Digits>,
    String,
    #[serde(default, skip_serializing_if = "TurnExtra::is_usual")] TurnExtra,
);

#[derive(Serialize, Deserialize, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
struct TurnExtra {
    /// Empty for a turn that no session started.
    #[serde(skip_serializing_if = "Option::is_none")]
    started_by: Option<SessionId>,
    /// `Ended` unless it is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<Phase>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    has_user_message: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    has_gap: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    item_digests: Vec<u64>,
    /// In place of the digests, as an earlier version wrote them.
    #[serde(skip_serializing)]
    item_ids: Vec<String>,
    #[serde(skip_serializing_if = "KeptContents::is_empty")]
    kept: KeptContents,
    #[serde(skip_serializing_if = "OnUsageLimit::is_default")]
    on_usage_limit: OnUsageLimit,
}

impl TurnExtra {
    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

impl ThreadRows {
    fn of(turns: &VecDeque<Arc<Turn>>) -> Self {
        let started_by = turns.front().and_then(|turn| turn.started_by.clone());
        let row = |turn: &Arc<Turn>| {
            let extra = TurnExtra {
                started_by: (turn.started_by != started_by)
                    .then(|| turn.started_by.clone().unwrap_or_default()),
                phase: (turn.phase != Phase::Ended).then_some(turn.phase),
                has_user_message: turn.has_user_message,
                has_gap: turn.has_gap,
                item_digests: turn.item_digests.clone(),
                item_ids: Vec::new(),
                kept: turn.kept.clone(),
                on_usage_limit: turn.on_usage_limit,
            };
            TurnRow(
                turn.turn_id.clone(),
                turn.first_seq,
                turn.last_seq.saturating_sub(turn.first_seq),
                Digits(turn.started_at.clone()),
                turn.completed_at.clone().map(Digits),
                turn.status.to_string(),
                extra,
            )
        };
        let turns = turns.iter().map(row).collect();
        Self { started_by, turns }
    }

    fn into_turns(self, thread_id: &ThreadId) -> VecDeque<Arc<Turn>> {
        let turn = |TurnRow(turn_id, first_seq, length, started_at, completed_at, status_text, extra)| {
            let started_by = match extra.started_by {
                None => self.started_by.clone(),
                Some(session_id) => Some(session_id).filter(|session_id| !session_id.as_str().is_empty()),
            };
            let digests_of_ids = extra.item_ids.iter().map(|id| digest(id));
            Arc::new(Turn {
                turn_id,
                thread_id: thread_id.clone(),
                started_by,
                phase: extra.phase.unwrap_or(Phase::Ended),
                status: status(&status_text),
                started_at: started_at.0,
                completed_at: completed_at.map(|time| time.0),
                first_seq,
                last_seq: first_seq.saturating_add(length),
                has_user_message: extra.has_user_message,
                has_gap: extra.has_gap,
                item_digests: extra.item_digests.into_iter().chain(digests_of_ids).collect(),
                kept: extra.kept,
                on_usage_limit: extra.on_usage_limit,
            })
        };
        self.turns.into_iter().map(turn).collect()
    }
}

fn write_threads<S: Serializer>(threads: &Threads, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(threads.len()))?;
    for (thread_id, turns) in &**threads {
        map.serialize_entry(thread_id, &ThreadRows::of(turns))?;
    }
    map.end()
}

fn read_threads<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Threads, D::Error> {
    let threads = BTreeMap::<ThreadId, ThreadRows>::deserialize(deserializer)?;
    let threads = threads.into_iter().map(|(thread_id, rows)| {
        let turns = rows.into_turns(&thread_id);
        (thread_id, turns)
    });
    Ok(Arc::new(threads.collect()))
}
