//! Minimal clients, so that the benchmarks measure the daemon and not the client.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::daemon::Daemon;

/// A client with one keep-alive connection.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    authority: String,
}

impl Client {
    pub(crate) fn connect(daemon: &Daemon) -> Self {
        let stream = TcpStream::connect(&daemon.authority).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream), authority: daemon.authority.clone() }
    }

    /// Creates a session, with an idempotency key if one is given, and returns its ID.
    pub(crate) fn session(&mut self, key: Option<&str>) -> String {
        let body = json!({ "purpose": "smoke" }).to_string();
        let answer = self.request("POST", "/v1/codexd/sessions", key, &body);
        answer["data"]["session"]["sessionId"].as_str().unwrap().to_owned()
    }

    /// Submits a turn, with an idempotency key if one is given, and returns its ID.
    pub(crate) fn turn(&mut self, session: &str, input: &str, key: Option<&str>) -> String {
        let body = json!({ "sessionId": session, "input": input }).to_string();
        let answer = self.request("POST", "/v1/codexd/turn", key, &body);
        answer["data"]["turnId"].as_str().expect("the turn was rejected").to_owned()
    }

    pub(crate) fn get(&mut self, path: &str) -> Value {
        self.request("GET", path, None, "")
    }

    fn request(&mut self, method: &str, path: &str, key: Option<&str>, body: &str) -> Value {
        let key = key.map(|key| format!("Idempotency-Key: {key}\r\n")).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{key}Content-Length: {}\r\n\r\n{body}",
            self.authority,
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).unwrap();
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        serde_json::from_slice(&body).unwrap()
    }
}

/// An event stream that splits frames and does not parse them.
pub(crate) struct Stream {
    stream: BufReader<TcpStream>,
    frame: Vec<u8>,
}

impl Stream {
    pub(crate) fn connect(daemon: &Daemon) -> Self {
        let mut stream = TcpStream::connect(&daemon.authority).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(Self::handshake(daemon).as_bytes()).unwrap();
        let mut stream = Self::over(stream);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            stream.stream.read_line(&mut line).unwrap();
        }
        assert!(memchr::memmem::find(stream.next(), b"\"hello\"").is_some());
        stream
    }

    /// The request that opens a WebSocket.
    pub(crate) fn handshake(daemon: &Daemon) -> String {
        format!(
            "GET /v1/codexd/events HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            daemon.authority
        )
    }

    /// Reads frames from a connection without a handshake.
    pub(crate) fn over(stream: TcpStream) -> Self {
        Self { stream: BufReader::with_capacity(256 * 1024, stream), frame: Vec::new() }
    }

    /// Counts the deltas up to the end of the turn.
    pub(crate) fn count_deltas(&mut self) -> usize {
        let mut count = 0;
        loop {
            let frame = self.next();
            let head = &frame[..frame.len().min(160)];
            // The raw relay sends the method name, the daemon the event type.
            let has = |needle: &[u8]| memchr::memmem::find(head, needle).is_some();
            if has(b"message.delta\"") || has(b"agentMessage/delta\"") {
                count += 1;
            } else if has(b"app-server.turn.completed\"") || has(b"\"turn/completed\"") {
                return count;
            }
        }
    }

    /// Reads the next frame with text, and answers pings.
    fn next(&mut self) -> &[u8] {
        loop {
            let opcode = self.read_frame();
            if opcode != 9 {
                return &self.frame;
            }
            // Masked with zeros, as a client must.
            let mut pong = vec![0x8a, 0x80 | self.frame.len() as u8, 0, 0, 0, 0];
            pong.extend_from_slice(&self.frame);
            self.stream.get_mut().write_all(&pong).unwrap();
        }
    }

    /// Reads a frame and returns its opcode.
    fn read_frame(&mut self) -> u8 {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).unwrap();
        let length = match head[1] & 0x7f {
            126 => {
                let mut length = [0; 2];
                self.stream.read_exact(&mut length).unwrap();
                usize::from(u16::from_be_bytes(length))
            }
            127 => {
                let mut length = [0; 8];
                self.stream.read_exact(&mut length).unwrap();
                u64::from_be_bytes(length) as usize
            }
            length => usize::from(length),
        };
        self.frame.resize(length, 0);
        self.stream.read_exact(&mut self.frame).unwrap();
        head[0] & 0x0f
    }
}
