//! The event log as pages of JSON. Stateless; called by the event stream handler.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::filter::Filter;
use super::gap::{gap_notice, lost_notice};
use super::query::StreamQuery;
use crate::http::app_state::AppState;
use crate::http::error::ApiError;
use crate::http::response;
use crate::journal::{Bounds, Cursor, Next};
use crate::state::Event;

/// The approximate maximum size of the events of a page, in bytes; one event is always included.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// How long events are filtered for one page.
const SCAN_TIMEOUT: Duration = Duration::from_secs(1);

/// A page of events.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Page {
    /// Oldest first.
    #[schemars(with = "Vec<Event>")]
    events: Vec<Value>,
    /// The cursor to continue after.
    cursor: String,
    /// The epoch of the log, to which the numbers belong.
    epoch: String,
    /// The number of the oldest event in the log.
    oldest: u64,
    /// The number of the newest event.
    latest: u64,
}

/// Returns the events after the cursor, or from the oldest event; `cursor` is where to continue.
pub(super) async fn respond(state: &AppState, query: &StreamQuery) -> Result<Response, ApiError> {
    let bounds = state.daemon.bounds();
    let oldest = Cursor { epoch: None, seq: bounds.oldest - 1 };
    let after = query.after.as_ref().unwrap_or(&oldest);
    let after = bounds
        .check(after)
        .map_err(|expired| ApiError::cursor_gone(gap_notice(&bounds, expired), expired))?;
    let mut filter = Filter::for_query(state, query)?;
    let failed = |error: std::io::Error| ApiError::log_unreadable(&error);

    let mut subscription = state.daemon.follow(after);
    let mut events: Vec<Value> = Vec::new();
    let (mut cursor, mut bytes) = (after, 0);
    let began = Instant::now();
    'page: while began.elapsed() < SCAN_TIMEOUT {
        let lines = match subscription.step().await.map_err(failed)? {
            Some(Next::Lines(lines)) => lines,
            // The events before the hole are a page; the next page reports the hole.
            Some(Next::Missing(_)) if cursor > after => break,
            Some(Next::Missing(hole)) => {
                let gap = lost_notice(&state.daemon.bounds(), hole);
                return Err(ApiError::cursor_gone(gap, crate::journal::CursorExpired::Lost));
            }
            Some(Next::Expired) => {
                let bounds = state.daemon.bounds();
                let expired = crate::journal::CursorExpired::Expired;
                return Err(ApiError::cursor_gone(gap_notice(&bounds, expired), expired));
            }
            None => break,
        };
        for line in lines {
            if filter.passes(&line) {
                if events.len() == query.limit() || (bytes > 0 && bytes + line.len() > PAGE_BYTES) {
                    break 'page;
                }
                bytes += line.len();
                events.push(serde_json::from_slice(line.json()).unwrap_or_default());
            }
            cursor = line.seq;
        }
    }
    let Bounds { epoch, oldest, latest } = state.daemon.bounds();
    let page = Page { events, cursor: format!("{epoch}-{cursor}"), epoch, oldest, latest };
    Ok(response::data(StatusCode::OK, page))
}
