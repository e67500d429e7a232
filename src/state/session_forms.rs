//! The forms of a session that are JSON, and their conversions from and to its record, [`Session`].
//!
//! Both have the same keys, in the same order. [`SessionBody`] is in responses, in events and in `session-registry.json`,
//! which have one shape by the contract, and in the OpenAPI document. [`SessionRow`] is in `records.json`, without the keys
//! of usual values; a change of it is a change of this file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::held::Held;
use super::session::{Purpose, Session, SessionStatus, Trust};
use crate::ids::{SessionId, ThreadId, TurnId};
use crate::timestamp::Timestamp;

/// One conversation with the app-server, as clients see it; absent values are written out as `null`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Session")]
pub struct SessionBody {
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
    /// The process id of that app-server when the session was opened; `null` for an external one.
    pub child_pid: Option<u32>,
    /// RFC 3339, UTC, milliseconds.
    pub created_at: Timestamp,
    /// RFC 3339, UTC, milliseconds.
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
    /// The caller's own labels.
    pub metadata: Arc<BTreeMap<String, String>>,
    /// Why the turns that wait in it do not begin; `null` when they do, or when none waits.
    #[serde(default)]
    pub held: Option<Box<Held>>,
    /// Why it was closed, as a sentence; `null` while it is active.
    #[serde(default)]
    pub closed_reason: Option<String>,
    /// Whether the app-server may use the `.codex` in its directory.
    #[serde(default)]
    pub trust: Trust,
    /// The name of its thread in Codex, else the first words of its first message; `null` until there is one.
    #[serde(default)]
    pub title: Option<Arc<str>>,
    /// Whether its thread is archived.
    #[serde(default)]
    pub archived: bool,
}

/// A session in `records.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SessionRow {
    session_id: SessionId,
    purpose: Purpose,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread_id: Option<ThreadId>,
    status: SessionStatus,
    endpoint: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    child_pid: Option<u32>,
    created_at: Timestamp,
    updated_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    cwd: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_provider: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_effort: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_turn_id: Option<TurnId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_turn_id: Option<TurnId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_turn_status: Option<Cow<'static, str>>,
    metadata: Arc<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held: Option<Box<Held>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    closed_reason: Option<String>,
    #[serde(default, skip_serializing_if = "is_as_user")]
    trust: Trust,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    title: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    archived: bool,
}

fn is_as_user(trust: &Trust) -> bool {
    *trust == Trust::AsUser
}

/// Converts between a form and the record field by field.
macro_rules! conversions {
    ($form:ident) => {
        conversions! {
            $form:
                session_id purpose thread_id status endpoint child_pid created_at updated_at cwd model
                model_provider service_tier reasoning_effort current_turn_id last_turn_id
                last_turn_status metadata held closed_reason trust title archived
        }
    };
    ($form:ident: $($field:ident)*) => {
        impl From<&Session> for $form {
            fn from(session: &Session) -> Self {
                Self { $($field: session.$field.clone()),* }
            }
        }

        impl From<$form> for Session {
            fn from(form: $form) -> Self {
                Self { $($field: form.$field),* }
            }
        }
    };
}

conversions!(SessionBody);
conversions!(SessionRow);

/// Writes a list of sessions for clients and other programs; the bodies are made one by one.
pub fn write_sessions<S: Serializer>(sessions: &[Arc<Session>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(sessions.iter().map(|session| SessionBody::from(&**session)))
}

/// Writes a list of sessions to `records.json`; the rows are made one by one.
pub(super) fn write_rows<S: Serializer>(sessions: &[Arc<Session>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(sessions.iter().map(|session| SessionRow::from(&**session)))
}

/// Reads a list of sessions from a file; equal texts of neighbours are kept once.
pub(super) fn read_rows<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Arc<Session>>, D::Error> {
    struct Rows;
    impl<'de> Visitor<'de> for Rows {
        type Value = Vec<Arc<Session>>;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("a list of sessions")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<Self::Value, A::Error> {
            let mut sessions: Vec<Arc<Session>> = Vec::new();
            while let Some(row) = rows.next_element::<SessionRow>()? {
                let mut session = Session::from(row);
                if let Some(before) = sessions.last() {
                    session.share_texts(before);
                }
                sessions.push(Arc::new(session));
            }
            Ok(sessions)
        }
    }
    deserializer.deserialize_seq(Rows)
}

/// Writes sessions with their numbers.
pub(super) fn write_numbered_rows<S: Serializer>(
    sessions: &BTreeMap<u64, Arc<Session>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(sessions.iter().map(|(number, session)| (number, SessionRow::from(&**session))))
}

/// Reads sessions with their numbers.
pub(super) fn read_numbered_rows<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<u64, Arc<Session>>, D::Error> {
    let rows = BTreeMap::<u64, SessionRow>::deserialize(deserializer)?;
    Ok(rows.into_iter().map(|(number, row)| (number, Arc::new(row.into()))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A session in which no two fields have the same value.
    const TEXT: &str = concat!(
        r#"{"sessionId":"s","purpose":"worker","threadId":"t","status":"closed","endpoint":"stdio","childPid":7,"#,
        r#""createdAt":"2026-01-02T03:04:05.678Z","updatedAt":"2026-01-02T03:04:06.000Z","cwd":"/w","model":"m","#,
        r#""modelProvider":"p","serviceTier":"fast","reasoningEffort":"high","currentTurnId":"u","lastTurnId":"v","#,
        r#""lastTurnStatus":"completed","metadata":{"a":"b"},"held":{"cause":"usageLimit","reason":"r","#,
        r#""since":"2026-01-02T03:04:07.000Z","until":null,"automatic":false,"queueId":"q","turnId":null},"#,
        r#""closedReason":"c","trust":"trusted","title":"n","archived":true}"#
    );

    #[test]
    fn all_forms_have_the_same_text() {
        let body: SessionBody = serde_json::from_str(TEXT).unwrap();
        let session = Session::from(body.clone());
        assert_eq!(SessionBody::from(&session), body);
        assert_eq!(serde_json::to_string(&body).unwrap(), TEXT);
        let row: SessionRow = serde_json::from_str(TEXT).unwrap();
        assert_eq!(Session::from(row), session);
        assert_eq!(serde_json::to_string(&SessionRow::from(&session)).unwrap(), TEXT);
    }

    #[test]
    fn usual_values_are_left_out_of_the_records() {
        let text = concat!(
            r#"{"sessionId":"s","purpose":"duplex","status":"active","endpoint":"stdio","#,
            r#""createdAt":"2026-01-02T03:04:05.678Z","updatedAt":"2026-01-02T03:04:06.000Z","metadata":{}}"#
        );
        let row: SessionRow = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&row).unwrap(), text);
        let body = serde_json::to_value(SessionBody::from(&Session::from(row))).unwrap();
        assert_eq!((&body["threadId"], &body["trust"]), (&serde_json::Value::Null, &"asUser".into()));
    }

    #[test]
    fn field_of_a_later_version_may_be_absent() {
        let mut earlier: serde_json::Value = serde_json::from_str(TEXT).unwrap();
        let object = earlier.as_object_mut().unwrap();
        object
            .retain(|key, _| !["held", "closedReason", "trust", "title", "archived"].contains(&key.as_str()));
        let from_event = Session::from(serde_json::from_value::<SessionBody>(earlier.clone()).unwrap());
        let from_file = Session::from(serde_json::from_value::<SessionRow>(earlier).unwrap());
        assert_eq!(from_event, from_file);
        assert_eq!((from_file.held, from_file.closed_reason, from_file.trust), (None, None, Trust::AsUser));
        assert_eq!((from_file.title, from_file.archived), (None, false));
    }
}
