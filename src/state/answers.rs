//! The responses to requests with an idempotency key, each kept as the text of its row in `records.json`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::ser::{Error as _, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::compact::Digits;
use super::held::Held;
use super::session::{Session, SessionStatus};
use crate::codex::protocol::values::TURN_IN_PROGRESS;
use crate::ids::{SessionId, TurnId};
use crate::timestamp::Timestamp;

/// How many answers are kept at most; the oldest go first. An answer takes less than 1 KiB: its key has at most 200 bytes.
const MAX_RESPONSES: usize = 10_000;

/// How many characters of a digest are kept; it distinguishes the bodies that a client sends with one key.
const DIGEST_CHARS: usize = 16;

/// The idempotency key of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdempotencyKey {
    /// The value of the Idempotency-Key header.
    pub key: String,
    /// What the request was, as a digest; another request must not use the same key.
    pub digest: String,
    /// Until when it is remembered, RFC 3339, UTC, milliseconds.
    pub expires_at: Timestamp,
}

/// What is needed to answer a request with an idempotency key again.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredResponse {
    /// The beginning of the digest of the request.
    pub(super) digest: String,
    /// Until when it is remembered, RFC 3339, UTC, milliseconds.
    pub expires_at: Timestamp,
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
    pub(super) updated_at: Timestamp,
    pub(super) current_turn_id: Option<TurnId>,
    pub(super) last_turn_id: Option<TurnId>,
    pub(super) last_turn_status: Option<Cow<'static, str>>,
    pub(super) status: SessionStatus,
    pub(super) held: Option<Box<Held>>,
    pub(super) closed_reason: Option<String>,
    /// Whether it had no title yet; later changes of a title are in a former record.
    pub(super) untitled: bool,
    /// Where the other fields are in [`super::PrivateState`]; `None` while they are those of the record.
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
            held: session.held.clone(),
            closed_reason: session.closed_reason.clone(),
            untitled: session.title.is_none(),
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
            held: self.held.clone(),
            closed_reason: self.closed_reason.clone(),
            title: session.title.clone().filter(|_| !self.untitled),
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

/// The answers by idempotency key; shared with `records.json` while that is written.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answers(Arc<BTreeMap<Arc<str>, Answer>>);

#[derive(Debug, Clone, PartialEq)]
struct Answer {
    expires_at: Timestamp,
    session_id: SessionId,
    /// [`Row`] as JSON.
    row: Arc<str>,
}

impl Answers {
    /// The answer to the request with this key.
    pub fn get(&self, key: &str) -> Option<StoredResponse> {
        let answer = self.0.get(key)?;
        let row: Row = serde_json::from_str(&answer.row).ok()?;
        Some(row.into_response(&answer.session_id))
    }

    /// Stores an answer, and removes those that have expired at `at`.
    pub(super) fn add(&mut self, at: &Timestamp, key: &str, response: &StoredResponse) {
        let answers = Arc::make_mut(&mut self.0);
        answers.retain(|_, known| known.expires_at > *at);
        while answers.len() >= MAX_RESPONSES {
            let oldest = answers.iter().min_by(|(_, a), (_, b)| a.expires_at.cmp(&b.expires_at));
            let Some(oldest) = oldest.map(|(key, _)| Arc::clone(key)) else { break };
            answers.remove(&oldest);
        }
        self.insert(key, response);
    }

    /// Stores an answer.
    pub(super) fn insert(&mut self, key: &str, response: &StoredResponse) {
        let row = Row::of(response);
        let expires_at = response.expires_at.clone();
        // A row is a list of texts and numbers, which JSON can express.
        let Ok(row) = serde_json::to_string(&row) else { return };
        let session_id = response.session_id.clone();
        Arc::make_mut(&mut self.0).insert(key.into(), Answer { expires_at, session_id, row: row.into() });
    }

    pub(super) fn remove(&mut self, key: &str) {
        Arc::make_mut(&mut self.0).remove(key);
    }

    /// Names this record as the former one of a session in the answers that have no other; `number` is called once if there is
    /// one.
    pub(super) fn set_former(&mut self, session_id: &SessionId, number: impl FnOnce() -> u64) {
        let mut number = Some(number);
        let mut former = None;
        for answer in
            Arc::make_mut(&mut self.0).values_mut().filter(|answer| answer.session_id == *session_id)
        {
            let Ok(row) = serde_json::from_str::<Row>(&answer.row) else { continue };
            let mut response = row.into_response(session_id);
            let Some(moment) = response.session.as_mut().filter(|moment| moment.former.is_none()) else {
                continue;
            };
            former = former.or_else(|| number.take().map(|number| number()));
            moment.former = former;
            if let Ok(row) = serde_json::to_string(&Row::of(&response)) {
                answer.row = row.into();
            }
        }
    }
}

/// Beginning of the digest, expiry, turn, the session's `updatedAt`, and what is not as usual.
#[derive(Serialize, Deserialize)]
struct Row(
    String,
    Digits,
    Option<TurnId>,
    Option<Digits>,
    #[serde(default, skip_serializing_if = "Extra::is_usual")] Extra,
);

#[derive(Serialize, Deserialize, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
struct Extra {
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
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    untitled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    former: Option<u64>,
}

impl Extra {
    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// The current turn of a session, its last one and the status of that.
type TurnFields = (Option<TurnId>, Option<TurnId>, Option<Cow<'static, str>>);

/// The turn fields of a session in which this turn has just begun.
fn just_begun(turn_id: Option<&TurnId>) -> TurnFields {
    (turn_id.cloned(), turn_id.cloned(), Some(Cow::Borrowed(TURN_IN_PROGRESS)))
}

impl Row {
    fn of(answer: &StoredResponse) -> Self {
        let mut extra = Extra {
            queue_id: answer.queue_id.clone(),
            client_message_id: answer.client_message_id.clone(),
            steered: answer.steered,
            ..Extra::default()
        };
        let mut updated_at = None;
        if let Some(session) = &answer.session {
            updated_at = Some(Digits(session.updated_at.clone()));
            let session = session.clone();
            let turns = (session.current_turn_id, session.last_turn_id, session.last_turn_status);
            extra.turns = Some(turns).filter(|turns| *turns != just_begun(answer.turn_id.as_ref()));
            extra.closed = session.status == SessionStatus::Closed;
            extra.closed_reason = session.closed_reason;
            extra.held = session.held;
            extra.untitled = session.untitled;
            extra.former = session.former;
        }
        let expires_at = Digits(answer.expires_at.clone());
        Self(answer.digest.clone(), expires_at, answer.turn_id.clone(), updated_at, extra)
    }

    fn into_response(self, session_id: &SessionId) -> StoredResponse {
        let Self(digest, expires_at, turn_id, updated_at, extra) = self;
        let (current_turn_id, last_turn_id, last_turn_status) =
            extra.turns.unwrap_or_else(|| just_begun(turn_id.as_ref()));
        let session = updated_at.map(|updated_at| SessionMoment {
            updated_at: updated_at.0,
            current_turn_id,
            last_turn_id,
            last_turn_status,
            status: if extra.closed { SessionStatus::Closed } else { SessionStatus::Active },
            held: extra.held,
            closed_reason: extra.closed_reason,
            untitled: extra.untitled,
            former: extra.former,
        });
        StoredResponse {
            digest,
            expires_at: expires_at.0,
            session_id: session_id.clone(),
            session,
            turn_id,
            queue_id: extra.queue_id,
            client_message_id: extra.client_message_id,
            steered: extra.steered,
        }
    }
}

/// A row with its key, as in a file.
#[derive(Deserialize)]
struct KeyedRow(String, String, Digits, Option<TurnId>, Option<Digits>, #[serde(default)] Extra);

/// By the session of the request, one list of rows each, which begin with their keys.
impl Serialize for Answers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut answers: Vec<(&Arc<str>, &Answer)> = self.0.iter().collect();
        // Stable, so that those of one session stay in the order of their keys.
        answers.sort_by_key(|(_, answer)| &answer.session_id);
        let by_session = answers.chunk_by(|(_, a), (_, b)| a.session_id == b.session_id);
        serializer.collect_map(by_session.map(|answers| (&answers[0].1.session_id, KeyedRows(answers))))
    }
}

/// The answers of one session, as in a file.
struct KeyedRows<'a>(&'a [(&'a Arc<str>, &'a Answer)]);

impl Serialize for KeyedRows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut rows = serializer.serialize_seq(Some(self.0.len()))?;
        for (key, answer) in self.0 {
            let key = serde_json::to_string(key).map_err(S::Error::custom)?;
            // The row without its first bracket.
            let row = format!("[{key},{}", answer.row.trim_start_matches('['));
            rows.serialize_element(&RawValue::from_string(row).map_err(S::Error::custom)?)?;
        }
        rows.end()
    }
}

impl<'de> Deserialize<'de> for Answers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let by_session = BTreeMap::<SessionId, Vec<KeyedRow>>::deserialize(deserializer)?;
        let mut answers = Self::default();
        for (session_id, rows) in by_session {
            for KeyedRow(key, digest, expires_at, turn_id, updated_at, extra) in rows {
                let row = Row(digest, expires_at, turn_id, updated_at, extra);
                answers.insert(&key, &row.into_response(&session_id));
            }
        }
        Ok(answers)
    }
}
