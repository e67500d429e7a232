//! The event stream in its three transports: WebSocket, server-sent events, and pages of JSON.
//!
//! All three read the same log by cursor and with the same filters. Invariant: an event is never omitted without
//! notice.

mod feed;
mod filter;
mod json;
mod query;
mod sse;
mod subscribers;
#[cfg(test)]
mod tests;
mod websocket;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::error::ApiError;
use super::{AppState, Credential, upgrade};
use crate::daemon::DaemonError;
use crate::http::access_log::Access;
use crate::http::content_negotiation::prefers_event_stream;
use crate::journal::{Bounds, CursorExpired, Hole};
pub(super) use json::Page;
pub(crate) use query::Query;
pub(super) use subscribers::{Subscribers, Transport};
pub(super) use websocket::CLOSE_TIMEOUT;

/// Handles `GET` of the event stream path, with the transport that the headers request.
pub(super) async fn events(State(state): State<AppState>, request: Request) -> Result<Response, ApiError> {
    if state.going_away.is_cancelled() {
        return Err(DaemonError::ShuttingDown.into());
    }
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let credential = request.extensions().get::<Credential>().and_then(|credential| credential.0);
    if upgrade::is_asked_for(request.headers()) {
        // A browser hides the status of a failed handshake from its page, so an invalid query is reported over the
        // stream.
        let access = request.extensions().get::<Arc<Access>>().cloned();
        let slot = websocket::WebSocketSlot::take(&state)?;
        let (response, upgrade) = upgrade::accept(request)?;
        let sockets = state.sockets.clone();
        sockets.spawn(websocket::serve(slot, upgrade, query, credential, access));
        return Ok(response);
    }
    let query = query.map_err(ApiError::bad_request)?;
    if prefers_event_stream(request.headers()) {
        return sse::answer(state, query, request.headers(), credential);
    }
    json::answer(&state, &query).await
}

/// The notice for a client that reaches events which are missing from the log; its `cursor` continues right after them.
fn lost(bounds: &Bounds, hole: Hole) -> Value {
    let mut gap = gap(bounds, CursorExpired::Lost);
    gap["cursor"] = bounds.cursor(hole.through).into();
    gap["lostFrom"] = hole.from.into();
    gap["lostThrough"] = hole.through.into();
    gap
}

/// The notice for a client whose cursor has expired.
fn gap(bounds: &Bounds, gone: CursorExpired) -> Value {
    json!({
        "reason": gone.as_str(),
        "epoch": bounds.epoch,
        "oldest": bounds.oldest,
        "latest": bounds.latest,
        "cursor": bounds.cursor(bounds.latest),
    })
}
