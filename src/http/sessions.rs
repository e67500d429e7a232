//! `GET` and `POST /v1/codexd/sessions`, `GET /v1/codexd/sessions/:session_id`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Serialize;
use serde_json::Map;

use super::body::{Fields, pass, request_key};
use super::error::ApiError;
use super::{Handle, answer};
use crate::daemon::{CreateSession, DaemonError};
use crate::state::{Purpose, RequestPolicy, Session};

/// All sessions, oldest first.
pub(super) async fn list(State(edge): State<Handle>) -> Response {
    #[derive(Serialize)]
    struct Sessions {
        sessions: Vec<Arc<Session>>,
    }
    answer::data(StatusCode::OK, Sessions { sessions: edge.daemon.sessions() })
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
    for name in ["approvalPolicy", "sandbox"] {
        pass(&mut settings, name, fields.any(name));
    }
    for name in [
        "baseInstructions",
        "cwd",
        "developerInstructions",
        "model",
        "modelProvider",
        "personality",
        "serviceTier",
    ] {
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
    let ephemeral = fields.flag("ephemeral")?;
    if thread_id.is_none() {
        // A resumed thread is what it was; thread/resume takes no such word.
        pass(&mut settings, "ephemeral", ephemeral);
    }
    Ok(CreateSession {
        purpose,
        metadata: fields.labels("metadata")?,
        thread_id,
        settings,
        requests,
        key: None,
    })
}
