//! `GET` and `POST /v1/codexd/sessions`, `GET /v1/codexd/sessions/:session_id`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value};

use super::body::{Fields, pass, request_key};
use super::error::ApiError;
use super::{Handle, answer, words};
use crate::daemon::{CreateSession, DaemonError};
use crate::state::{Purpose, RequestPolicy, Session, SessionStatus};

/// All sessions, oldest first, or those that the query asks for.
pub(super) async fn list(State(edge): State<Handle>, uri: Uri) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Sessions {
        sessions: Vec<Arc<Session>>,
    }
    let wanted = Wanted::parse(uri.query().unwrap_or_default())?;
    Ok(answer::data(StatusCode::OK, Sessions { sessions: wanted.of(edge.daemon.sessions())? }))
}

/// Which sessions are asked for, and in which order.
#[derive(Debug, Default)]
struct Wanted {
    status: Option<SessionStatus>,
    purpose: Option<Purpose>,
    metadata: Vec<(String, String)>,
    newest_first: bool,
    after: Option<String>,
    limit: Option<usize>,
}

impl Wanted {
    fn parse(query: &str) -> Result<Self, ApiError> {
        let mut wanted = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let wrong = |words: &str| ApiError::bad_request(format!("{name} must be {words}."));
            match (&*name, &*value) {
                ("status", "active") => wanted.status = Some(SessionStatus::Active),
                ("status", "closed") => wanted.status = Some(SessionStatus::Closed),
                ("status", _) => return Err(wrong("one of active and closed")),
                ("purpose", word) => {
                    let purpose = Purpose::from_word(word);
                    wanted.purpose = Some(purpose.ok_or_else(|| wrong("one of duplex, worker and smoke"))?);
                }
                ("order", "newest") => wanted.newest_first = true,
                ("order", "oldest") => wanted.newest_first = false,
                ("order", _) => return Err(wrong("one of newest and oldest")),
                ("after", session_id) => wanted.after = Some(session_id.to_owned()),
                ("limit", digits) => {
                    let limit = digits.parse().ok().filter(|limit| (1..=10_000).contains(limit));
                    wanted.limit = Some(limit.ok_or_else(|| wrong("a whole number from 1 to 10000"))?);
                }
                (other, value) => {
                    if let Some(key) = other.strip_prefix("metadata.") {
                        wanted.metadata.push((key.to_owned(), value.to_owned()));
                    }
                }
            }
        }
        Ok(wanted)
    }

    fn of(&self, mut sessions: Vec<Arc<Session>>) -> Result<Vec<Arc<Session>>, ApiError> {
        if self.newest_first {
            sessions.reverse();
        }
        if let Some(after) = &self.after {
            let place = sessions.iter().position(|session| session.session_id == *after);
            let place = place.ok_or_else(|| DaemonError::UnknownSession(after.clone()))?;
            sessions.drain(..=place);
        }
        let has =
            |session: &Session, (key, value): &(String, String)| session.metadata.get(key) == Some(value);
        sessions.retain(|session| {
            self.status.is_none_or(|status| session.status == status)
                && self.purpose.is_none_or(|purpose| session.purpose == purpose)
                && self.metadata.iter().all(|label| has(session, label))
        });
        sessions.truncate(self.limit.unwrap_or(usize::MAX));
        Ok(sessions)
    }
}

/// The models that the app-server offers.
pub(super) async fn models(State(edge): State<Handle>) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Models {
        models: Vec<Value>,
    }
    Ok(answer::data(StatusCode::OK, Models { models: edge.daemon.models().await? }))
}

/// One session with the newest events about it.
pub(super) async fn read(
    State(edge): State<Handle>,
    session_id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    // A name that is not even text is the name of no session.
    let Path(session_id) = session_id.map_err(|_| DaemonError::UnknownSession("(not UTF-8)".to_owned()))?;
    Ok(answer::data(StatusCode::OK, edge.daemon.session_view(&session_id)?))
}

/// Creates a session, or resumes a thread as one.
pub(super) async fn create(
    State(edge): State<Handle>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Created {
        session: Arc<Session>,
    }
    let fields = Fields::read(body).await?;
    let key = request_key(&headers, "sessions", &fields)?;
    let input = CreateSession { key, ..parse(fields)? };
    let session = edge.daemon.create_session(input).await?;
    Ok(answer::data(StatusCode::CREATED, Created { session }))
}

/// Closes a session; a running turn is interrupted when that is asked for.
pub(super) async fn close(
    State(edge): State<Handle>,
    session_id: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Closed {
        session: Arc<Session>,
    }
    let Path(session_id) = session_id.map_err(|_| DaemonError::UnknownSession("(not UTF-8)".to_owned()))?;
    let mut query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let interrupt = query.any(|(name, value)| name == "interrupt" && value == "true");
    let session = edge.daemon.close_session(&session_id, interrupt).await?;
    Ok(answer::data(StatusCode::OK, Closed { session }))
}

fn parse(mut fields: Fields) -> Result<CreateSession, ApiError> {
    let purpose = match fields.text("purpose")? {
        None => Purpose::default(),
        Some(word) => Purpose::from_word(&word).ok_or_else(|| {
            ApiError::bad_request(format!(
                "Unsupported session purpose \"{word}\"; it is one of duplex, worker and smoke."
            ))
        })?,
    };
    let mut settings = Map::new();
    pass(&mut settings, "approvalPolicy", words::approval_policy(&mut fields)?);
    pass(&mut settings, "sandbox", words::one_of(&mut fields, "sandbox", words::SANDBOX)?);
    pass(&mut settings, "personality", words::one_of(&mut fields, "personality", words::PERSONALITY)?);
    pass(&mut settings, "cwd", words::folder(&mut fields, "cwd")?);
    for name in ["baseInstructions", "developerInstructions", "model", "modelProvider", "serviceTier"] {
        pass(&mut settings, name, fields.text(name)?);
    }
    pass(&mut settings, "config", fields.object("config")?);
    let requests = RequestPolicy {
        decline: match fields.text("requests")?.as_deref() {
            None | Some("ask") => false,
            Some("decline") => true,
            Some(_) => return Err(ApiError::bad_request("requests must be one of ask and decline.")),
        },
        timeout_seconds: fields.seconds("requestTimeoutSeconds")?,
    };
    let thread_id = fields.text("threadId")?;
    let fork_from = fields.text("forkFrom")?;
    if thread_id.is_some() && fork_from.is_some() {
        return Err(ApiError::bad_request("Give either threadId or forkFrom, not both."));
    }
    let ephemeral = fields.flag("ephemeral")?;
    if thread_id.is_none() {
        // A resumed thread is what it was; thread/resume takes no such word.
        pass(&mut settings, "ephemeral", ephemeral);
    }
    Ok(CreateSession {
        purpose,
        metadata: fields.labels("metadata")?,
        thread_id,
        fork_from,
        settings,
        requests,
        key: None,
    })
}
