//! A connection by hand: byte for byte what the test says, and no more than that.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::http::Target;
use crate::support::wait::DEADLINE;

/// One connection.
pub(super) struct Wire {
    pub(super) stream: TcpStream,
    received: Vec<u8>,
}

/// An answer as it came, whatever it is.
#[derive(Debug)]
pub(super) struct WireAnswer {
    pub(super) status: u16,
    /// From the first line to the empty one.
    pub(super) head: String,
    pub(super) body: String,
}

impl WireAnswer {
    /// Whether the head has this line, in whatever case it is written.
    pub(super) fn run(&self, line: &str) -> bool {
        self.head.lines().any(|found| found.eq_ignore_ascii_case(line))
    }

    /// Asserts a failure of this status and code.
    pub(super) fn assert_error(&self, status: u16, code: &str) {
        let json: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        assert_eq!((self.status, json["error"].as_str()), (status, Some(code)), "{self:?}");
    }
}

impl Wire {
    /// Connects.
    pub(super) async fn connect(target: &(impl Target + ?Sized)) -> Self {
        let stream = TcpStream::connect(target.authority()).await.unwrap();
        Self { stream, received: Vec::new() }
    }

    /// Connects with a socket that holds about this many bytes of what is not read.
    pub(super) async fn connect_with_room(target: &(impl Target + ?Sized), bytes: u32) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(bytes)?;
        let stream = socket.connect(target.authority().parse().unwrap()).await?;
        Ok(Self { stream, received: Vec::new() })
    }

    /// Sends these bytes; whether all of them were taken is seen by what comes back.
    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// The next answer, with its body when it says how long that is.
    pub(super) async fn answer(&mut self) -> WireAnswer {
        let answer = tokio::time::timeout(DEADLINE, self.read_answer()).await;
        let answer = answer.unwrap_or_else(|_| panic!("no whole answer; so far {:?}", self.so_far()));
        answer.unwrap_or_else(|error| panic!("no whole answer: {error}; so far {:?}", self.so_far()))
    }

    /// All that still comes until the daemon closes the connection, in whatever way.
    pub(super) async fn rest(&mut self) -> String {
        let read = async { while self.read().await.is_ok() {} };
        let closed = tokio::time::timeout(DEADLINE * 3, read).await;
        assert!(closed.is_ok(), "the connection is still open; so far {:?}", self.so_far());
        self.so_far()
    }

    async fn read_answer(&mut self) -> io::Result<WireAnswer> {
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
        Ok(WireAnswer { status, head, body })
    }

    async fn read(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.received).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.received).into_owned()
    }
}

/// The head of a request without a body, with these lines besides, each with its end.
pub(super) fn head(target: &(impl Target + ?Sized), first: &str, lines: &str) -> String {
    format!("{first} HTTP/1.1\r\nHost: {}\r\n{lines}\r\n", target.authority())
}

/// The lines of a handshake.
pub(super) const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
