//! A single connection on which a test sends exact bytes and reads one response after the other.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::http::Target;
use crate::support::wait::DEADLINE;

/// A TCP connection to a daemon.
pub(super) struct RawConnection {
    pub(super) stream: TcpStream,
    received: Vec<u8>,
}

/// A response as received, unchecked.
#[derive(Debug)]
pub(super) struct RawResponse {
    pub(super) status: u16,
    /// From the status line to the empty line.
    pub(super) head: String,
    pub(super) body: String,
}

impl RawResponse {
    /// Whether the head has this line; the case is ignored.
    pub(super) fn has_line(&self, line: &str) -> bool {
        self.head.lines().any(|other| other.eq_ignore_ascii_case(line))
    }

    /// Asserts an error response with this status and code.
    pub(super) fn assert_error(&self, status: u16, code: &str) {
        let json: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        assert_eq!((self.status, json["error"].as_str()), (status, Some(code)), "{self:?}");
    }
}

impl RawConnection {
    /// Connects.
    pub(super) async fn connect(target: &(impl Target + ?Sized)) -> Self {
        let stream = TcpStream::connect(target.authority()).await.unwrap();
        Self { stream, received: Vec::new() }
    }

    /// Connects with a receive buffer of about this many bytes.
    pub(super) async fn connect_with_receive_buffer(
        target: &(impl Target + ?Sized),
        bytes: u32,
    ) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(bytes)?;
        let stream = socket.connect(target.authority().parse().unwrap()).await?;
        Ok(Self { stream, received: Vec::new() })
    }

    /// Sends these bytes; a failed write shows in what the test reads next.
    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// The next response; its body is read when it has a content length.
    pub(super) async fn response(&mut self) -> RawResponse {
        let response = tokio::time::timeout(DEADLINE, self.read_response()).await;
        let response =
            response.unwrap_or_else(|_| panic!("no complete response; received {:?}", self.received_text()));
        response.unwrap_or_else(|error| {
            panic!("no complete response: {error}; received {:?}", self.received_text())
        })
    }

    /// Reads until the daemon closes the connection in any way; returns all that was not returned before.
    pub(super) async fn read_to_end(&mut self) -> String {
        let read = async { while self.read().await.is_ok() {} };
        let closed = tokio::time::timeout(DEADLINE * 3, read).await;
        assert!(closed.is_ok(), "the connection is still open; received {:?}", self.received_text());
        self.received_text()
    }

    async fn read_response(&mut self) -> io::Result<RawResponse> {
        let end = loop {
            match memchr::memmem::find(&self.received, b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => self.read().await?,
            }
        };
        let head = String::from_utf8(self.received.drain(..end).collect()).unwrap();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status in {head:?}"));
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
        });
        let length = length.unwrap_or_default();
        while self.received.len() < length {
            self.read().await?;
        }
        let body = String::from_utf8(self.received.drain(..length).collect()).unwrap();
        Ok(RawResponse { status, head, body })
    }

    async fn read(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.received).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    fn received_text(&self) -> String {
        String::from_utf8_lossy(&self.received).into_owned()
    }
}

/// The head of a request without a body; `lines` are more header lines, each with its line end.
pub(super) fn head(target: &(impl Target + ?Sized), first: &str, lines: &str) -> String {
    format!("{first} HTTP/1.1\r\nHost: {}\r\n{lines}\r\n", target.authority())
}

/// The header lines of a WebSocket handshake.
pub(super) const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
