//! The handler of calls to the app-server. Stateless.

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::daemon::{CallRequest, CallResult};
use crate::http::access_log::Subject;
use crate::http::app_state::AppState;
use crate::http::bodies::CallAppServer;
use crate::http::body::Fields;
use crate::http::error::ApiError;
use crate::http::response;
use crate::ids::TurnId;

/// The result of a call.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Called {
    /// The result, in the format of the app-server.
    result: Value,
    /// The turn of the session that the call began, if it began one.
    #[serde(skip_serializing_if = "Option::is_none")]
    turn_id: Option<TurnId>,
    /// The fields of the request body that were ignored because they are unknown; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    ignored: Option<Vec<String>>,
}

/// Calls a method of the app-server.
pub(crate) async fn call(State(state): State<AppState>, body: Body) -> Result<Response, ApiError> {
    let (body, ignored) = Fields::read(body, state.body_limit()).await?.parse::<CallAppServer>()?;
    let CallAppServer { method, params, session_id } = body;
    let session = session_id.clone();
    let request = CallRequest { method, params: params.unwrap_or_default(), session_id };
    let CallResult { result, turn_id } = state.daemon.calls.call(request).await?;
    let subject = Subject { session, turn: turn_id.clone() };
    let called = Called { result, turn_id, ignored: response::non_empty(ignored.clone()) };
    let answer = response::data(StatusCode::OK, called);
    Ok(response::with_ignored_header(subject.attach_to(answer), &ignored))
}
