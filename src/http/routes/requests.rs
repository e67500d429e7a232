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
use crate::http::bodies::AnswerRequest;
use crate::http::body::Fields;
use crate::http::error::ApiError;
use crate::http::queries::RequestQuery;
use crate::http::{parse, response};
use crate::ids::RequestId;
use crate::state::ServerRequest;

/// One request.
#[derive(Serialize, JsonSchema)]
pub(crate) struct OneRequest {
    request: Arc<ServerRequest>,
    /// The fields of the request body that were ignored because they are unknown; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    ignored: Option<Vec<String>>,
}

/// The requests, open ones first.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RequestList")]
pub(crate) struct Requests {
    requests: Vec<Arc<ServerRequest>>,
}

/// Lists the requests, open ones first.
pub(crate) async fn list(State(state): State<AppState>, uri: Uri) -> Result<Response, ApiError> {
    let query: RequestQuery = parse::query_of(&uri)?;
    let session_id = query.session_id.as_ref();
    if let Some(session_id) = session_id {
        state.daemon.sessions.get(session_id)?;
    }
    Ok(response::data(StatusCode::OK, Requests { requests: state.daemon.requests.list(session_id) }))
}

/// Returns one request.
pub(crate) async fn read(
    State(state): State<AppState>,
    request_id: Result<Path<RequestId>, PathRejection>,
) -> Result<Response, ApiError> {
    let request = state.daemon.requests.get(&decode_id(request_id)?)?;
    Ok(response::data(StatusCode::OK, OneRequest { request, ignored: None }))
}

/// Answers one request.
pub(crate) async fn respond(
    State(state): State<AppState>,
    request_id: Result<Path<RequestId>, PathRejection>,
    body: Body,
) -> Result<Response, ApiError> {
    let request_id = decode_id(request_id)?;
    let (answer, ignored) = parse_answer(Fields::read(body, state.body_limit()).await?)?;
    let request = state.daemon.requests.answer(&request_id, answer).await?;
    let body = OneRequest { request, ignored: response::non_empty(ignored.clone()) };
    Ok(response::with_ignored_header(response::data(StatusCode::OK, body), &ignored))
}

/// Parses the answer of a client: a decision, or a complete result.
fn parse_answer(fields: Fields) -> Result<(RequestAnswer, Vec<String>), ApiError> {
    let (body, ignored) = fields.parse::<AnswerRequest>()?;
    let answer = match (body.decision, body.result) {
        (Some(decision), None) => RequestAnswer::Decision(decision),
        (None, Some(result)) => RequestAnswer::Result(result.into()),
        (Some(_), Some(_)) => {
            return Err(ApiError::bad_request("Give either decision or result, not both."));
        }
        (None, None) => {
            let message = "An answer needs decision, one of those offered, or a complete result.";
            return Err(ApiError::bad_request(message));
        }
    };
    Ok((answer, ignored))
}

/// Parses the answer in a WebSocket message.
pub(crate) fn parse_message(message: Map<String, Value>) -> Result<RequestAnswer, ApiError> {
    // Its other fields belong to the message.
    parse_answer(Fields::from(message)).map(|(answer, _)| answer)
}

fn decode_id(request_id: Result<Path<RequestId>, PathRejection>) -> Result<RequestId, ApiError> {
    // An ID that is not UTF-8 belongs to no request.
    let id = request_id.map(|Path(request_id)| request_id);
    id.map_err(|_| DaemonError::UnknownRequest(RequestId::new("(not UTF-8)")).into())
}
