//! `GET /v1/codexd/requests`, `GET` and `POST /v1/codexd/requests/:request_id`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value};

use super::body::Fields;
use super::error::ApiError;
use super::{Handle, answer};
use crate::daemon::{DaemonError, RequestAnswer};
use crate::state::Request;

#[derive(Serialize)]
struct One {
    request: Arc<Request>,
}

/// The requests: those that wait first.
pub(super) async fn list(State(edge): State<Handle>, uri: Uri) -> Response {
    #[derive(Serialize)]
    struct Requests {
        requests: Vec<Arc<Request>>,
    }
    let query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let session_id = query.filter(|(name, _)| name == "sessionId").map(|(_, value)| value).last();
    let session_id = session_id.as_deref().map(str::trim).filter(|session_id| !session_id.is_empty());
    answer::data(StatusCode::OK, Requests { requests: edge.daemon.requests(session_id) })
}

/// One request.
pub(super) async fn read(
    State(edge): State<Handle>,
    request_id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let request = edge.daemon.request(&name(request_id)?)?;
    Ok(answer::data(StatusCode::OK, One { request }))
}

/// Answers one request.
pub(super) async fn respond(
    State(edge): State<Handle>,
    request_id: Result<Path<String>, PathRejection>,
    body: Body,
) -> Result<Response, ApiError> {
    let request_id = name(request_id)?;
    let given = parse(Fields::read(body).await?)?;
    let request = edge.daemon.answer_request(&request_id, given).await?;
    Ok(answer::data(StatusCode::OK, One { request }))
}

/// The answer that a client gives: a decision, or a whole result.
pub(super) fn parse(mut fields: Fields) -> Result<RequestAnswer, ApiError> {
    match (fields.any("decision"), fields.any("result")) {
        (Some(decision), None) => Ok(RequestAnswer::Decision(decision)),
        (None, Some(result @ Value::Object(_))) => Ok(RequestAnswer::Result(result)),
        (None, Some(_)) => Err(ApiError::bad_request("result must be an object.")),
        (Some(_), Some(_)) => Err(ApiError::bad_request("Give either decision or result, not both.")),
        (None, None) => {
            Err(ApiError::bad_request("An answer needs decision, one of those offered, or a whole result."))
        }
    }
}

/// The answer in a message that is already read.
pub(super) fn parse_message(message: Map<String, Value>) -> Result<RequestAnswer, ApiError> {
    parse(Fields::from(message))
}

fn name(request_id: Result<Path<String>, PathRejection>) -> Result<String, ApiError> {
    // A name that is not even text is the name of no request.
    let name = request_id.map(|Path(request_id)| request_id);
    name.map_err(|_| DaemonError::UnknownRequest("(not UTF-8)".to_owned()).into())
}
