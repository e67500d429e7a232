//! The event stream over server-sent events, which reconnects and continues at its cursor.
//!
//! [`EventStream`] holds the cursor. `ask` and `follow` read it. Each event is returned once and in order, across
//! restarts of the daemon; missing events are returned as a gap.

use std::collections::VecDeque;
use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt;
use hyper::{Method, StatusCode};
use serde_json::Value;
use tokio::time::Instant;

use super::http::{ClientError, DaemonClient, STATUS_TIMEOUT, percent_encode};

/// The pause before the first attempt to reconnect; it doubles up to [`MAX_RECONNECT_PAUSE`].
const MIN_RECONNECT_PAUSE: Duration = Duration::from_millis(50);
const MAX_RECONNECT_PAUSE: Duration = Duration::from_secs(1);

/// Which events to receive.
#[derive(Debug, Clone, Default)]
pub(crate) struct EventFilter {
    /// Only events of this session.
    pub(crate) session_id: Option<String>,
    /// Only events whose type starts with one of these; empty for all.
    pub(crate) types: Vec<String>,
}

/// The next item of the stream.
#[derive(Debug)]
pub(crate) enum StreamItem {
    /// An event, as the daemon wrote it.
    Event(String),
    /// Events are missing here, for this reason; the stream continues after them.
    Gap(String),
    /// The connection was lost; the stream reconnects.
    Disconnected,
    /// The connection is back, and no event is missing.
    Reconnected,
}

/// The events after a cursor.
#[derive(Debug)]
pub(crate) struct EventStream {
    client: DaemonClient,
    filter: EventFilter,
    /// The newest event that was returned.
    cursor: String,
    connection: Option<StreamConnection>,
    /// When the connection was lost.
    disconnected_since: Option<Instant>,
    /// How long to try to reconnect; `None` for no limit.
    reconnect_limit: Option<Duration>,
    pause: Duration,
}

impl EventStream {
    /// The events after `cursor`; [`EventStream::next`] connects.
    pub(crate) fn new(
        client: &DaemonClient,
        filter: EventFilter,
        cursor: String,
        reconnect_limit: Option<Duration>,
    ) -> Self {
        Self {
            client: client.clone(),
            filter,
            cursor,
            connection: None,
            disconnected_since: None,
            reconnect_limit,
            pause: MIN_RECONNECT_PAUSE,
        }
    }

    /// Connects now, so that a failure is an error.
    pub(crate) async fn open(mut self) -> Result<Self, ClientError> {
        match self.connect().await {
            // `next` tries again and returns the gap.
            Err(ClientError::Refused { code, .. }) if code == "cursor_gone" => {}
            other => self.connection = Some(other?),
        }
        Ok(self)
    }

    /// The next item. Cancel-safe: dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<StreamItem, ClientError> {
        loop {
            let Some(connection) = &mut self.connection else {
                match self.reconnect().await? {
                    Some(item) => return Ok(item),
                    None => continue,
                }
            };
            let Some(frame) = connection.next().await else {
                self.connection = None;
                self.disconnected_since = Some(Instant::now());
                return Ok(StreamItem::Disconnected);
            };
            if let Some(cursor) = frame.id {
                self.cursor = cursor;
            }
            match frame.event.as_str() {
                "" => {
                    if self.filter.session_id.is_some() && frame.data.contains("\"session.recreated\"") {
                        // The filter applies to the thread that the session had when the stream was opened.
                        self.connection = None;
                    }
                    return Ok(StreamItem::Event(frame.data));
                }
                "gap" => {
                    self.connection = None;
                    return Ok(self.skip_gap(&serde_json::from_str(&frame.data).unwrap_or_default()));
                }
                _ => {}
            }
        }
    }

    /// Tries once to reconnect; `None` if there is nothing to return yet.
    async fn reconnect(&mut self) -> Result<Option<StreamItem>, ClientError> {
        let error = match self.connect().await {
            Ok(connection) => {
                self.connection = Some(connection);
                self.pause = MIN_RECONNECT_PAUSE;
                return Ok(self.disconnected_since.take().map(|_| StreamItem::Reconnected));
            }
            Err(error) => error,
        };
        match &error {
            ClientError::Refused { code, details, .. } if code == "cursor_gone" => {
                return Ok(Some(self.skip_gap(details)));
            }
            ClientError::Refused { code, .. }
                if !["shutting_down", "overloaded", "request_timeout"].contains(&code.as_str()) =>
            {
                return Err(error);
            }
            ClientError::Token(_) => return Err(error),
            _ => {}
        }
        let Some(since) = self.disconnected_since else {
            self.disconnected_since = Some(Instant::now());
            return Ok(Some(StreamItem::Disconnected));
        };
        if self.reconnect_limit.is_some_and(|reconnect_limit| since.elapsed() > reconnect_limit) {
            return Err(error);
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(MAX_RECONNECT_PAUSE);
        Ok(None)
    }

    async fn connect(&mut self) -> Result<StreamConnection, ClientError> {
        let mut path = format!("{}?after={}", self.client.event_stream_path, percent_encode(&self.cursor));
        if let Some(session_id) = &self.filter.session_id {
            path.push_str(&format!("&sessionId={}", percent_encode(session_id)));
        }
        for name in &self.filter.types {
            path.push_str(&format!("&type={}", percent_encode(name)));
        }
        let connect = async {
            let response = self.client.send(Method::GET, &path, Some("text/event-stream"), None).await?;
            if response.status() == StatusCode::OK {
                return Ok(StreamConnection::new(response.into_body()));
            }
            let rejection = self.client.data(response).await;
            Err(rejection
                .err()
                .unwrap_or_else(|| self.client.not_codexd("the response is no event stream".to_owned())))
        };
        let timed_out =
            |_| self.client.not_codexd(format!("no response within {} s", STATUS_TIMEOUT.as_secs()));
        tokio::time::timeout(STATUS_TIMEOUT, connect).await.map_err(timed_out)?
    }

    /// Continues after missing events: at the oldest one kept, or at the newest one if the older ones may have been
    /// returned already.
    fn skip_gap(&mut self, gap: &Value) -> StreamItem {
        let (epoch, oldest) =
            (gap["epoch"].as_str().unwrap_or_default(), gap["oldest"].as_u64().unwrap_or(1));
        let reason = match gap["reason"].as_str() {
            Some("expired") => {
                self.cursor = format!("{epoch}-{}", oldest.saturating_sub(1));
                format!("events before {oldest} are no longer kept")
            }
            reason => {
                self.cursor = gap["cursor"].as_str().unwrap_or_default().to_owned();
                match reason {
                    Some("epoch") => "the log was replaced by another one".to_owned(),
                    Some("lost") => {
                        format!("the log lost the events {} to {}", gap["lostFrom"], gap["lostThrough"])
                    }
                    _ => "the log ends before this cursor".to_owned(),
                }
            }
        };
        StreamItem::Gap(reason)
    }
}

/// The cursor of the newest event.
pub(crate) async fn newest_cursor(client: &DaemonClient) -> Result<String, ClientError> {
    // Every page names the newest event, even a page without events.
    let page = client.get(&format!("{}?limit=1", client.event_stream_path)).await?;
    let number = |name: &str| page[name].as_u64().unwrap_or(0);
    Ok(format!("{}-{}", page["epoch"].as_str().unwrap_or_default(), number("latest")))
}

/// The detail of the oldest event of these types that matches, read from the pages of the log.
pub(crate) async fn find_event(
    client: &DaemonClient,
    types: &[&str],
    matches: impl Fn(&Value) -> bool,
) -> Result<Option<Value>, ClientError> {
    let types: String = types.iter().map(|kind| format!("&type={}", percent_encode(kind))).collect();
    let mut after = String::new();
    loop {
        let page = client.get(&format!("{}?limit=1000{types}{after}", client.event_stream_path)).await?;
        let mut details = page["events"].as_array().into_iter().flatten().map(|event| &event["detail"]);
        if let Some(detail) = details.find(|detail| matches(detail)) {
            return Ok(Some(detail.clone()));
        }
        let cursor = page["cursor"].as_str().unwrap_or_default();
        let is_last = cursor.rsplit('-').next() == Some(page["latest"].to_string().as_str());
        if is_last || cursor.is_empty() {
            return Ok(None);
        }
        after = format!("&after={}", percent_encode(cursor));
    }
}

/// One frame of the stream.
#[derive(Debug, Default, PartialEq)]
struct Frame {
    id: Option<String>,
    event: String,
    data: String,
}

#[derive(Debug)]
struct StreamConnection {
    body: Body,
    parser: FrameParser,
}

impl StreamConnection {
    fn new(body: Body) -> Self {
        Self { body, parser: FrameParser::default() }
    }

    /// The next complete frame; `None` when the connection ends, for any reason.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.parser.ready.pop_front() {
                return Some(frame);
            }
            let frame = self.body.frame().await?.ok()?;
            if let Some(bytes) = frame.data_ref() {
                self.parser.push(bytes);
            }
        }
    }
}

/// Parses bytes into frames (HTML living standard, section 9.2.6, as far as codexd uses it).
#[derive(Debug, Default)]
struct FrameParser {
    /// The bytes of an incomplete line.
    line: Vec<u8>,
    frame: Frame,
    ready: VecDeque<Frame>,
}

impl FrameParser {
    fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if self.line.pop_if(|byte| *byte == b'\n').is_some() {
                let line = std::mem::take(&mut self.line);
                self.end_line(&String::from_utf8_lossy(&line));
            }
        }
    }

    fn end_line(&mut self, line: &str) {
        if line.is_empty() {
            let frame = std::mem::take(&mut self.frame);
            if !frame.data.is_empty() {
                self.ready.push_back(frame);
            }
            return;
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "id" => self.frame.id = Some(value.to_owned()),
            "event" => self.frame.event = value.to_owned(),
            "data" => self.frame.data.push_str(value),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_parser_handles_any_chunking() {
        let text = "retry: 1000\n\nid: ab-1\ndata: {\"a\":\"é\"}\n\n:\n\nid: ab-2\nevent: bookmark\ndata: {}\n\nid: ab-3\ndata: {";
        let frame = |id: &str, event: &str, data: &str| Frame {
            id: Some(id.to_owned()),
            event: event.to_owned(),
            data: data.to_owned(),
        };
        let expected = [frame("ab-1", "", "{\"a\":\"é\"}"), frame("ab-2", "bookmark", "{}")];
        for size in 1..text.len() {
            let mut parser = FrameParser::default();
            for chunk in text.as_bytes().chunks(size) {
                parser.push(chunk);
            }
            assert_eq!(parser.ready, expected, "in pieces of {size}");
        }
    }
}
