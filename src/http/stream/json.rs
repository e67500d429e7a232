//! The event log as pages of JSON; called by the event stream handler.
//!
//! A page is rendered while the client reads it, so that many clients that request one and read nothing cost little.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::stream;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::filter::Filter;
use super::gap::{gap_notice, lost_notice};
use super::query::StreamQuery;
use crate::daemon::event;
use crate::http::app_state::AppState;
use crate::http::error::ApiError;
use crate::http::long_response::{FIRST_CHUNK_BYTES, inside_of_list, render_element, start_line};
use crate::http::response;
use crate::journal::{Bounds, Cursor, CursorExpired, Line, Next, Subscription};
use crate::state::Event;

/// The approximate maximum size of the events of a page, in bytes; one event is always included.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// How long events are filtered for one page.
const SCAN_TIMEOUT: Duration = Duration::from_secs(1);
/// How much of the log is read at once, and after how much text it is sent, in bytes.
const STEP_BYTES: usize = 32 * 1024;
/// The keys on the way to the events.
const EVENTS_PATH: [&str; 2] = ["data", "events"];

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
    let mut page = PageBody {
        filter: Filter::for_query(state, query)?,
        subscription: state.daemon.follow(after).in_steps_of(STEP_BYTES),
        state: state.clone(),
        limit: query.limit(),
        after,
        cursor: after,
        count: 0,
        bytes: 0,
        scanned: Duration::ZERO,
        is_over: false,
    };
    // With the first part it is known whether there is a page.
    let mut first = page.envelope();
    first.truncate(inside_of_list(&first, &EVENTS_PATH).unwrap_or(first.len()));
    page.fill(&mut first, FIRST_CHUNK_BYTES).await?;
    let first = Bytes::from(first);
    let body = match page.is_over {
        true => Body::from(first),
        false => {
            let rest = stream::unfold(page, |mut page| async move {
                if page.is_over {
                    return None;
                }
                let mut text = Vec::new();
                if let Err(error) = page.fill(&mut text, STEP_BYTES).await {
                    // The next page reports it.
                    tracing::debug!(?error, "a page of events ends early");
                    page.end(&mut text);
                }
                Some((Ok::<_, Infallible>(Bytes::from(text)), page))
            });
            let first = stream::once(async { Ok(first) });
            Body::from_stream(stream::StreamExt::chain(first, rest))
        }
    };
    Ok(response::json_body(StatusCode::OK, body))
}

/// A page in the making.
struct PageBody {
    state: AppState,
    subscription: Subscription,
    filter: Filter,
    /// The maximum number of events.
    limit: usize,
    /// The cursor of the request.
    after: u64,
    cursor: u64,
    count: usize,
    /// The size of the events in the log.
    bytes: usize,
    /// How long events were read and filtered.
    scanned: Duration,
    is_over: bool,
}

impl PageBody {
    /// The page without its events.
    fn envelope(&self) -> Vec<u8> {
        let Bounds { epoch, oldest, latest } = self.state.daemon.bounds();
        let cursor = format!("{epoch}-{}", self.cursor);
        let page = Page { events: Vec::new(), cursor, epoch, oldest, latest };
        response::render(StatusCode::OK, &response::Envelope::new(page)).1
    }

    /// Adds the next events, about this much text, and the end after the last one.
    async fn fill(&mut self, text: &mut Vec<u8>, bytes: usize) -> Result<(), ApiError> {
        while !self.is_over && text.len() < bytes {
            let began = Instant::now();
            let lines = self.next_lines().await?;
            self.scanned += began.elapsed();
            match lines {
                None => self.end(text),
                Some(lines) => self.add(lines, text),
            }
        }
        Ok(())
    }

    /// The next lines of the log; `None` at its end, and where the next page has to continue.
    async fn next_lines(&mut self) -> Result<Option<Vec<Line>>, ApiError> {
        if self.scanned >= SCAN_TIMEOUT {
            return Ok(None);
        }
        match self.subscription.step().await.map_err(|error| ApiError::log_unreadable(&error))? {
            Some(Next::Lines(lines)) => Ok(Some(lines)),
            // The events before the hole are a page; the next page reports the hole.
            Some(Next::Missing(_)) if self.cursor > self.after => Ok(None),
            Some(Next::Missing(hole)) => {
                let gap = lost_notice(&self.state.daemon.bounds(), hole);
                Err(ApiError::cursor_gone(gap, CursorExpired::Lost))
            }
            Some(Next::Expired) => {
                let gap = gap_notice(&self.state.daemon.bounds(), CursorExpired::Expired);
                Err(ApiError::cursor_gone(gap, CursorExpired::Expired))
            }
            None => Ok(None),
        }
    }

    fn add(&mut self, lines: Vec<Line>, text: &mut Vec<u8>) {
        for line in lines {
            if self.filter.passes(&line) {
                let is_full = self.bytes > 0 && self.bytes + line.len() > PAGE_BYTES;
                if self.count == self.limit || is_full {
                    return self.end(text);
                }
                if self.count > 0 {
                    text.push(b',');
                }
                start_line(text, EVENTS_PATH.len() + 1);
                render_element(text, &event(&line), EVENTS_PATH.len() + 1);
                self.count += 1;
                self.bytes += line.len();
            }
            self.cursor = line.seq;
        }
    }

    fn end(&mut self, text: &mut Vec<u8>) {
        if self.count > 0 {
            start_line(text, EVENTS_PATH.len());
        }
        let envelope = self.envelope();
        let at = inside_of_list(&envelope, &EVENTS_PATH).unwrap_or(envelope.len());
        text.extend_from_slice(&envelope[at..]);
        self.is_over = true;
    }
}
