//! `session-registry.json`: the records of sessions, and what codexd keeps beside them.
//!
//! There is one row for each turn and each idempotency key, because there can be ten thousand of them: a JSON array
//! without names, the rows of a thread or a session on one line.
//! Files of format version 1 and 2 are read; see [`super::earlier_registry`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::descendants::{Descendants, RunningTurn};
use super::earlier_registry::{EarlierAnswer, EarlierTurn};
use super::held::Held;
use super::private::{PrivateSession, PrivateState, SessionMoment, StoredResponse};
use super::records::State;
use super::server_requests::ServerRequest;
use super::session::{Session, SessionStatus};
use super::turn::{KeptContents, Phase, Threads, Turn};
use crate::codex::protocol::values::TURN_IN_PROGRESS;
use crate::ids::{SessionId, ThreadId, TurnId};

/// The first digits of the years that are written as numbers.
const CENTURY: &str = "20";

/// The answers by idempotency key.
type Answers = BTreeMap<Arc<str>, Arc<StoredResponse>>;

/// What `session-registry.json` holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistryFile {
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
    pub updated_at: Option<String>,
    /// All sessions, oldest first.
    pub sessions: Vec<Arc<Session>>,
    /// The newest turns of each thread.
    #[serde(default, serialize_with = "write_threads", deserialize_with = "read_threads")]
    pub(super) threads: Threads,
    /// The answers to requests with an idempotency key, by the session of the request.
    #[serde(default, serialize_with = "write_answers", deserialize_with = "read_answers")]
    pub(super) answers: Answers,
    /// Records that answers name by their numbers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
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
    sessions: BTreeMap<SessionId, PrivateSession>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    trust_answers: BTreeMap<String, bool>,
    /// By idempotency key, as version 2 wrote them.
    #[serde(skip_serializing)]
    answers: BTreeMap<String, EarlierAnswer>,
}

impl RegistryFile {
    /// 2 has the turns of threads, what was asked and what is remembered; 3 has rows for turns and answers, and no
    /// items. A codexd that knows only an earlier version would write the file without them; the version makes it leave
    /// the file alone.
    pub(super) const FORMAT: u32 = 3;

    /// The file that holds `state`'s sessions.
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
        let MemoryFile { sessions, trust_answers, answers } = self.memory;
        let former_sessions = self.former_sessions;
        state.private = PrivateState { sessions, answers: self.answers, former_sessions, trust_answers };
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
    Value,
    Value,
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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    item_ids: Vec<String>,
    #[serde(skip_serializing_if = "KeptContents::is_empty")]
    kept: KeptContents,
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
                item_ids: turn.item_ids.clone(),
                kept: turn.kept.clone(),
            };
            TurnRow(
                turn.turn_id.clone(),
                turn.first_seq,
                turn.last_seq.saturating_sub(turn.first_seq),
                time(&turn.started_at),
                turn.completed_at.as_deref().map_or(Value::Null, time),
                turn.status.clone(),
                extra,
            )
        };
        let turns = turns.iter().map(row).collect();
        Self { started_by, turns }
    }

    fn into_turns(self, thread_id: &ThreadId) -> VecDeque<Arc<Turn>> {
        let turn = |TurnRow(turn_id, first_seq, length, started, completed, status, extra)| {
            let started_by = match extra.started_by {
                None => self.started_by.clone(),
                Some(session_id) => Some(session_id).filter(|session_id| !session_id.as_str().is_empty()),
            };
            Arc::new(Turn {
                turn_id,
                thread_id: thread_id.clone(),
                started_by,
                phase: extra.phase.unwrap_or(Phase::Ended),
                status,
                started_at: time_text(started).unwrap_or_default(),
                completed_at: time_text(completed),
                first_seq,
                last_seq: first_seq.saturating_add(length),
                has_user_message: extra.has_user_message,
                item_ids: extra.item_ids,
                kept: extra.kept,
            })
        };
        self.turns.into_iter().map(turn).collect()
    }
}

/// Key, beginning of the digest, expiry, turn, the session's `updatedAt`, and what is not as usual.
#[derive(Serialize, Deserialize)]
struct AnswerRow(
    String,
    String,
    Value,
    Option<TurnId>,
    Value,
    #[serde(default, skip_serializing_if = "AnswerExtra::is_usual")] AnswerExtra,
);

#[derive(Serialize, Deserialize, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
struct AnswerExtra {
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_message_id: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    steered: bool,
    /// The current turn, the last one and its status, unless the turn of the answer has just begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    turns: Option<TurnFields>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    closed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    closed_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<Box<Held>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    former: Option<u64>,
}

impl AnswerExtra {
    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// The current turn of a session, its last one and the status of that.
type TurnFields = (Option<TurnId>, Option<TurnId>, Option<String>);

/// The turn fields of a session in which this turn has just begun.
fn just_begun(turn_id: Option<&TurnId>) -> TurnFields {
    (turn_id.cloned(), turn_id.cloned(), Some(TURN_IN_PROGRESS.to_owned()))
}

impl AnswerRow {
    fn of(key: &str, answer: &StoredResponse) -> Self {
        let mut extra = AnswerExtra {
            queue_id: answer.queue_id.clone(),
            client_message_id: answer.client_message_id.clone(),
            steered: answer.steered,
            ..AnswerExtra::default()
        };
        let mut updated_at = Value::Null;
        if let Some(session) = &answer.session {
            updated_at = time(&session.updated_at);
            let session = session.clone();
            let turns = (session.current_turn_id, session.last_turn_id, session.last_turn_status);
            extra.turns = Some(turns).filter(|turns| *turns != just_begun(answer.turn_id.as_ref()));
            extra.closed = session.status == SessionStatus::Closed;
            extra.closed_reason = session.closed_reason;
            extra.held = session.held;
            extra.former = session.former;
        }
        let expires_at = time(&answer.expires_at);
        Self(key.to_owned(), answer.digest.clone(), expires_at, answer.turn_id.clone(), updated_at, extra)
    }

    fn into_answer(self, session_id: &SessionId) -> (Arc<str>, Arc<StoredResponse>) {
        let Self(key, digest, expires_at, turn_id, updated_at, extra) = self;
        let (current_turn_id, last_turn_id, last_turn_status) =
            extra.turns.unwrap_or_else(|| just_begun(turn_id.as_ref()));
        let session = time_text(updated_at).map(|updated_at| SessionMoment {
            updated_at,
            current_turn_id,
            last_turn_id,
            last_turn_status,
            status: if extra.closed { SessionStatus::Closed } else { SessionStatus::Active },
            held: extra.held,
            closed_reason: extra.closed_reason,
            former: extra.former,
        });
        let answer = StoredResponse {
            digest,
            expires_at: time_text(expires_at).unwrap_or_default(),
            session_id: session_id.clone(),
            session,
            turn_id,
            queue_id: extra.queue_id,
            client_message_id: extra.client_message_id,
            steered: extra.steered,
        };
        (key.into(), Arc::new(answer))
    }
}

fn write_threads<S: Serializer>(threads: &Threads, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(threads.len()))?;
    for (thread_id, turns) in threads {
        map.serialize_entry(thread_id, &one_line(&ThreadRows::of(turns))?)?;
    }
    map.end()
}

fn read_threads<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Threads, D::Error> {
    let threads = BTreeMap::<ThreadId, ThreadRows>::deserialize(deserializer)?;
    let threads = threads.into_iter().map(|(thread_id, rows)| {
        let turns = rows.into_turns(&thread_id);
        (thread_id, turns)
    });
    Ok(threads.collect())
}

fn write_answers<S: Serializer>(answers: &Answers, serializer: S) -> Result<S::Ok, S::Error> {
    let mut by_session: BTreeMap<&SessionId, Vec<(&str, &StoredResponse)>> = BTreeMap::new();
    for (key, answer) in answers {
        by_session.entry(&answer.session_id).or_default().push((key, answer));
    }
    let mut map = serializer.serialize_map(Some(by_session.len()))?;
    for (session_id, answers) in by_session {
        let rows: Vec<_> = answers.into_iter().map(|(key, answer)| AnswerRow::of(key, answer)).collect();
        map.serialize_entry(session_id, &one_line(&rows)?)?;
    }
    map.end()
}

fn read_answers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Answers, D::Error> {
    let by_session = BTreeMap::<SessionId, Vec<AnswerRow>>::deserialize(deserializer)?;
    let answers = by_session.into_iter().flat_map(|(session_id, rows)| {
        rows.into_iter().map(move |row| row.into_answer(&session_id)).collect::<Vec<_>>()
    });
    Ok(answers.collect())
}

/// The value on one line, also in a file that is indented.
fn one_line<E: serde::ser::Error>(value: &impl Serialize) -> Result<Box<RawValue>, E> {
    serde_json::value::to_raw_value(value).map_err(E::custom)
}

/// The digits of a time, without those of its century; a text that is not the time of an event stays as it is.
fn time(text: &str) -> Value {
    let digits: String = text.chars().filter(char::is_ascii_digit).skip(CENTURY.len()).collect();
    let number = digits.parse::<u64>().ok().map(Value::from);
    match number.filter(|number| time_text(number.clone()).as_deref() == Some(text)) {
        Some(number) => number,
        None => text.into(),
    }
}

fn time_text(value: Value) -> Option<String> {
    if let Value::String(text) = value {
        return Some(text);
    }
    let mut digits = format!("{CENTURY}{:015}", value.as_u64()?);
    for (at, mark) in [(4, '-'), (7, '-'), (10, 'T'), (13, ':'), (16, ':'), (19, '.')] {
        digits.insert(at, mark);
    }
    digits.push('Z');
    Some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_a_number_and_any_other_text_stays_itself() {
        assert_eq!(time("2026-11-29T03:46:11.123Z"), 261_129_034_611_123_u64);
        for text in
            ["2026-11-29T03:46:11.123Z", "2000-01-01T00:00:00.000Z", "2026-11-29T03:46:11Z", "T7", "", "20"]
        {
            assert_eq!(time_text(time(text)).as_deref(), Some(text));
        }
        assert_eq!(time("2026-11-29T03:46:11Z"), "2026-11-29T03:46:11Z");
        assert_eq!(time_text(Value::Null), None);
    }
}
