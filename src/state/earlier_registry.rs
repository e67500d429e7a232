//! The turns and answers of a registry of format version 1 or 2.

use serde::Deserialize;
use serde_json::Value;

use super::answers::{IdempotencyKey, SessionMoment, StoredResponse};
use super::compact::status;
use super::private::add_former;
use super::records::State;
use super::session::Session;
use super::session_forms::SessionRow;
use super::turn::{KeptContents, Phase, Turn};
use super::usage_limit::OnUsageLimit;
use crate::codex::protocol::values;
use crate::ids::{SessionId, ThreadId, TurnId};
use crate::timestamp::Timestamp;

/// A turn: of a thread in version 2, of a session in version 1, which did not write down who started it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EarlierTurn {
    turn_id: TurnId,
    /// In version 1.
    session_id: Option<SessionId>,
    thread_id: Option<ThreadId>,
    started_by: Option<SessionId>,
    /// In version 2.
    phase: Option<Phase>,
    status: String,
    started_at: Timestamp,
    completed_at: Option<Timestamp>,
    text: Option<String>,
    error: Option<Value>,
    token_usage: Option<Value>,
}

impl EarlierTurn {
    /// The record of the turn, in a registry that includes the events up to `through`.
    pub(super) fn into_turn(self, through: u64) -> Turn {
        let is_open = self.status == values::TURN_IN_PROGRESS;
        let phase = self.phase.unwrap_or(if is_open { Phase::Started } else { Phase::Ended });
        let mut kept = KeptContents::default();
        if let Some(text) = &self.text {
            kept.set_text(text);
        }
        kept.set_error(self.error.as_ref());
        if let Some(usage) = &self.token_usage {
            kept.set_token_usage(usage);
        }
        Turn {
            turn_id: self.turn_id,
            thread_id: self.thread_id.unwrap_or_default(),
            started_by: self.started_by.or(self.session_id),
            phase,
            status: status(&self.status),
            started_at: self.started_at,
            completed_at: self.completed_at,
            first_seq: 0,
            last_seq: through,
            has_user_message: false,
            has_gap: false,
            item_digests: Vec::new(),
            kept,
            on_usage_limit: OnUsageLimit::default(),
        }
    }
}

/// An answer with a copy of the session's record.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EarlierAnswer {
    digest: String,
    expires_at: Timestamp,
    session: Option<SessionRow>,
    turn_id: Option<TurnId>,
    queue_id: Option<String>,
    client_message_id: Option<String>,
    #[serde(default)]
    steered: bool,
}

impl EarlierAnswer {
    /// Adds the answer to the records, which have the sessions.
    pub(super) fn add_to(self, key: &str, state: &mut State) {
        let session = self.session.map(Session::from);
        let session_id = session.as_ref().map(|session| session.session_id.clone()).unwrap_or_default();
        let idempotency =
            IdempotencyKey { key: key.to_owned(), digest: self.digest, expires_at: self.expires_at };
        let mut answer = StoredResponse::new(&idempotency, &session_id);
        answer.turn_id = self.turn_id;
        answer.queue_id = self.queue_id;
        answer.client_message_id = self.client_message_id;
        answer.steered = self.steered;
        if let Some(session) = session {
            let mut moment = SessionMoment::of(&session);
            let record = state.sessions.get(&session.session_id);
            if record.is_none_or(|record| moment.in_record(record) != session) {
                moment.former = Some(add_former(&mut state.private.former_sessions, session.into()));
            }
            answer.session = Some(moment);
        }
        state.private.answers.insert(key, &answer);
    }
}
