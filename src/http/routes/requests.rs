//! The handlers of the requests of the app-server: list, read, answer. Stateless.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::daemon::{DaemonError, RequestAnswer};
use crate::http::app_state::AppState;
use crate::http::bodies::ANSWER_REQUEST;
use crate::http::body::Fields;
use crate::http::error::ApiError;
use crate::http::queries::REQUESTS_OF;
use crate::http::response;
use crate::state::ServerRequest;

/// One request.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "OneRequest")]
pub(crate) struct One {
    request: Arc<ServerRequest>,
    /// The fields of the request body that were ignored because they are unknown; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    ignored: Option<Vec<String>>,
}

/// The requests, open ones first.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Requests {
    requests: Vec<Arc<ServerRequest>>,
}

/// Lists the requests, open ones first.
pub(crate) async fn list(State(state): State<AppState>, uri: Uri) -> Result<Response, ApiError> {
    let session_id = REQUESTS_OF.of(uri.query());
    let session_id = session_id.as_deref().map(str::trim).filter(|session_id| !session_id.is_empty());
    if let Some(session_id) = session_id {
        state.daemon.session(session_id)?;
    }
    Ok(response::data(StatusCode::OK, Requests { requests: state.daemon.requests(session_id) }))
}

/// Returns one request.
pub(crate) async fn read(
    State(state): State<AppState>,
    request_id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let request = state.daemon.request(&decode_id(request_id)?)?;
    Ok(response::data(StatusCode::OK, One { request, ignored: None }))
}

/// Answers one request.
pub(crate) async fn respond(
    State(state): State<AppState>,
    request_id: Result<Path<String>, PathRejection>,
    body: Body,
) -> Result<Response, ApiError> {
    let request_id = decode_id(request_id)?;
    let (given, ignored) = parse(Fields::read(body, state.body_limit()).await?)?;
    let request = state.daemon.answer_request(&request_id, given).await?;
    let answered = One { request, ignored: response::non_empty(ignored.clone()) };
    Ok(response::with_ignored_header(response::data(StatusCode::OK, answered), &ignored))
}

/// Parses the answer of a client: a decision, or a complete result.
fn parse(fields: Fields) -> Result<(RequestAnswer, Vec<String>), ApiError> {
    let mut given = ANSWER_REQUEST.read(fields)?;
    let ignored = given.ignored();
    let answer = match given.take("decision") {
        Some(decision) => RequestAnswer::Decision(decision),
        // The schema requires one of the two.
        None => RequestAnswer::Result(given.take("result").unwrap_or_default()),
    };
    Ok((answer, ignored))
}

/// Parses the answer in a WebSocket message.
pub(crate) fn parse_message(message: Map<String, Value>) -> Result<RequestAnswer, ApiError> {
    // Its other fields belong to the message.
    parse(Fields::from(message)).map(|(answer, _)| answer)
}

fn decode_id(request_id: Result<Path<String>, PathRejection>) -> Result<String, ApiError> {
    // An ID that is not UTF-8 belongs to no request.
    let id = request_id.map(|Path(request_id)| request_id);
    id.map_err(|_| DaemonError::UnknownRequest("(not UTF-8)".to_owned()).into())
}
