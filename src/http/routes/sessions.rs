//! The handlers of sessions: list, read, create, close; and of the models. Stateless.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::codex::protocol::parameters;
use crate::daemon::{CreateSession, DaemonError, SessionChanges};
use crate::http::access_log::Subject;
use crate::http::app_state::AppState;
use crate::http::bodies::{self, RequestHandling, UpdateSession};
use crate::http::body::{Fields, request_key};
use crate::http::error::ApiError;
use crate::http::long_response::LongResponse;
use crate::http::queries::{CloseQuery, Order, SessionQuery};
use crate::http::{parse, response};
use crate::ids::SessionId;
use crate::state::{RequestPolicy, Session, SessionBody};
use crate::timestamp::Timestamp;

/// Sessions, in the requested order.
#[derive(Serialize, JsonSchema)]
pub(crate) struct SessionList {
    sessions: Vec<SessionBody>,
    /// Those of the sessions in which turns are queued; absent if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    queued: Vec<QueuedSession>,
}

/// A session in which turns are queued.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct QueuedSession {
    session_id: SessionId,
    /// How many turns are queued.
    turns: usize,
    /// The time before which none of them starts; `null` if there is none.
    not_before: Option<Timestamp>,
}

/// One session.
#[derive(Serialize, JsonSchema)]
pub(crate) struct OneSession {
    session: SessionBody,
    /// The fields of the request body that were ignored because they are unknown; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    ignored: Option<Vec<String>>,
}

/// A session that was closed.
#[derive(Serialize, JsonSchema)]
pub(crate) struct ClosedSession {
    session: SessionBody,
    /// Whether its turn is still running and is interrupted as soon as possible.
    pending: bool,
}

/// The models that the app-server offers, in its own format.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ModelList")]
pub(crate) struct Models {
    models: Vec<Value>,
}

/// Lists all sessions, oldest first, or those that the query selects.
pub(crate) async fn list(State(state): State<AppState>, uri: Uri) -> Result<Response, ApiError> {
    let query: SessionQuery = parse::query_of(&uri)?;
    let sessions = query.select(state.daemon.sessions.list())?;
    let is_listed = |id: &SessionId| sessions.iter().any(|session| session.session_id == *id);
    let queued = state.daemon.sessions.queued().into_iter();
    let queued = queued
        .filter(|(session_id, ..)| is_listed(session_id))
        .map(|(session_id, turns, not_before)| QueuedSession { session_id, turns, not_before });
    let queued = queued.collect();
    let sessions = sessions.into_iter().map(|session| SessionBody::from(&*session));
    let response = LongResponse::new(StatusCode::OK, SessionList { sessions: Vec::new(), queued });
    Ok(response.with_list(&["data", "sessions"], sessions).into_response())
}

impl SessionQuery {
    fn select(&self, mut sessions: Vec<Arc<Session>>) -> Result<Vec<Arc<Session>>, ApiError> {
        if self.order == Some(Order::Newest) {
            sessions.reverse();
        }
        if let Some(after) = &self.after {
            let index = sessions.iter().position(|session| session.session_id == *after);
            let index = index.ok_or_else(|| DaemonError::UnknownSession(after.clone()))?;
            sessions.drain(..=index);
        }
        sessions.retain(|session| {
            self.status.is_none_or(|status| session.status == status)
                && self.purpose.is_none_or(|purpose| session.purpose == purpose)
                && self.archived.is_none_or(|archived| session.archived == archived)
                && self.thread_id.as_ref().is_none_or(|id| session.thread_id.as_ref() == Some(id))
                && self.metadata.iter().all(|(key, value)| session.metadata.get(key) == Some(value))
        });
        if let Some(limit) = self.limit {
            sessions.truncate(usize::try_from(limit.0).unwrap_or(usize::MAX));
        }
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
    session_id: Result<Path<SessionId>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path(session_id) = session_id.map_err(unknown_session)?;
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
    let created = OneSession { session: (&*session).into(), ignored: response::non_empty(ignored.clone()) };
    Ok(response::with_ignored_header(
        subject.attach_to(response::data(StatusCode::CREATED, created)),
        &ignored,
    ))
}

/// Changes a session: title, labels, archived or not.
pub(crate) async fn update(
    State(state): State<AppState>,
    session_id: Result<Path<SessionId>, PathRejection>,
    body: Body,
) -> Result<Response, ApiError> {
    let Path(session_id) = session_id.map_err(unknown_session)?;
    let fields = Fields::read(body, state.body_limit()).await?;
    let (UpdateSession { title, archived, metadata }, ignored) = fields.parse()?;
    let (title, metadata) = (title.map(|title| title.0), metadata.unwrap_or_default().0);
    let session =
        state.daemon.sessions.update(&session_id, SessionChanges { title, archived, metadata }).await?;
    let subject = Subject::new(&session_id, None);
    let updated = OneSession { session: (&*session).into(), ignored: response::non_empty(ignored.clone()) };
    Ok(response::with_ignored_header(subject.attach_to(response::data(StatusCode::OK, updated)), &ignored))
}

/// Closes a session; `interrupt=true` interrupts its running turn.
pub(crate) async fn close(
    State(state): State<AppState>,
    session_id: Result<Path<SessionId>, PathRejection>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let Path(session_id) = session_id.map_err(unknown_session)?;
    let query: CloseQuery = parse::query_of(&uri)?;
    let interrupt = query.interrupt.unwrap_or_default();
    let (session, pending) = state.daemon.sessions.close(&session_id, interrupt).await?;
    let closed = ClosedSession { session: (&*session).into(), pending };
    Ok(Subject::new(&session_id, None).attach_to(response::data(StatusCode::OK, closed)))
}

/// Parses the requested session, and the names of the ignored fields.
fn parse_session(fields: Fields) -> Result<(CreateSession, Vec<String>), ApiError> {
    let (body, mut ignored) = fields.parse::<bodies::CreateSession>()?;
    if body.thread_id.is_some() && body.fork_from.is_some() {
        return Err(ApiError::bad_request("Give either threadId or forkFrom, not both."));
    }
    let parameters = match (&body.thread_id, &body.fork_from) {
        (Some(_), _) => &parameters::THREAD_RESUME,
        (None, Some(_)) => &parameters::THREAD_FORK,
        (None, None) => &parameters::THREAD_START,
    };
    let mut settings = bodies::forwarded(&body);
    settings.retain(|name, _| {
        let is_passed = parameters.passed.contains(&name.as_str());
        if !is_passed {
            ignored.push(name.clone());
        }
        is_passed
    });
    let input = CreateSession {
        settings,
        purpose: body.purpose.unwrap_or_default(),
        metadata: body.metadata.unwrap_or_default().0,
        thread_id: body.thread_id,
        fork_from: body.fork_from,
        requests: RequestPolicy {
            decline: body.requests == Some(RequestHandling::Decline),
            timeout_seconds: body.request_timeout_seconds.map(|seconds| seconds.0),
        },
        trust: body.trust.map(|trust| trust.0),
        key: None,
    };
    Ok((input, ignored))
}

/// The error of a path whose IDs are not UTF-8: they belong to no session.
pub(super) fn unknown_session(_: PathRejection) -> DaemonError {
    DaemonError::UnknownSession(SessionId::new("(not UTF-8)"))
}
