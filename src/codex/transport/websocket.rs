//! The connection to an external app-server: a WebSocket over TCP, TLS or a Unix socket.
//!
//! One message is one text frame, as the app-server expects.

use std::io;
use std::path::{Path, PathBuf};
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
use crate::codex::process::limits::POOL;
use crate::codex::rpc::connection::WriterEnd;
use crate::codex::rpc::reader::{MessageReader, StreamEnd, max_response_bytes};

/// The longest path of a Unix socket that every system takes, in bytes: macOS has 104 with the final zero, Linux 108.
const MAX_SOCKET_PATH_BYTES: usize = 103;
/// How long the resolution of a longer path may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
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

/// The URL of the WebSocket at a Unix socket; the app-server has only one.
pub(crate) const SOCKET_URL: &str = "ws://localhost/";

/// A byte stream that can carry a WebSocket.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<Box<dyn Stream>>>;

/// Connects. Messages longer than `cap` bytes are skipped; one longer than any response may be ends the connection, because
/// its bytes cannot be passed over.
///
/// The error names what failed without quoting the address, which may contain a secret.
pub(crate) async fn connect(address: &Address, cap: usize) -> Result<Socket, String> {
    match address {
        Address::Url(url) => open(url, Box::new(connect_tcp(url).await?), cap).await,
        Address::Unix(path) => {
            let stream = connect_unix(path).await;
            let failed = |error| format!("the socket {} does not answer: {error}", path.display());
            open(SOCKET_URL, Box::new(stream.map_err(failed)?), cap).await
        }
    }
}

/// Connects to a Unix socket. Codex's control socket is a symbolic link to a path that is short enough for the system,
/// so a path that is too long is resolved first.
pub(crate) async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    if path.as_os_str().len() <= MAX_SOCKET_PATH_BYTES {
        return UnixStream::connect(path).await;
    }
    let long = path.to_owned();
    #[expect(clippy::disallowed_methods, reason = "it runs on a thread of the pool")]
    let resolved = POOL.run(RESOLVE_TIMEOUT, move || long.canonicalize()).await;
    let unanswered = |unanswered| io::Error::other(format!("its directory {unanswered}"));
    UnixStream::connect(resolved.map_err(unanswered)??).await
}

/// Opens the WebSocket of `url` on a connection.
pub(crate) async fn open(url: &str, stream: Box<dyn Stream>, cap: usize) -> Result<Socket, String> {
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
            Some(Ok(Message::Text(text))) => reader.message_within(&text.into(), cap),
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
