//! `WS /v1/codexd/events`: the greeting, then every event, and what clients may ask on the way.

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

use super::feed::{Fed, Feed};
use super::filter::Filter;
use super::query::Query;
use crate::http::access_log::Access;
use crate::http::auth::token::Digest;
use crate::http::error::ApiError;
use crate::http::routes::requests;
use crate::http::stream::subscribers::Transport;
use crate::http::{AppState, SharedState};
use crate::journal::{Gone, Line, push_on_one_line};

/// The longest message that a client may send, in bytes.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;
/// What a socket reads at once, in bytes; every client has that much allocated.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// How much is collected before it is written, in bytes.
const WRITE_BUFFER_BYTES: usize = 64 * 1024;
/// How long the other side is given to take our close frame and to close too.
pub(in crate::http) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A query that cannot be understood.
const BAD_QUERY: CloseCode = CloseCode::Library(4400);
/// A text that is not a JSON object.
const NOT_AN_OBJECT: CloseCode = CloseCode::Library(4002);
/// A filter by a session that there is not.
const UNKNOWN_SESSION: CloseCode = CloseCode::Library(4404);
/// A client that takes nothing although there is something for it.
const TOO_SLOW: CloseCode = CloseCode::Library(4408);
/// A cursor that leads nowhere.
const CURSOR_GONE: CloseCode = CloseCode::Library(4410);

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Serves one client to its end; `credential` is the token that let it in, and `access` the line about it in the log.
pub(super) async fn serve(
    slot: WebSocketSlot,
    upgrade: OnUpgrade,
    query: Result<Query, String>,
    credential: Option<Digest>,
    access: Option<Arc<Access>>,
) {
    // The handshake fails when the client has already gone.
    let Ok(upgraded) = upgrade.await else { return };
    let state = &*slot.0;
    let most = if echoes(state) { 64 * MAX_MESSAGE_BYTES } else { MAX_MESSAGE_BYTES };
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_message_size(Some(most))
        .max_frame_size(Some(most));
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    let mut client = Client { state, socket, credential, access };
    let reason = match query {
        Ok(query) => tokio::select! {
            reason = client.serve(&query) => reason,
            // A client that does not read must not keep the daemon from stopping.
            () = state.going_away.cancelled() => CloseReason::close(CloseCode::Away, "server shutdown"),
        },
        Err(reason) => CloseReason::Close(CloseFrame { code: BAD_QUERY, reason: reason.into() }),
    };
    client.close(reason).await;
}

struct Client<'a> {
    state: &'a SharedState,
    socket: Socket,
    credential: Option<Digest>,
    access: Option<Arc<Access>>,
}

/// Why a stream ends.
enum CloseReason {
    /// We close it.
    Close(CloseFrame),
    /// The other side closed it or is gone.
    Gone,
}

impl CloseReason {
    fn close(code: CloseCode, reason: &'static str) -> Self {
        CloseReason::Close(CloseFrame { code, reason: Utf8Bytes::from_static(reason) })
    }
}

impl Client<'_> {
    async fn serve(&mut self, query: &Query) -> CloseReason {
        match self.stream_events(query).await {
            Ok(reason) => reason,
            // Nothing was taken for as long as a client may take nothing.
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::TimedOut => {
                let limit = self.state.daemon.config().limits.client_timeout;
                tracing::info!(seconds = limit.as_secs(), "closing a WebSocket whose client reads nothing");
                CloseReason::close(TOO_SLOW, "Nothing was read for too long; resume from your last cursor.")
            }
            Err(_) => CloseReason::Gone,
        }
    }

    /// Sends something, and counts it.
    async fn send(&mut self, message: Message) -> Result<(), Error> {
        self.count(message.len());
        self.socket.send(message).await
    }

    fn count(&self, bytes: usize) {
        if let Some(access) = &self.access {
            access.sent(bytes);
        }
    }

    /// Whether the token that let the client in is still the one.
    fn is_still_admitted(&self) -> impl Future<Output = bool> + Send + use<'_> {
        let (state, credential) = (self.state, self.credential);
        async move { state.guard.still_admits(credential.as_ref()).await }
    }

    /// Greets, then passes on events and answers messages until the stream ends.
    async fn stream_events(&mut self, query: &Query) -> Result<CloseReason, Error> {
        #[cfg(feature = "mutations")]
        if echoes(self.state) {
            return self.echo().await;
        }
        let Ok(filter) = Filter::of(self.state, query) else {
            return Ok(CloseReason::close(UNKNOWN_SESSION, "There is no session of this name."));
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
                Err(gone) => {
                    let gap = super::gap(&self.state.daemon.bounds(), gone);
                    if let Some(reason) = self.gap(&mut feed, query, gap, gone).await? {
                        return Ok(reason);
                    }
                }
            }
        }
        let interval = self.state.daemon.config().limits.ping_interval;
        let mut ping = tokio::time::interval_at(Instant::now() + interval, interval);
        // After a long wait for a slow client, the pings that were due meanwhile must not come all at once.
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silent = false;
        loop {
            tokio::select! {
                // In this order: what the client said counts before it is judged by its silence, and a flood of events
                // must not keep it from being heard.
                biased;
                message = self.socket.next() => {
                    silent = false;
                    match self.parse_message(message) {
                        Ok(Some(asked)) => {
                            if !self.is_still_admitted().await {
                                return Ok(token_changed());
                            }
                            let answer = reply(self.state, asked).await;
                            self.send(answer).await?;
                        }
                        Ok(None) => {}
                        Err(reason) => return Ok(reason),
                    }
                }
                _ = ping.tick() => {
                    if silent {
                        return Ok(CloseReason::Gone);
                    }
                    if !self.is_still_admitted().await {
                        return Ok(token_changed());
                    }
                    silent = !send_and_report_wait(self.socket.send(Message::Ping(Bytes::new()))).await?;
                }
                fed = feed.next() => match fed {
                    Ok(Fed::Lines(lines)) => silent &= !send_and_report_wait(self.send_events(lines)).await?,
                    Ok(Fed::Bookmark(seq)) => {
                        let cursor = bounds.cursor(seq);
                        self.send(frame(&json!({ "type": "bookmark", "cursor": cursor }))).await?;
                    }
                    Ok(Fed::Missing(hole)) => {
                        let gap = super::lost(&self.state.daemon.bounds(), hole);
                        if let Some(reason) = self.gap(&mut feed, query, gap, Gone::Lost).await? {
                            return Ok(reason);
                        }
                    }
                    Ok(Fed::Gone) => {
                        let gap = super::gap(&self.state.daemon.bounds(), Gone::Expired);
                        if let Some(reason) = self.gap(&mut feed, query, gap, Gone::Expired).await? {
                            return Ok(reason);
                        }
                    }
                    Err(error) => {
                        tracing::error!(%error, "the event log cannot be read");
                        return Ok(CloseReason::close(CloseCode::Error, "the event log cannot be read"));
                    }
                },
            }
        }
    }

    /// Sends every message back, for a test suite of the protocol that needs a server which does.
    #[cfg(feature = "mutations")]
    async fn echo(&mut self) -> Result<CloseReason, Error> {
        loop {
            match self.socket.next().await {
                Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                    self.socket.send(message).await?
                }
                other => {
                    if let Err(reason) = self.parse_message(other) {
                        return Ok(reason);
                    }
                }
            }
        }
    }

    /// Says hello; returns the number of the newest event that the greeting includes.
    async fn send_hello(&mut self) -> Result<u64, Error> {
        let status = self.state.status();
        let through = status.snapshot.through;
        let hello = json!({
            "type": "hello",
            "cursor": self.state.daemon.bounds().cursor(through),
            "recentEvents": status.snapshot.recent_events.events,
            "service": status.service,
            "snapshot": status.snapshot,
        });
        self.send(frame(&hello)).await?;
        Ok(through)
    }

    /// Says that events are missing; then either the stream ends, or it goes on from now with a new greeting.
    async fn gap(
        &mut self,
        feed: &mut Feed,
        query: &Query,
        mut gap: Value,
        gone: Gone,
    ) -> Result<Option<CloseReason>, Error> {
        gap["type"] = "gap".into();
        gap["message"] = format!("{gone}.").into();
        self.send(frame(&gap)).await?;
        if !query.resync {
            return Ok(Some(CloseReason::close(CURSOR_GONE, "The events after this cursor are gone.")));
        }
        let now = self.send_hello().await?;
        feed.jump(now);
        Ok(None)
    }

    async fn send_events(&mut self, lines: Vec<Line>) -> Result<(), Error> {
        for line in lines {
            // Lines are rendered from text, so the check of their bytes always succeeds.
            let text = Utf8Bytes::try_from(line.frame()).map_err(|error| Error::Utf8(error.to_string()))?;
            self.count(text.len());
            self.socket.feed(Message::Text(text)).await?;
        }
        self.socket.flush().await
    }

    /// What a message asks for, or why the stream ends with it.
    fn parse_message(
        &self,
        message: Option<Result<Message, Error>>,
    ) -> Result<Option<Map<String, Value>>, CloseReason> {
        let text = match message {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Binary(_))) => {
                return Err(CloseReason::close(CloseCode::Unsupported, "Only text messages are supported."));
            }
            // Pings are answered below us.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => return Ok(None),
            Some(Err(Error::Capacity(CapacityError::MessageTooLong { .. }))) => {
                return Err(CloseReason::close(CloseCode::Size, "The message is over the limit of 1 MiB."));
            }
            Some(Err(Error::Protocol(_))) => {
                return Err(CloseReason::close(
                    CloseCode::Protocol,
                    "The frames are not those of a WebSocket.",
                ));
            }
            Some(Err(Error::Utf8(_))) => {
                return Err(CloseReason::close(CloseCode::Invalid, "The text is not UTF-8."));
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(CloseReason::Gone),
        };
        match serde_json::from_str(&text) {
            Ok(Value::Object(message)) => Ok(Some(message)),
            _ => Err(CloseReason::close(NOT_AN_OBJECT, "WS payload must be a JSON object.")),
        }
    }

    /// Ends the stream so that the other side learns why.
    async fn close(mut self, reason: CloseReason) {
        // What is still on its way to a slow client stands before the close frame.
        let slow = matches!(&reason, CloseReason::Close(frame) if frame.code == TOO_SLOW);
        let limit = if slow { self.state.daemon.config().limits.client_timeout } else { CLOSE_TIMEOUT };
        let state = self.state;
        // A client that does not read must not keep the daemon from stopping.
        let stopping = async {
            state.going_away.cancelled().await;
            tokio::time::sleep(CLOSE_TIMEOUT).await;
        };
        let closing = async {
            match reason {
                CloseReason::Gone => {
                    // After a goodbye of the other side ours waits to be sent, and no other one is taken.
                    let _ = self.socket.close(None).await;
                    self.socket.flush().await?;
                }
                CloseReason::Close(reason) => {
                    self.socket.send(Message::Close(Some(reason))).await?;
                    // It is the server who ends the connection.
                    self.socket.get_mut().shutdown().await?;
                    // What the client is still sending is read and dropped: closing with unread bytes would reset
                    // the connection, and the close frame would be lost with it.
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

/// Whether messages are only sent back; never but in a codexd that is broken on purpose.
fn echoes(_edge: &SharedState) -> bool {
    #[cfg(feature = "mutations")]
    return _edge.daemon.config().mutation.as_deref() == Some("echo");
    #[cfg(not(feature = "mutations"))]
    false
}

/// What a message of a client is answered with.
async fn reply(state: &SharedState, message: Map<String, Value>) -> Message {
    match message.get("type").and_then(Value::as_str).map(str::trim) {
        Some("ping") => frame(&json!({ "type": "pong" })),
        Some("status") => {
            let status = state.status();
            frame(&json!({ "type": "status", "service": status.service, "snapshot": status.snapshot }))
        }
        Some("respond") => respond(state, message).await,
        other => {
            let name = other.filter(|name| !name.is_empty()).unwrap_or("unknown");
            let message = format!("Unsupported websocket message type: {name}.");
            frame(&json!({ "type": "error", "message": message }))
        }
    }
}

/// Answers a request of the app-server, as `POST /v1/codexd/requests/:request_id` does.
async fn respond(state: &SharedState, message: Map<String, Value>) -> Message {
    let request_id = message.get("requestId").and_then(Value::as_str).unwrap_or_default().to_owned();
    let answered = match requests::parse_message(message) {
        Ok(given) => state.daemon.answer_request(&request_id, given).await.map_err(ApiError::from),
        Err(error) => Err(error),
    };
    match answered {
        Ok(request) => frame(&json!({ "type": "responded", "request": request })),
        Err(error) => {
            let mut answer = error.to_json();
            answer["type"] = "error".into();
            answer["requestId"] = request_id.into();
            frame(&answer)
        }
    }
}

/// Sends something; returns whether that had to wait until the client took some of what is on its way.
///
/// A ping stands behind what was sent before it, so a client that takes something is there, although it may not have
/// come to the ping yet.
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

fn frame(value: &Value) -> Message {
    let mut text = Vec::new();
    push_on_one_line(&mut text, format!("{value}\n").as_bytes());
    // It was UTF-8 before, and the escapes are ASCII.
    Message::text(String::from_utf8_lossy(&text).into_owned())
}

/// The end of a client whose token is no longer the one (RFC 6455 section 7.4.1: 1008 is for policies).
fn token_changed() -> CloseReason {
    CloseReason::close(CloseCode::Policy, "The token has changed; connect again with the new one.")
}

/// One of the places that there are for WebSockets, for as long as it lives.
pub(super) struct WebSocketSlot(AppState);

impl WebSocketSlot {
    /// Takes a place, if one is free.
    pub(super) fn take(state: &AppState) -> Result<Self, ApiError> {
        let limit = state.daemon.config().service.websockets;
        let clients = &state.websocket_clients;
        let more = |count: usize| (count < limit).then_some(count + 1);
        match clients.fetch_update(Ordering::AcqRel, Ordering::Acquire, more) {
            Ok(_) => Ok(Self(Arc::clone(state))),
            Err(_) => Err(ApiError::overloaded(format!(
                "All {limit} WebSockets that codexd serves at once are open; close one, or raise --websocket-limit."
            ))),
        }
    }
}

impl Drop for WebSocketSlot {
    fn drop(&mut self) {
        self.0.websocket_clients.fetch_sub(1, Ordering::AcqRel);
    }
}
