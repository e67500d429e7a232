//! WebSocket framing of the event stream, byte by byte: the cases of the Autobahn test suite that apply here.
//!
//! Each table lists the frames that a client sends after the hello message, and the expected close code or reply.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::api::start_daemon;
use crate::support::daemon::Daemon;
use crate::support::http::Target;
use crate::support::wait::DEADLINE;
use crate::support::websocket::EVENTS_PATH;

const FIN: u8 = 0x80;
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

const PROTOCOL_ERROR: u16 = 1002;
const UNSUPPORTED: u16 = 1003;
const INVALID_PAYLOAD: u16 = 1007;
const TOO_BIG: u16 = 1009;

/// A masked frame of a client; `first` is its first byte.
fn frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let payload = payload.as_ref();
    let mut frame = vec![first];
    match payload.len() {
        length @ ..126 => frame.push(0x80 | u8::try_from(length).unwrap()),
        length @ ..65536 => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FIN | CLOSE, [&code.to_be_bytes(), reason].concat())
}

/// A WebSocket client that can send invalid frames.
struct FrameClient(BufReader<TcpStream>);

/// A frame from the daemon that is not an event.
#[derive(Debug, PartialEq)]
enum Received {
    Message(Value),
    Pong(Vec<u8>),
    /// The payload of the close frame, after which the daemon closes the connection without an error.
    Closed(Vec<u8>),
}

impl Received {
    fn closed(code: u16) -> Self {
        Self::Closed(code.to_be_bytes().to_vec())
    }
}

impl FrameClient {
    /// Connects and reads the hello message.
    async fn open(daemon: &Daemon) -> Self {
        let mut stream = TcpStream::connect(daemon.authority()).await.unwrap();
        let head = format!(
            "GET {EVENTS_PATH} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            daemon.authority()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut client = Self(BufReader::new(stream));
        let mut response = Vec::new();
        while !response.ends_with(b"\r\n\r\n") {
            response.push(client.0.read_u8().await.unwrap());
        }
        let response = String::from_utf8(response).unwrap();
        assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
        match client.next().await {
            Received::Message(hello) => assert_eq!(hello["type"], "hello"),
            other => panic!("{other:?} instead of the hello message"),
        }
        client
    }

    async fn send(&mut self, bytes: &[u8]) {
        // The daemon may close the connection before it has read all bytes.
        let _ = self.0.write_all(bytes).await;
    }

    /// The next frame that is not an event.
    async fn next(&mut self) -> Received {
        tokio::time::timeout(DEADLINE, self.receive()).await.expect("the daemon sends no frame")
    }

    async fn receive(&mut self) -> Received {
        loop {
            let first = self.0.read_u8().await.unwrap();
            let length = match self.0.read_u8().await.unwrap() {
                126 => u64::from(self.0.read_u16().await.unwrap()),
                127 => self.0.read_u64().await.unwrap(),
                length => u64::from(length),
            };
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            self.0.read_exact(&mut payload).await.unwrap();
            match first ^ FIN {
                TEXT => {
                    let message: Value = serde_json::from_slice(&payload).unwrap();
                    if message["type"] != "event" {
                        return Received::Message(message);
                    }
                }
                PONG => return Received::Pong(payload),
                CLOSE => {
                    let rest = self.0.read_to_end(&mut Vec::new()).await;
                    assert_eq!(rest.unwrap(), 0, "there are bytes after the close frame");
                    return Received::Closed(payload);
                }
                PING => {}
                _ => panic!("a frame that begins with {first:#x}"),
            }
        }
    }
}

/// Sends each of these on a new connection; asserts that the daemon closes it with this code.
async fn assert_closed(cases: &[(&str, Vec<Vec<u8>>, u16)]) {
    let daemon = start_daemon().await;
    for (name, frames, code) in cases {
        let mut client = FrameClient::open(&daemon).await;
        client.send(&frames.concat()).await;
        match client.next().await {
            Received::Closed(payload) => {
                assert_eq!(payload.get(..2), Some(&code.to_be_bytes()[..]), "{name}")
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    // Other connections still work.
    let mut client = FrameClient::open(&daemon).await;
    client.send(&frame(FIN | TEXT, r#"{"type":"ping"}"#)).await;
    assert_eq!(client.next().await, Received::Message(json!({ "type": "pong" })));
}

#[tokio::test]
async fn frames_that_violate_the_protocol_close_the_websocket() {
    let mut cases = vec![
        ("a frame without a mask", vec![vec![FIN | TEXT, 2, b'{', b'}']], PROTOCOL_ERROR),
        ("a ping without a mask", vec![vec![FIN | PING, 0]], PROTOCOL_ERROR),
        ("a ping of 126 bytes", vec![frame(FIN | PING, [0; 126])], PROTOCOL_ERROR),
        ("a pong of 126 bytes", vec![frame(FIN | PONG, [0; 126])], PROTOCOL_ERROR),
        ("a close frame of 126 bytes", vec![frame(FIN | CLOSE, [b'a'; 126])], PROTOCOL_ERROR),
        ("a ping in fragments", vec![frame(PING, "a"), frame(FIN, "b")], PROTOCOL_ERROR),
        ("a close frame in fragments", vec![frame(CLOSE, ""), frame(FIN, "")], PROTOCOL_ERROR),
        ("a last fragment without a first one", vec![frame(FIN | CONTINUATION, "a")], PROTOCOL_ERROR),
        ("a middle fragment without a first one", vec![frame(CONTINUATION, "a")], PROTOCOL_ERROR),
        ("a text within a text", vec![frame(TEXT, "{"), frame(FIN | TEXT, "}")], PROTOCOL_ERROR),
        ("a binary within a text", vec![frame(TEXT, "{"), frame(BINARY, "}")], PROTOCOL_ERROR),
        ("a binary message", vec![frame(FIN | BINARY, "{}")], UNSUPPORTED),
        ("a binary message in fragments", vec![frame(BINARY, "{"), frame(FIN, "}")], UNSUPPORTED),
    ];
    for bit in [0x40, 0x20, 0x10] {
        cases.push(("a reserved bit", vec![frame(FIN | bit | TEXT, "{}")], PROTOCOL_ERROR));
        cases.push(("a ping with a reserved bit", vec![frame(FIN | bit | PING, "")], PROTOCOL_ERROR));
    }
    for opcode in (0x3..0x8).chain(0xb..=0xf) {
        cases.push(("a reserved opcode", vec![frame(FIN | opcode, "")], PROTOCOL_ERROR));
    }
    assert_closed(&cases).await;
}

#[tokio::test]
async fn invalid_utf8_closes_the_websocket_in_any_fragmentation() {
    let mut cases = Vec::new();
    for wrong in [&b"\xff"[..], b"\xc3", b"\xc3\x28", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf"] {
        cases.push(("in one piece", vec![frame(FIN | TEXT, wrong)], INVALID_PAYLOAD));
        for cut in 0..=wrong.len() {
            let fragments = vec![frame(TEXT, &wrong[..cut]), frame(FIN, &wrong[cut..])];
            cases.push(("in two pieces", fragments, INVALID_PAYLOAD));
        }
    }
    cases.push(("the reason of a close frame", vec![close(1000, b"\xff")], INVALID_PAYLOAD));
    assert_closed(&cases).await;
}

#[tokio::test]
async fn message_over_the_limit_closes_the_websocket() {
    let half = vec![b'a'; 600 * 1024];
    let mut announced = vec![FIN | TEXT, 0x80 | 127];
    announced.extend((1_u64 << 40).to_be_bytes());
    announced.extend([0; 4]);
    assert_closed(&[
        ("two halves", vec![frame(TEXT, &half), frame(FIN, &half)], TOO_BIG),
        ("a length without the payload", vec![announced], TOO_BIG),
    ])
    .await;
}

#[tokio::test]
async fn close_frame_is_answered_with_its_code_or_a_protocol_error() {
    let daemon = start_daemon().await;
    let mut cases = vec![(frame(FIN | CLOSE, ""), Received::Closed(Vec::new()))];
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        cases.push((close(code, b"done"), Received::closed(code)));
    }
    for code in [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535] {
        cases.push((close(code, b""), Received::closed(PROTOCOL_ERROR)));
    }
    cases.push((frame(FIN | CLOSE, "a"), Received::closed(PROTOCOL_ERROR)));
    for (bytes, expected) in cases {
        let mut client = FrameClient::open(&daemon).await;
        client.send(&bytes).await;
        let code = match client.next().await {
            // The reason is not compared.
            Received::Closed(payload) => Received::Closed(payload[..payload.len().min(2)].to_vec()),
            other => other,
        };
        assert_eq!(code, expected, "{bytes:?}");
    }
}

#[tokio::test]
async fn fragmented_message_is_reassembled_around_control_frames() {
    let daemon = start_daemon().await;
    let mut client = FrameClient::open(&daemon).await;
    let pong = || Received::Message(json!({ "type": "pong" }));

    let fragments = [
        frame(TEXT, r#"{"type":"#),
        frame(FIN | PING, "between"),
        frame(CONTINUATION, ""),
        frame(FIN | PONG, "unsolicited"),
        frame(FIN | CONTINUATION, r#""ping"}"#),
    ];
    for at_once in [true, false] {
        match at_once {
            true => client.send(&fragments.concat()).await,
            false => {
                for byte in fragments.concat() {
                    client.send(&[byte]).await;
                }
            }
        }
        assert_eq!(client.next().await, Received::Pong(b"between".to_vec()));
        assert_eq!(client.next().await, pong());
    }

    // A character may be split between fragments.
    client.send(&[frame(TEXT, b"{\"type\":\"\xc3"), frame(FIN, b"\xa9\"}")].concat()).await;
    let unknown = json!({ "type": "error", "message": "Unsupported websocket message type: é." });
    assert_eq!(client.next().await, Received::Message(unknown));

    let long = json!({ "type": "ping", "more": "x".repeat(20_000) }).to_string();
    let mut long_fragments = frame(TEXT, "");
    long_fragments.extend(long.bytes().flat_map(|byte| frame(CONTINUATION, [byte])));
    long_fragments.extend(frame(FIN | CONTINUATION, ""));
    client.send(&long_fragments).await;
    assert_eq!(client.next().await, pong());
}

#[tokio::test]
async fn pings_are_answered_with_their_payload_or_the_newest_of_many() {
    let daemon = start_daemon().await;
    let mut client = FrameClient::open(&daemon).await;
    for length in [0, 1, 124, 125] {
        let payload = vec![0xfe; length];
        client.send(&frame(FIN | PING, &payload)).await;
        assert_eq!(client.next().await, Received::Pong(payload));
    }
    // Of several unanswered pings, only the newest one must be answered (RFC 6455, section 5.5.3).
    let mut flood: Vec<u8> =
        (0..10_000_u32).flat_map(|number| frame(FIN | PING, number.to_be_bytes())).collect();
    flood.extend(frame(FIN | TEXT, r#"{"type":"ping"}"#));
    client.send(&flood).await;
    let mut last = None;
    loop {
        match client.next().await {
            Received::Pong(payload) => last = Some(payload),
            other => {
                assert_eq!(other, Received::Message(json!({ "type": "pong" })));
                break;
            }
        }
    }
    assert_eq!(last, Some(9_999_u32.to_be_bytes().to_vec()));
}
