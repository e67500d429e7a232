//! The event stream in its three forms: WebSocket, server-sent events, and pages of JSON.
//!
//! All three read the same log by cursor and with the same filters; none of them ever leaves an event out without
//! saying so.

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
use crate::journal::{Bounds, Gone, Hole};
pub(super) use json::Page;
pub(crate) use query::Query;
pub(super) use subscribers::{Subscribers, Transport};
pub(super) use websocket::CLOSE_TIMEOUT;

/// `GET` of the event stream's path, in the form that the headers ask for.
pub(super) async fn events(State(state): State<AppState>, request: Request) -> Result<Response, ApiError> {
    if state.going_away.is_cancelled() {
        return Err(DaemonError::ShuttingDown.into());
    }
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let credential = request.extensions().get::<Credential>().and_then(|credential| credential.0);
    if upgrade::is_asked_for(request.headers()) {
        // A browser does not tell its page the status of a failed handshake, so a wrong query is answered over the
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

/// What a client is told that comes to events which the log has lost; `cursor` goes on right behind them.
fn lost(bounds: &Bounds, hole: Hole) -> Value {
    let mut gap = gap(bounds, Gone::Lost);
    gap["cursor"] = bounds.cursor(hole.through).into();
    gap["lostFrom"] = hole.from.into();
    gap["lostThrough"] = hole.through.into();
    gap
}

/// What a client is told whose cursor leads nowhere.
fn gap(bounds: &Bounds, gone: Gone) -> Value {
    json!({
        "reason": gone.as_str(),
        "epoch": bounds.epoch,
        "oldest": bounds.oldest,
        "latest": bounds.latest,
        "cursor": bounds.cursor(bounds.latest),
    })
}
