//! The handlers of sessions: list, read, create, close; and of the models. Stateless.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::daemon::{CreateSession, DaemonError, TrustChoice};
use crate::http::access_log::Subject;
use crate::http::app_state::AppState;
use crate::http::bodies::CREATE_SESSION;
use crate::http::body::{Fields, request_key};
use crate::http::error::ApiError;
use crate::http::queries::{AFTER_SESSION, INTERRUPT_FIRST, LABEL, ORDER, PURPOSE, SESSION_LIMIT, STATUS};
use crate::http::response;
use crate::state::{Purpose, RequestPolicy, Session, SessionStatus};

/// Sessions, in the requested order.
#[derive(Serialize, JsonSchema)]
pub(crate) struct SessionList {
    sessions: Vec<Arc<Session>>,
}

/// One session.
#[derive(Serialize, JsonSchema)]
pub(crate) struct OneSession {
    session: Arc<Session>,
    /// The fields of the request body that were ignored because they are unknown; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    ignored: Option<Vec<String>>,
}

/// A session that was closed.
#[derive(Serialize, JsonSchema)]
pub(crate) struct ClosedSession {
    session: Arc<Session>,
    /// Whether its turn is still running and is interrupted as soon as possible.
    pending: bool,
}

/// The models that the app-server offers, in its own format.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Models {
    models: Vec<Value>,
}

/// Lists all sessions, oldest first, or those that the query selects.
pub(crate) async fn list(State(state): State<AppState>, uri: Uri) -> Result<Response, ApiError> {
    let session_query = SessionQuery::parse(uri.query().unwrap_or_default())?;
    Ok(response::data(
        StatusCode::OK,
        SessionList { sessions: session_query.select(state.daemon.sessions.list())? },
    ))
}

/// The selection and order of a session list.
#[derive(Debug, Default)]
struct SessionQuery {
    status: Option<SessionStatus>,
    purpose: Option<Purpose>,
    metadata: Vec<(String, String)>,
    newest_first: bool,
    after: Option<String>,
    limit: Option<usize>,
}

impl SessionQuery {
    fn parse(query: &str) -> Result<Self, ApiError> {
        let mut session_query = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                name if name == STATUS.name => {
                    let is_active = STATUS.parse_variant(&value).map_err(ApiError::bad_request)? == "active";
                    let status = if is_active { SessionStatus::Active } else { SessionStatus::Closed };
                    session_query.status = Some(status);
                }
                name if name == PURPOSE.name => {
                    let purpose = PURPOSE.parse_variant(&value).map_err(ApiError::bad_request)?;
                    session_query.purpose = Purpose::from_name(purpose);
                }
                name if name == ORDER.name => {
                    session_query.newest_first =
                        ORDER.parse_variant(&value).map_err(ApiError::bad_request)? == "newest";
                }
                name if name == AFTER_SESSION.name => session_query.after = Some(value.into_owned()),
                name if name == SESSION_LIMIT.name => {
                    let limit = SESSION_LIMIT.parse_number(&value).map_err(ApiError::bad_request)?;
                    session_query.limit = usize::try_from(limit).ok();
                }
                other => {
                    if let Some(key) = other.strip_prefix(LABEL.name) {
                        session_query.metadata.push((key.to_owned(), value.into_owned()));
                    }
                }
            }
        }
        Ok(session_query)
    }

    fn select(&self, mut sessions: Vec<Arc<Session>>) -> Result<Vec<Arc<Session>>, ApiError> {
        if self.newest_first {
            sessions.reverse();
        }
        if let Some(after) = &self.after {
            let index = sessions.iter().position(|session| session.session_id == *after);
            let index = index.ok_or_else(|| DaemonError::UnknownSession(after.clone()))?;
            sessions.drain(..=index);
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

/// Lists the models that the app-server offers.
pub(crate) async fn models(State(state): State<AppState>) -> Result<Response, ApiError> {
    Ok(response::data(StatusCode::OK, Models { models: state.daemon.sessions.models().await? }))
}

/// Returns one session with its recent events.
pub(crate) async fn read(
    State(state): State<AppState>,
    session_id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    // An ID that is not UTF-8 belongs to no session.
    let Path(session_id) = session_id.map_err(|_| DaemonError::UnknownSession("(not UTF-8)".to_owned()))?;
    let view = state.daemon.session_view(&session_id)?;
    Ok(Subject::new(&session_id, None).attach_to(response::data(StatusCode::OK, view)))
}

/// Creates a session, or resumes a thread as one.
pub(crate) async fn create(
    State(state): State<AppState>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let fields = Fields::read(body, state.body_limit()).await?;
    let key = request_key(&headers, "sessions", &fields)?;
    let (input, ignored) = parse_session(fields)?;
    let input = CreateSession { key, ..input };
    state.check_cwd(&input.settings).await?;
    let session = state.daemon.sessions.create(input).await?;
    let subject = Subject::new(&session.session_id, None);
    let created = OneSession { session, ignored: response::non_empty(ignored.clone()) };
    Ok(response::with_ignored_header(
        subject.attach_to(response::data(StatusCode::CREATED, created)),
        &ignored,
    ))
}

/// Closes a session; `interrupt=true` interrupts its running turn.
pub(crate) async fn close(
    State(state): State<AppState>,
    session_id: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let Path(session_id) = session_id.map_err(|_| DaemonError::UnknownSession("(not UTF-8)".to_owned()))?;
    let mut query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let interrupt = query.any(|(name, value)| name == INTERRUPT_FIRST.name && value == "true");
    let (session, pending) = state.daemon.sessions.close(&session_id, interrupt).await?;
    let subject = Subject::new(&session_id, None);
    Ok(subject.attach_to(response::data(StatusCode::OK, ClosedSession { session, pending })))
}

/// Parses the requested session, and the names of the ignored fields.
fn parse_session(fields: Fields) -> Result<(CreateSession, Vec<String>), ApiError> {
    let mut body = CREATE_SESSION.parse(fields)?;
    let mut ignored = body.take_ignored();
    let purpose = body.take_text("purpose").and_then(|name| Purpose::from_name(&name)).unwrap_or_default();
    let requests = RequestPolicy {
        decline: body.take_text("requests").as_deref() == Some("decline"),
        timeout_seconds: body.take("requestTimeoutSeconds").and_then(|seconds| seconds.as_u64()),
    };
    let (thread_id, fork_from) = (body.take_text("threadId"), body.take_text("forkFrom"));
    let last_turn_id = body.take("lastTurnId");
    let ephemeral = body.take("ephemeral");
    let trust = body.take("trust").map(|trust| trust.as_bool().map_or(TrustChoice::Ask, TrustChoice::Answer));
    let metadata = match body.take("metadata") {
        Some(Value::Object(labels)) => {
            let label = |(key, value): (String, Value)| Some((key, value.as_str()?.to_owned()));
            labels.into_iter().filter_map(label).collect()
        }
        _ => BTreeMap::new(),
    };
    let mut settings = body.into_settings();
    if let Some(ephemeral) = ephemeral
        && thread_id.is_none()
    {
        // `thread/resume` has no such parameter.
        settings.insert("ephemeral".to_owned(), ephemeral);
    }
    match (last_turn_id, &fork_from) {
        (Some(turn_id), Some(_)) => drop(settings.insert("lastTurnId".to_owned(), turn_id)),
        // Only a fork can end before its source.
        (Some(_), None) => ignored.push("lastTurnId".to_owned()),
        (None, _) => {}
    }
    let input =
        CreateSession { purpose, metadata, thread_id, fork_from, settings, requests, trust, key: None };
    Ok((input, ignored))
}
