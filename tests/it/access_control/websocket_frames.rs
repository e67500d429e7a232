//! The frames of the event stream, byte by byte: what the Autobahn suite looks at, as far as it matters here.
//!
//! Each table says what is sent behind the greeting and what must come back.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::api::start;
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

const PROTOCOL: u16 = 1002;
const UNSUPPORTED: u16 = 1003;
const INVALID: u16 = 1007;
const TOO_BIG: u16 = 1009;

/// A frame as a client has to send it; `first` is its first byte.
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

/// A client that can send anything.
struct Wire(BufReader<TcpStream>);

/// What comes back, events left out.
#[derive(Debug, PartialEq)]
enum Back {
    Message(Value),
    Pong(Vec<u8>),
    /// The payload of the close frame, behind which the connection ends in order.
    Closed(Vec<u8>),
}

impl Back {
    fn closed(code: u16) -> Self {
        Self::Closed(code.to_be_bytes().to_vec())
    }
}

impl Wire {
    /// A connection behind its greeting.
    async fn open(daemon: &Daemon) -> Self {
        let mut stream = TcpStream::connect(daemon.authority()).await.unwrap();
        let head = format!(
            "GET {EVENTS_PATH} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            daemon.authority()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut wire = Self(BufReader::new(stream));
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(wire.0.read_u8().await.unwrap());
        }
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        match wire.back().await {
            Back::Message(hello) => assert_eq!(hello["type"], "hello"),
            other => panic!("{other:?} instead of a greeting"),
        }
        wire
    }

    async fn send(&mut self, bytes: &[u8]) {
        // The other side may end the connection before it has taken all of it.
        let _ = self.0.write_all(bytes).await;
    }

    /// The next thing that is not an event.
    async fn back(&mut self) -> Back {
        tokio::time::timeout(DEADLINE, self.receive()).await.expect("nothing comes back")
    }

    async fn receive(&mut self) -> Back {
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
                        return Back::Message(message);
                    }
                }
                PONG => return Back::Pong(payload),
                CLOSE => {
                    let rest = self.0.read_to_end(&mut Vec::new()).await;
                    assert_eq!(rest.unwrap(), 0, "something comes behind the goodbye");
                    return Back::Closed(payload);
                }
                PING => {}
                _ => panic!("a frame that begins with {first:#x}"),
            }
        }
    }
}

/// Sends each of these on a connection of its own and wants this code back.
async fn assert_closed(cases: &[(&str, Vec<Vec<u8>>, u16)]) {
    let daemon = start().await;
    for (name, frames, code) in cases {
        let mut wire = Wire::open(&daemon).await;
        wire.send(&frames.concat()).await;
        match wire.back().await {
            Back::Closed(payload) => assert_eq!(payload.get(..2), Some(&code.to_be_bytes()[..]), "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    // Nobody else was hurt.
    let mut wire = Wire::open(&daemon).await;
    wire.send(&frame(FIN | TEXT, r#"{"type":"ping"}"#)).await;
    assert_eq!(wire.back().await, Back::Message(json!({ "type": "pong" })));
}

#[tokio::test]
async fn frames_against_the_protocol_end_the_stream() {
    let mut cases = vec![
        ("a frame without a mask", vec![vec![FIN | TEXT, 2, b'{', b'}']], PROTOCOL),
        ("a ping without a mask", vec![vec![FIN | PING, 0]], PROTOCOL),
        ("a ping of 126 bytes", vec![frame(FIN | PING, [0; 126])], PROTOCOL),
        ("a pong of 126 bytes", vec![frame(FIN | PONG, [0; 126])], PROTOCOL),
        ("a goodbye of 126 bytes", vec![frame(FIN | CLOSE, [b'a'; 126])], PROTOCOL),
        ("a ping in fragments", vec![frame(PING, "a"), frame(FIN, "b")], PROTOCOL),
        ("a goodbye in fragments", vec![frame(CLOSE, ""), frame(FIN, "")], PROTOCOL),
        ("the end of nothing", vec![frame(FIN | CONTINUATION, "a")], PROTOCOL),
        ("the middle of nothing", vec![frame(CONTINUATION, "a")], PROTOCOL),
        ("a text within a text", vec![frame(TEXT, "{"), frame(FIN | TEXT, "}")], PROTOCOL),
        ("a binary within a text", vec![frame(TEXT, "{"), frame(BINARY, "}")], PROTOCOL),
        ("bytes", vec![frame(FIN | BINARY, "{}")], UNSUPPORTED),
        ("bytes in fragments", vec![frame(BINARY, "{"), frame(FIN, "}")], UNSUPPORTED),
    ];
    for bit in [0x40, 0x20, 0x10] {
        cases.push(("a reserved bit", vec![frame(FIN | bit | TEXT, "{}")], PROTOCOL));
        cases.push(("a ping with a reserved bit", vec![frame(FIN | bit | PING, "")], PROTOCOL));
    }
    for opcode in (0x3..0x8).chain(0xb..=0xf) {
        cases.push(("a reserved kind", vec![frame(FIN | opcode, "")], PROTOCOL));
    }
    assert_closed(&cases).await;
}

#[tokio::test]
async fn text_that_is_none_ends_the_stream_wherever_it_is_cut() {
    let mut cases = Vec::new();
    for wrong in [&b"\xff"[..], b"\xc3", b"\xc3\x28", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf"] {
        cases.push(("in one piece", vec![frame(FIN | TEXT, wrong)], INVALID));
        for cut in 0..=wrong.len() {
            let pieces = vec![frame(TEXT, &wrong[..cut]), frame(FIN, &wrong[cut..])];
            cases.push(("in two pieces", pieces, INVALID));
        }
    }
    cases.push(("the reason of a goodbye", vec![close(1000, b"\xff")], INVALID));
    assert_closed(&cases).await;
}

#[tokio::test]
async fn a_message_over_the_limit_ends_the_stream_however_it_comes() {
    let half = vec![b'a'; 600 * 1024];
    let mut promised = vec![FIN | TEXT, 0x80 | 127];
    promised.extend((1_u64 << 40).to_be_bytes());
    promised.extend([0; 4]);
    assert_closed(&[
        ("two halves", vec![frame(TEXT, &half), frame(FIN, &half)], TOO_BIG),
        ("one that is only promised", vec![promised], TOO_BIG),
    ])
    .await;
}

#[tokio::test]
async fn a_goodbye_is_answered_with_the_same_or_with_what_is_wrong_with_it() {
    let daemon = start().await;
    let mut cases = vec![(frame(FIN | CLOSE, ""), Back::Closed(Vec::new()))];
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        cases.push((close(code, b"goodbye"), Back::closed(code)));
    }
    for code in [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535] {
        cases.push((close(code, b""), Back::closed(PROTOCOL)));
    }
    cases.push((frame(FIN | CLOSE, "a"), Back::closed(PROTOCOL)));
    for (bytes, expected) in cases {
        let mut wire = Wire::open(&daemon).await;
        wire.send(&bytes).await;
        let code = match wire.back().await {
            // The words are free.
            Back::Closed(payload) => Back::Closed(payload[..payload.len().min(2)].to_vec()),
            other => other,
        };
        assert_eq!(code, expected, "{bytes:?}");
    }
}

#[tokio::test]
async fn a_message_is_heard_whole_whatever_comes_between_its_pieces() {
    let daemon = start().await;
    let mut wire = Wire::open(&daemon).await;
    let pong = || Back::Message(json!({ "type": "pong" }));

    let pieces = [
        frame(TEXT, r#"{"type":"#),
        frame(FIN | PING, "between"),
        frame(CONTINUATION, ""),
        frame(FIN | PONG, "nobody asked"),
        frame(FIN | CONTINUATION, r#""ping"}"#),
    ];
    for one in [true, false] {
        match one {
            true => wire.send(&pieces.concat()).await,
            false => {
                for byte in pieces.concat() {
                    wire.send(&[byte]).await;
                }
            }
        }
        assert_eq!(wire.back().await, Back::Pong(b"between".to_vec()));
        assert_eq!(wire.back().await, pong());
    }

    // A character may be cut.
    wire.send(&[frame(TEXT, b"{\"type\":\"\xc3"), frame(FIN, b"\xa9\"}")].concat()).await;
    let unknown = json!({ "type": "error", "message": "Unsupported websocket message type: é." });
    assert_eq!(wire.back().await, Back::Message(unknown));

    let long = json!({ "type": "ping", "more": "x".repeat(20_000) }).to_string();
    let mut fragments = frame(TEXT, "");
    fragments.extend(long.bytes().flat_map(|byte| frame(CONTINUATION, [byte])));
    fragments.extend(frame(FIN | CONTINUATION, ""));
    wire.send(&fragments).await;
    assert_eq!(wire.back().await, pong());
}

#[tokio::test]
async fn pings_are_answered_with_what_they_carry_also_when_there_are_many() {
    let daemon = start().await;
    let mut wire = Wire::open(&daemon).await;
    for length in [0, 1, 124, 125] {
        let payload = vec![0xfe; length];
        wire.send(&frame(FIN | PING, &payload)).await;
        assert_eq!(wire.back().await, Back::Pong(payload));
    }
    // Of several pings that wait the newest one counts (RFC 6455, section 5.5.3).
    let mut flood: Vec<u8> =
        (0..10_000_u32).flat_map(|number| frame(FIN | PING, number.to_be_bytes())).collect();
    flood.extend(frame(FIN | TEXT, r#"{"type":"ping"}"#));
    wire.send(&flood).await;
    let mut last = None;
    loop {
        match wire.back().await {
            Back::Pong(payload) => last = Some(payload),
            other => {
                assert_eq!(other, Back::Message(json!({ "type": "pong" })));
                break;
            }
        }
    }
    assert_eq!(last, Some(9_999_u32.to_be_bytes().to_vec()));
}
