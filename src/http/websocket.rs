//! `WS /v1/codexd/events`: the greeting, then every event, and what clients may ask on the way.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::error::ApiError;
use super::{Handle, Shared, upgrade};
use crate::daemon::DaemonError;
use crate::journal::{Line, Subscription};

/// The longest message that a client may send, in bytes.
const MESSAGE: usize = 1024 * 1024;
/// What a socket reads at once, in bytes; every client has that much allocated.
const READ_BUFFER: usize = 4 * 1024;
/// How much is collected before it is written, in bytes.
const WRITE_BUFFER: usize = 64 * 1024;
/// How long the other side is given to take our close frame and to close too.
const GOODBYE: Duration = Duration::from_secs(1);

/// A text that is not a JSON object.
const NOT_AN_OBJECT: CloseCode = CloseCode::Library(4002);

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Opens the event stream.
pub(super) async fn events(State(edge): State<Handle>, request: Request) -> Result<Response, ApiError> {
    if !upgrade::is_asked_for(request.headers()) {
        let url = edge.event_stream_url();
        return Err(ApiError::bad_request(format!("This is a WebSocket; connect to {url}.")));
    }
    if edge.going_away.is_cancelled() {
        return Err(DaemonError::ShuttingDown.into());
    }
    let (response, upgrade) = upgrade::accept(request)?;
    let sockets = edge.sockets.clone();
    sockets.spawn(serve(edge, upgrade));
    Ok(response)
}

/// Serves one client to its end.
async fn serve(edge: Handle, upgrade: OnUpgrade) {
    // The handshake fails when the client has already gone.
    let Ok(upgraded) = upgrade.await else { return };
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_message_size(Some(MESSAGE))
        .max_frame_size(Some(MESSAGE));
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    let _counted = Counted::new(&edge);
    let mut client = Client { edge: &edge, socket };
    let ending = tokio::select! {
        ending = client.serve() => ending,
        // A client that does not read must not keep the daemon from stopping.
        () = edge.going_away.cancelled() => Ending::close(CloseCode::Away, "server shutdown"),
    };
    client.say_goodbye(ending).await;
}

struct Client<'a> {
    edge: &'a Shared,
    socket: Socket,
}

/// Why a stream ends.
enum Ending {
    /// We close it.
    Close(CloseFrame),
    /// The other side closed it or is gone.
    Gone,
}

impl Ending {
    fn close(code: CloseCode, reason: &'static str) -> Self {
        Ending::Close(CloseFrame { code, reason: Utf8Bytes::from_static(reason) })
    }
}

impl Client<'_> {
    async fn serve(&mut self) -> Ending {
        let Ok(mut events) = self.greet().await else { return Ending::Gone };
        loop {
            let sent = tokio::select! {
                message = self.socket.next() => match self.hear(message) {
                    Ok(Some(answer)) => self.socket.send(answer).await,
                    Ok(None) => Ok(()),
                    Err(ending) => return ending,
                },
                lines = events.next() => match lines {
                    Ok(lines) => self.pass_on(lines).await,
                    Err(error) => {
                        tracing::error!(%error, "the event log cannot be read");
                        return Ending::close(CloseCode::Error, "the event log cannot be read");
                    }
                },
            };
            if sent.is_err() {
                return Ending::Gone;
            }
        }
    }

    /// Says hello; the events that follow begin right after what the greeting includes.
    async fn greet(&mut self) -> Result<Subscription, Error> {
        let status = self.edge.status();
        let events = self.edge.daemon.subscribe(status.snapshot.through);
        let hello = json!({
            "type": "hello",
            "recentEvents": status.snapshot.recent_events.events,
            "service": status.service,
            "snapshot": status.snapshot,
        });
        self.socket.send(frame(&hello)).await?;
        Ok(events)
    }

    async fn pass_on(&mut self, lines: Vec<Line>) -> Result<(), Error> {
        for line in lines {
            // Lines are rendered from text, so the check of their bytes always succeeds.
            let text = Utf8Bytes::try_from(line.frame()).map_err(|error| Error::Utf8(error.to_string()))?;
            self.socket.feed(Message::Text(text)).await?;
        }
        self.socket.flush().await
    }

    /// What a message is answered with, or why the stream ends with it.
    fn hear(&self, message: Option<Result<Message, Error>>) -> Result<Option<Message>, Ending> {
        let text = match message {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Binary(_))) => {
                return Err(Ending::close(CloseCode::Unsupported, "Only text messages are supported."));
            }
            // Pings are answered below us.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => return Ok(None),
            Some(Err(Error::Capacity(CapacityError::MessageTooLong { .. }))) => {
                return Err(Ending::close(CloseCode::Size, "The message is over the limit of 1 MiB."));
            }
            Some(Err(Error::Protocol(_))) => {
                return Err(Ending::close(CloseCode::Protocol, "The frames are not those of a WebSocket."));
            }
            Some(Err(Error::Utf8(_))) => {
                return Err(Ending::close(CloseCode::Invalid, "The text is not UTF-8."));
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(Ending::Gone),
        };
        match serde_json::from_str(&text) {
            Ok(Value::Object(message)) => Ok(Some(self.reply(message.get("type").and_then(Value::as_str)))),
            _ => Err(Ending::close(NOT_AN_OBJECT, "WS payload must be a JSON object.")),
        }
    }

    fn reply(&self, asked: Option<&str>) -> Message {
        match asked.map(str::trim) {
            Some("ping") => frame(&json!({ "type": "pong" })),
            Some("status") => {
                let status = self.edge.status();
                frame(&json!({ "type": "status", "service": status.service, "snapshot": status.snapshot }))
            }
            other => {
                let name = other.filter(|name| !name.is_empty()).unwrap_or("unknown");
                let message = format!("Unsupported websocket message type: {name}.");
                frame(&json!({ "type": "error", "message": message }))
            }
        }
    }

    /// Ends the stream so that the other side learns why.
    async fn say_goodbye(mut self, ending: Ending) {
        let goodbye = async {
            match ending {
                Ending::Gone => self.socket.close(None).await?,
                Ending::Close(reason) => {
                    self.socket.send(Message::Close(Some(reason))).await?;
                    // What the client is still sending is read and dropped: closing with unread bytes would reset
                    // the connection, and the close frame would be lost with it.
                    let mut scrap = [0; 4096];
                    while self.socket.get_mut().read(&mut scrap).await? > 0 {}
                }
            }
            Ok::<_, Error>(())
        };
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    }
}

fn frame(value: &Value) -> Message {
    Message::text(format!("{value}\n"))
}

/// Counts a client for as long as it is there.
struct Counted<'a>(&'a Shared);

impl<'a> Counted<'a> {
    fn new(edge: &'a Shared) -> Self {
        edge.websocket_clients.fetch_add(1, Ordering::Relaxed);
        Self(edge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.websocket_clients.fetch_sub(1, Ordering::Relaxed);
    }
}
