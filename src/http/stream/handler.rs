//! The handler of the event stream: selects the transport by the headers of the request. Stateless.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use super::query::StreamQuery;
use super::{json, sse, websocket};
use crate::daemon::DaemonError;
use crate::http::access_log::Access;
use crate::http::app_state::AppState;
use crate::http::auth::Credential;
use crate::http::content_negotiation::prefers_event_stream;
use crate::http::error::ApiError;
use crate::http::upgrade;

/// Handles `GET` of the event stream path, in the transport that the headers select.
pub(crate) async fn events(State(state): State<AppState>, request: Request) -> Result<Response, ApiError> {
    if state.shutdown.is_cancelled() {
        return Err(DaemonError::ShuttingDown.into());
    }
    let query = StreamQuery::parse(request.uri().query().unwrap_or_default());
    let credential = request.extensions().get::<Credential>().copied();
    if upgrade::is_requested(request.headers()) {
        // A browser hides the status of a failed handshake from its page, so an invalid query is reported over the
        // stream.
        let access = request.extensions().get::<Arc<Access>>().cloned();
        let slot = websocket::WebSocketSlot::take(&state)?;
        let (response, upgrade) = upgrade::accept(request)?;
        let tasks = state.websocket_tasks.clone();
        tasks.spawn(websocket::serve(slot, upgrade, query, credential, access));
        return Ok(response);
    }
    let query = query.map_err(ApiError::bad_request)?;
    if prefers_event_stream(request.headers()) {
        return sse::respond(state, query, request.headers(), credential);
    }
    json::respond(&state, &query).await
}
