//! The event stream as a WebSocket: the hello message, then every event, and replies to client messages.
//!
//! One task per client owns the socket, its feed and its [`WebSocketSlot`]; the stream handler spawns it.
//!
//! Invariants: a client that reads nothing is closed after `client_timeout`, a client that neither reads nor answers
//! pings is dropped, and closing takes at most [`CLOSE_TIMEOUT`] when the daemon stops.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Bytes;
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::feed::{Feed, FeedOutput};
use super::filter::Filter;
use super::gap::{gap_notice, lost_notice};
use super::outgoing::{Outgoing, frame, text};
use super::query::StreamQuery;
use crate::http::access_log::Access;
use crate::http::app_state::{AppState, SharedState};
use crate::http::auth::Credential;
use crate::http::error::ApiError;
use crate::http::routes::requests;
use crate::http::stream::subscribers::Transport;
use crate::ids::RequestId;
use crate::journal::{CursorExpired, Line};

/// The maximum size of a client message, in bytes.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;
/// The read buffer of each socket, in bytes; allocated per client.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// How many bytes are collected before a write.
const WRITE_BUFFER_BYTES: usize = 64 * 1024;
/// How long the client may take to receive our close frame and to close too.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The query is invalid.
const BAD_QUERY: CloseCode = CloseCode::Library(4400);
/// A text message is not a JSON object.
const NOT_AN_OBJECT: CloseCode = CloseCode::Library(4002);
/// The session of the filter does not exist.
const UNKNOWN_SESSION: CloseCode = CloseCode::Library(4404);
/// The client reads nothing although events are pending.
const TOO_SLOW: CloseCode = CloseCode::Library(4408);
/// The cursor has expired or is invalid.
const CURSOR_GONE: CloseCode = CloseCode::Library(4410);

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Serves one client until its stream ends; `credential` is the token that admitted it, and `access` its line in the
/// access log.
pub(super) async fn serve(
    slot: WebSocketSlot,
    upgrade: OnUpgrade,
    query: Result<StreamQuery, String>,
    credential: Option<Credential>,
    access: Option<Arc<Access>>,
) {
    // The handshake fails if the client has closed the connection.
    let Ok(upgraded) = upgrade.await else { return };
    let state = &*slot.0;
    let max_bytes = if is_echo_enabled(state) { 64 * MAX_MESSAGE_BYTES } else { MAX_MESSAGE_BYTES };
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_message_size(Some(max_bytes))
        .max_frame_size(Some(max_bytes));
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    let mut client = Client { state, socket, outgoing: Outgoing::default(), credential, access };
    let reason = match query {
        Ok(query) => tokio::select! {
            reason = client.serve(&query) => reason,
            // A client that does not read must not delay the stop of the daemon.
            () = state.shutdown.cancelled() => CloseReason::close(CloseCode::Away, "server shutdown"),
        },
        Err(reason) => CloseReason::Close(CloseFrame { code: BAD_QUERY, reason: reason.into() }),
    };
    client.close(reason).await;
}

struct Client<'a> {
    state: &'a SharedState,
    socket: Socket,
    outgoing: Outgoing,
    credential: Option<Credential>,
    access: Option<Arc<Access>>,
}

/// Why a stream ends.
enum CloseReason {
    /// codexd closes it.
    Close(CloseFrame),
    /// The client closed it or disconnected.
    Disconnected,
}

impl CloseReason {
    fn close(code: CloseCode, reason: &'static str) -> Self {
        CloseReason::Close(CloseFrame { code, reason: Utf8Bytes::from_static(reason) })
    }
}

impl Client<'_> {
    async fn serve(&mut self, query: &StreamQuery) -> CloseReason {
        match self.stream_events(query).await {
            Ok(reason) => reason,
            // The client read nothing for `client_timeout`.
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::TimedOut => {
                let limit = self.state.daemon.config().limits.client_timeout;
                tracing::info!(seconds = limit.as_secs(), "closing a WebSocket whose client reads nothing");
                CloseReason::close(TOO_SLOW, "Nothing was read for too long; resume from your last cursor.")
            }
            Err(_) => CloseReason::Disconnected,
        }
    }

    /// Sends a text message and counts it.
    async fn send(&mut self, text: Bytes) -> Result<(), Error> {
        self.send_parts([text]).await
    }

    /// Sends a text message in parts and counts it.
    async fn send_parts<const N: usize>(&mut self, parts: [Bytes; N]) -> Result<(), Error> {
        let bytes = self.outgoing.push_message(parts);
        self.count_sent(bytes);
        self.write().await
    }

    /// Writes what is outgoing, after what tungstenite has to send.
    async fn write(&mut self) -> Result<(), Error> {
        self.socket.flush().await?;
        Ok(self.outgoing.write(self.socket.get_mut()).await?)
    }

    fn count_sent(&self, bytes: usize) {
        if let Some(access) = &self.access {
            access.count_bytes(bytes);
        }
    }

    /// Whether the token that admitted the client is still valid.
    fn is_token_still_valid(&self) -> impl Future<Output = bool> + Send + use<'_> {
        let (state, credential) = (self.state, self.credential);
        async move { state.guard.is_token_still_valid(credential.as_ref()).await }
    }

    /// Sends the hello message, then forwards events and answers messages until the stream ends.
    async fn stream_events(&mut self, query: &StreamQuery) -> Result<CloseReason, Error> {
        #[cfg(feature = "mutations")]
        if is_echo_enabled(self.state) {
            return self.echo().await;
        }
        let Ok(filter) = Filter::for_query(self.state, query) else {
            return Ok(CloseReason::close(UNKNOWN_SESSION, "Unknown session."));
        };
        let now = self.send_hello().await?;
        let bounds = self.state.daemon.bounds();
        let mut feed = Feed::new(
            self.state.daemon.follow(now),
            filter,
            self.state.subscribers.add(Transport::WebSocket),
        );
        if let Some(after) = &query.after {
            match bounds.check(after) {
                Ok(cursor) => feed.jump(cursor),
                Err(expired) => {
                    let gap = gap_notice(&self.state.daemon.bounds(), expired);
                    if let Some(reason) = self.report_gap(&mut feed, query, gap, expired).await? {
                        return Ok(reason);
                    }
                }
            }
        }
        let interval = self.state.daemon.config().limits.ping_interval;
        let mut ping = tokio::time::interval_at(Instant::now() + interval, interval);
        // After a long wait for a slow client, the missed pings must not be sent in a burst.
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silent = false;
        loop {
            tokio::select! {
                // In this order: a received message counts before the client is considered unresponsive, and a flood of events
                // must not starve the messages.
                biased;
                message = self.socket.next() => {
                    silent = false;
                    match self.parse_message(message) {
                        Ok(Some(message)) => {
                            if !self.is_token_still_valid().await {
                                return Ok(token_changed());
                            }
                            self.reply(message).await?;
                        }
                        Ok(None) => {}
                        Err(reason) => return Ok(reason),
                    }
                }
                _ = ping.tick() => {
                    if silent {
                        return Ok(CloseReason::Disconnected);
                    }
                    if !self.is_token_still_valid().await {
                        return Ok(token_changed());
                    }
                    silent = !send_and_report_wait(self.socket.send(Message::Ping(Bytes::new()))).await?;
                }
                output = feed.next() => match output {
                    Ok(FeedOutput::Lines(lines)) => silent &= !send_and_report_wait(self.send_events(lines)).await?,
                    Ok(FeedOutput::Bookmark(seq)) => {
                        let cursor = bounds.cursor(seq);
                        self.send(frame(&json!({ "type": "bookmark", "cursor": cursor }))).await?;
                    }
                    Ok(FeedOutput::Missing(hole)) => {
                        let gap = lost_notice(&self.state.daemon.bounds(), hole);
                        if let Some(reason) = self.report_gap(&mut feed, query, gap, CursorExpired::Lost).await? {
                            return Ok(reason);
                        }
                    }
                    Ok(FeedOutput::Expired) => {
                        let gap = gap_notice(&self.state.daemon.bounds(), CursorExpired::Expired);
                        if let Some(reason) = self.report_gap(&mut feed, query, gap, CursorExpired::Expired).await? {
                            return Ok(reason);
                        }
                    }
                    Err(error) => {
                        tracing::error!(%error, "failed to read the event log");
                        return Ok(CloseReason::close(CloseCode::Error, "failed to read the event log"));
                    }
                },
            }
        }
    }

    /// Echoes every message, for a WebSocket protocol test suite.
    #[cfg(feature = "mutations")]
    async fn echo(&mut self) -> Result<CloseReason, Error> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => self.send(text.into()).await?,
                Some(Ok(message @ Message::Binary(_))) => self.socket.send(message).await?,
                other => {
                    if let Err(reason) = self.parse_message(other) {
                        return Ok(reason);
                    }
                }
            }
        }
    }

    /// Sends the hello message; returns the number of the newest event that it includes.
    async fn send_hello(&mut self) -> Result<u64, Error> {
        let snapshot = self.state.snapshots.text(&self.state.daemon).map_err(io::Error::from)?;
        let cursor = self.state.daemon.bounds().cursor(snapshot.through());
        let service = text(&self.state.service()).map_err(io::Error::from)?;
        let parts = [
            format!("{{\"type\":\"hello\",\"cursor\":\"{cursor}\",\"recentEvents\":").into(),
            snapshot.recent_events.clone(),
            Bytes::from_static(b",\"service\":"),
            service,
            Bytes::from_static(b",\"snapshot\":"),
            snapshot.all.clone(),
            Bytes::from_static(b"}\n"),
        ];
        self.send_parts(parts).await?;
        Ok(snapshot.through())
    }

    /// Reports missing events; then either ends the stream, or continues with a new hello message.
    async fn report_gap(
        &mut self,
        feed: &mut Feed,
        query: &StreamQuery,
        mut gap: Value,
        expired: CursorExpired,
    ) -> Result<Option<CloseReason>, Error> {
        gap["type"] = "gap".into();
        gap["message"] = format!("{expired}.").into();
        self.send(frame(&gap)).await?;
        if !query.resyncs() {
            return Ok(Some(CloseReason::close(CURSOR_GONE, "The events after this cursor have expired.")));
        }
        let now = self.send_hello().await?;
        feed.jump(now);
        Ok(None)
    }

    async fn send_events(&mut self, lines: Vec<Line>) -> Result<(), Error> {
        let bytes = self.outgoing.push_events(lines);
        self.count_sent(bytes);
        self.write().await
    }

    /// Parses a client message; the error is why the stream ends.
    fn parse_message(
        &self,
        message: Option<Result<Message, Error>>,
    ) -> Result<Option<Map<String, Value>>, CloseReason> {
        let text = match message {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Binary(_))) => {
                return Err(CloseReason::close(CloseCode::Unsupported, "Only text messages are supported."));
            }
            // tungstenite answers pings.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => return Ok(None),
            Some(Err(Error::Capacity(CapacityError::MessageTooLong { .. }))) => {
                return Err(CloseReason::close(CloseCode::Size, "The message exceeds the limit of 1 MiB."));
            }
            Some(Err(Error::Protocol(_))) => {
                return Err(CloseReason::close(CloseCode::Protocol, "Invalid WebSocket frame."));
            }
            Some(Err(Error::Utf8(_))) => {
                return Err(CloseReason::close(CloseCode::Invalid, "The text is not UTF-8."));
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(CloseReason::Disconnected),
        };
        match serde_json::from_str(&text) {
            Ok(Value::Object(message)) => Ok(Some(message)),
            _ => Err(CloseReason::close(NOT_AN_OBJECT, "WS payload must be a JSON object.")),
        }
    }

    /// Answers a client message.
    async fn reply(&mut self, message: Map<String, Value>) -> Result<(), Error> {
        let state = self.state;
        match message.get("type").and_then(Value::as_str).map(str::trim) {
            Some("ping") => self.send(frame(&json!({ "type": "pong" }))).await,
            Some("status") => {
                let snapshot = state.snapshots.text(&state.daemon).map_err(io::Error::from)?;
                let parts = [
                    Bytes::from_static(b"{\"type\":\"status\",\"service\":"),
                    text(&state.service()).map_err(io::Error::from)?,
                    Bytes::from_static(b",\"snapshot\":"),
                    snapshot.all.clone(),
                    Bytes::from_static(b"}\n"),
                ];
                self.send_parts(parts).await
            }
            Some("respond") => {
                let only_reads = self.credential.is_some_and(|credential| credential.only_reads);
                self.send(respond(state, only_reads, message).await).await
            }
            other => {
                let name = other.filter(|name| !name.is_empty()).unwrap_or("unknown");
                let message = format!("Unsupported websocket message type: {name}.");
                self.send(frame(&json!({ "type": "error", "message": message }))).await
            }
        }
    }

    /// Closes the stream and sends the client the reason.
    async fn close(mut self, reason: CloseReason) {
        // Pending data of a slow client is sent before the close frame.
        let slow = matches!(&reason, CloseReason::Close(frame) if frame.code == TOO_SLOW);
        let limit = if slow { self.state.daemon.config().limits.client_timeout } else { CLOSE_TIMEOUT };
        let state = self.state;
        // A client that does not read must not delay the stop of the daemon.
        let stopping = async {
            state.shutdown.cancelled().await;
            tokio::time::sleep(CLOSE_TIMEOUT).await;
        };
        let closing = async {
            // A frame that was sent in part is finished, so that the close frame is understood.
            self.write().await?;
            match reason {
                CloseReason::Disconnected => {
                    // After a close frame of the client, ours is already queued, and no other is accepted.
                    let _ = self.socket.close(None).await;
                    self.socket.flush().await?;
                }
                CloseReason::Close(reason) => {
                    self.socket.send(Message::Close(Some(reason))).await?;
                    // The server closes the TCP connection.
                    self.socket.get_mut().shutdown().await?;
                    // Input is read and discarded: closing with unread bytes would reset the connection and lose the
                    // close frame.
                    let mut discarded = [0; 4096];
                    while self.socket.get_mut().read(&mut discarded).await? > 0 {}
                }
            }
            Ok::<_, Error>(())
        };
        tokio::select! {
            _ = tokio::time::timeout(limit, closing) => {}
            () = stopping => {}
        }
    }
}

/// Whether messages are only echoed; only in builds with deliberate faults.
fn is_echo_enabled(_state: &SharedState) -> bool {
    #[cfg(feature = "mutations")]
    return _state.daemon.config().mutation.as_deref() == Some("echo");
    #[cfg(not(feature = "mutations"))]
    false
}

/// Answers a request of the app-server, like `POST /v1/codexd/requests/:request_id`.
async fn respond(state: &SharedState, only_reads: bool, message: Map<String, Value>) -> Bytes {
    let request_id = RequestId::new(message.get("requestId").and_then(Value::as_str).unwrap_or_default());
    let resolved = match requests::parse_message(message) {
        Ok(_) if only_reads => Err(ApiError::only_reads()),
        Ok(answer) => state.daemon.requests.answer(&request_id, answer).await.map_err(ApiError::from),
        Err(error) => Err(error),
    };
    match resolved {
        Ok(request) => frame(&json!({ "type": "responded", "request": request })),
        Err(error) => {
            let mut reply = error.to_json();
            reply["type"] = "error".into();
            reply["requestId"] = request_id.as_str().into();
            frame(&reply)
        }
    }
}

/// Awaits a send; returns whether it had to wait for the client to read.
///
/// A ping is queued after the data before it. So a client that reads is responsive, although it may not have received the
/// ping yet.
async fn send_and_report_wait(sending: impl Future<Output = Result<(), Error>>) -> Result<bool, Error> {
    let mut sending = pin!(sending);
    let mut waited = false;
    poll_fn(|context| {
        let sent = sending.as_mut().poll(context);
        waited |= sent.is_pending();
        sent
    })
    .await?;
    Ok(waited)
}

/// The close reason for a client whose token is no longer valid (RFC 6455 section 7.4.1: 1008 is for policies).
fn token_changed() -> CloseReason {
    CloseReason::close(CloseCode::Policy, "The token has changed; connect again with the new one.")
}

/// One of the `websocket-limit` slots; released on drop.
pub(super) struct WebSocketSlot(AppState);

impl WebSocketSlot {
    /// Takes a slot, if one is free.
    pub(super) fn take(state: &AppState) -> Result<Self, ApiError> {
        let limit = state.daemon.config().http.websocket_limit;
        let clients = &state.websocket_clients;
        let mut count = clients.load(Ordering::Acquire);
        while count < limit {
            match clients.compare_exchange_weak(count, count + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(Self(Arc::clone(state))),
                Err(now) => count = now,
            }
        }
        Err(ApiError::overloaded(format!(
            "The limit of {limit} open WebSockets is reached; close one, or raise --websocket-limit."
        )))
    }
}

impl Drop for WebSocketSlot {
    fn drop(&mut self) {
        self.0.websocket_clients.fetch_sub(1, Ordering::AcqRel);
    }
}
