//! The event stream as server-sent events (HTML living standard, section 9.2).
//!
//! One `SseBody` per client owns its feed and its keep-alive timer; hyper polls it as the response body. The stream ends
//! on shutdown, on an expired cursor, and when the token changes.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use futures_util::stream;
use serde_json::json;
use tokio::time::{Interval, MissedTickBehavior};

use super::feed::{Feed, FeedOutput};
use super::filter::Filter;
use super::gap::{gap_notice, lost_notice};
use super::query::StreamQuery;
use crate::http::app_state::AppState;
use crate::http::auth::Credential;
use crate::http::error::ApiError;
use crate::http::stream::subscribers::Transport;
use crate::journal::{Bounds, CursorExpired, Line};

/// The reconnection delay of a browser, in ms.
///
/// Without an empty line, like the comment below: some clients, such as httpx-sse, take one for an event without data.
const RETRY_FIELD: &str = "retry: 1000\n";
/// Keeps the connection alive.
const KEEP_ALIVE_COMMENT: &str = ":\n";

/// Streams the events after the cursor, then live; `id:` is the cursor of each event.
///
/// The stream ends when `credential`, which admitted the client, is no longer valid.
pub(super) fn respond(
    state: AppState,
    query: StreamQuery,
    headers: &HeaderMap,
    credential: Option<Credential>,
) -> Result<Response, ApiError> {
    let bounds = state.daemon.bounds();
    let filter = Filter::for_query(&state, &query)?;
    // A browser that reconnects repeats the URL, and sends its position in a header.
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()).map(str::trim);
    let after = match last.filter(|last| !last.is_empty()) {
        Some(last) => {
            Some(last.parse().map_err(|error| ApiError::bad_request(format!("Last-Event-ID: {error}.")))?)
        }
        None => query.after.clone(),
    };
    let cursor = match &after {
        None => bounds.latest,
        Some(after) => bounds
            .check(after)
            .map_err(|expired| ApiError::cursor_gone(gap_notice(&bounds, expired), expired))?,
    };
    let feed =
        Feed::new(state.daemon.follow(cursor), filter, state.subscribers.add(Transport::ServerSentEvents));
    let keep_alive = tokio::time::interval(state.daemon.config().limits.ping_interval);
    let mut body = SseBody { keep_alive, state, feed, bounds, credential };
    body.keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    body.keep_alive.reset();
    let beginning = stream::once(async { Ok::<_, Infallible>(Bytes::from_static(RETRY_FIELD.as_bytes())) });
    let rest = stream::unfold(Some(body), |body| async {
        let mut body = body?;
        match body.next().await {
            Chunk::More(text) => Some((Ok(text), Some(body))),
            Chunk::Last(text) => Some((Ok(text), None)),
            Chunk::End => None,
        }
    });
    let mut response = Response::new(Body::from_stream(stream::StreamExt::chain(beginning, rest)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Otherwise nginx collects events before it passes them on.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

struct SseBody {
    state: AppState,
    feed: Feed,
    bounds: Bounds,
    keep_alive: Interval,
    credential: Option<Credential>,
}

enum Chunk {
    More(Bytes),
    Last(Bytes),
    End,
}

impl SseBody {
    async fn next(&mut self) -> Chunk {
        loop {
            let output = tokio::select! {
                // The timer first: a flood of events must not starve it.
                biased;
                _ = self.keep_alive.tick() => {
                    if !self.state.guard.is_token_still_valid(self.credential.as_ref()).await {
                        return Chunk::End;
                    }
                    return Chunk::More(Bytes::from_static(KEEP_ALIVE_COMMENT.as_bytes()));
                }
                output = self.feed.next() => output,
                () = self.state.shutdown.cancelled() => return Chunk::End,
            };
            match output {
                Ok(FeedOutput::Lines(lines)) if lines.is_empty() => {}
                Ok(FeedOutput::Lines(lines)) => return Chunk::More(self.events(&lines)),
                Ok(FeedOutput::Bookmark(seq)) => {
                    let cursor = self.bounds.cursor(seq);
                    let data = json!({ "cursor": cursor });
                    return Chunk::More(format!("id: {cursor}\nevent: bookmark\ndata: {data}\n\n").into());
                }
                Ok(FeedOutput::Missing(hole)) => {
                    self.feed.jump(hole.through);
                    let gap = lost_notice(&self.state.daemon.bounds(), hole);
                    let cursor = self.bounds.cursor(hole.through);
                    return Chunk::More(format!("id: {cursor}\nevent: gap\ndata: {gap}\n\n").into());
                }
                Ok(FeedOutput::Expired) => {
                    let data = gap_notice(&self.state.daemon.bounds(), CursorExpired::Expired);
                    return Chunk::Last(format!("event: gap\ndata: {data}\n\n").into());
                }
                Err(error) => {
                    tracing::error!(%error, "failed to read the event log");
                    return Chunk::End;
                }
            }
        }
    }

    fn events(&self, lines: &[Line]) -> Bytes {
        let mut text = Vec::with_capacity(lines.iter().map(|line| line.len() + 64).sum());
        for line in lines {
            text.extend_from_slice(b"id: ");
            text.extend_from_slice(self.bounds.cursor(line.seq).as_bytes());
            text.extend_from_slice(b"\ndata: ");
            text.extend_from_slice(line.json());
            text.extend_from_slice(b"\n\n");
        }
        text.into()
    }
}
