//! The connection to an external app-server: a WebSocket over TCP, TLS or a Unix socket.
//!
//! One message is one text frame, as the app-server expects.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async_tls_with_config};
use tokio_util::sync::CancellationToken;

use crate::codex::listener::Listener;
use crate::codex::rpc::connection::WriterEnd;
use crate::codex::rpc::reader::{MessageReader, StreamEnd, max_response_bytes};

/// How long closing may take when the server does not read.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(250);

/// The address of an external app-server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A `ws://` or `wss://` URL; certificates are checked against public authorities.
    Url(String),
    /// The path of a Unix socket with a WebSocket server, as by `codex app-server daemon`.
    Unix(PathBuf),
}

/// A byte stream that can carry a WebSocket.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<Box<dyn Stream>>>;

/// Connects. Messages longer than `cap` bytes are skipped; one longer than any response may be ends the connection, because
/// its bytes cannot be passed over.
///
/// The error names what failed without quoting the address, which may contain a secret.
pub(crate) async fn connect(address: &Address, cap: usize) -> Result<Socket, String> {
    let (url, stream): (&str, Box<dyn Stream>) = match address {
        Address::Url(url) => (url, Box::new(connect_tcp(url).await?)),
        Address::Unix(path) => {
            let stream = UnixStream::connect(path).await;
            let failed = |error| format!("the socket {} does not answer: {error}", path.display());
            ("ws://localhost/", Box::new(stream.map_err(failed)?))
        }
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(16 * 1024)
        .max_message_size(Some(max_response_bytes(cap)))
        .max_frame_size(Some(max_response_bytes(cap)));
    match client_async_tls_with_config(url, stream, Some(config), None).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(answer)) => Err(format!("the WebSocket was refused with status {}", answer.status())),
        Err(error) => Err(format!("the WebSocket handshake failed: {error}")),
    }
}

async fn connect_tcp(url: &str) -> Result<TcpStream, String> {
    let uri: Uri = url.parse().map_err(|_| "the endpoint is not an address".to_owned())?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("wss") { 443 } else { 80 });
    let stream = TcpStream::connect((host, port)).await;
    let stream = stream.map_err(|error| format!("{host} port {port} does not answer: {error}"))?;
    // One message is one small write; waiting to fill a packet would only delay it.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// Reads messages until the socket ends.
pub(crate) async fn read<L: Listener>(
    mut socket: SplitStream<Socket>,
    reader: &mut MessageReader<L>,
    cap: usize,
) -> StreamEnd {
    let end = loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => reader.message_within(text.as_bytes(), cap),
            Some(Ok(Message::Binary(bytes))) => reader.message_within(&bytes, cap),
            Some(Ok(Message::Close(frame))) => {
                let code = frame.map_or_else(String::new, |frame| format!(" with code {}", frame.code));
                break StreamEnd::new("websocket.close", format!("it closed the WebSocket{code}"));
            }
            // The WebSocket library answers pings.
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                break StreamEnd::new("websocket.error", format!("the WebSocket failed: {error}"));
            }
            None => break StreamEnd::new("websocket.end", "the WebSocket ended"),
        }
        reader.wait_for_capacity().await;
    };
    reader.close(&end.message);
    end
}

/// Sends lines, one per frame, until `close` is cancelled or the socket fails.
pub(crate) async fn write(
    mut socket: SplitSink<Socket, Message>,
    mut lines: mpsc::UnboundedReceiver<Vec<u8>>,
    close: CancellationToken,
) -> WriterEnd {
    loop {
        let line = tokio::select! {
            line = lines.recv() => line,
            () = close.cancelled() => None,
        };
        // The lines are JSON that we encoded, so they are UTF-8.
        let Some(Ok(line)) = line.map(String::from_utf8) else { break };
        // A server that does not read must not delay the closing of the connection.
        let sent = tokio::select! {
            sent = socket.send(Message::text(line)) => sent,
            () = close.cancelled() => break,
        };
        if let Err(error) = sent {
            return WriterEnd::Failed(format!("the WebSocket failed: {error}"));
        }
    }
    match tokio::time::timeout(CLOSE_TIMEOUT, socket.close()).await {
        Ok(Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed)) => WriterEnd::Closed,
        Ok(Err(error)) => WriterEnd::CloseFailed(format!("the WebSocket failed: {error}")),
        Err(_) => WriterEnd::CloseFailed(format!("nothing was read within {} ms", CLOSE_TIMEOUT.as_millis())),
    }
}
