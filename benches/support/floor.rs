//! The floor of the throughput benchmark: a relay of the same bytes without parsing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::Stream;
use crate::fake_codex::fake_codex;

/// Makes the fake app-server emit deltas, appends its output to a file and sends each line as one frame to one client;
/// returns the duration.
pub(crate) fn relay(deltas: usize) -> Duration {
    let mut child = Command::new(fake_codex())
        .arg("app-server")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::with_capacity(64 * 1024, child.stdout.take().unwrap());
    let mut call = |id: u64, method: &str, params: Value| {
        writeln!(stdin, "{}", json!({ "id": id, "method": method, "params": params })).unwrap();
    };
    let mut response = |id: u64| loop {
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let message: Value = serde_json::from_str(&line).unwrap();
        if message["id"] == id {
            return message["result"].clone();
        }
    };
    call(1, "initialize", json!({ "clientInfo": { "name": "bench", "version": "0" } }));
    response(1);
    call(2, "thread/start", json!({}));
    let thread = response(2)["thread"]["id"].clone();

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, _) = listener.accept().unwrap();
    let reader = std::thread::spawn(move || (Stream::over(client).count_deltas(), Instant::now()));
    let mut file = tempfile::tempfile().unwrap();
    let began = Instant::now();
    let input = json!([{ "type": "text", "text": format!("deltas={deltas}"), "text_elements": [] }]);
    call(3, "turn/start", json!({ "threadId": thread, "input": input }));
    relay_lines(&mut stdout, &mut file, socket);
    let (count, end) = reader.join().unwrap();
    assert_eq!(count, deltas);
    drop(stdin);
    child.wait().unwrap();
    end - began
}

fn relay_lines(source: &mut impl Read, file: &mut impl Write, mut socket: TcpStream) {
    let mut block = vec![0; 64 * 1024];
    let (mut line, mut frames, mut last) = (Vec::new(), Vec::new(), false);
    loop {
        let count = source.read(&mut block).unwrap();
        if count == 0 {
            return;
        }
        file.write_all(&block[..count]).unwrap();
        let mut rest = &block[..count];
        while let Some(newline) = memchr::memchr(b'\n', rest) {
            line.extend_from_slice(&rest[..newline]);
            rest = &rest[newline + 1..];
            last |= line.starts_with(b"{\"method\":\"turn/completed\"");
            frames.push(0x81);
            match line.len() {
                length @ 0..126 => frames.push(length as u8),
                length @ 126..65_536 => {
                    frames.push(126);
                    frames.extend_from_slice(&(length as u16).to_be_bytes());
                }
                length => {
                    frames.push(127);
                    frames.extend_from_slice(&(length as u64).to_be_bytes());
                }
            }
            frames.append(&mut line);
        }
        line.extend_from_slice(rest);
        socket.write_all(&frames).unwrap();
        frames.clear();
        if last {
            return;
        }
    }
}
