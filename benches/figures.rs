//! How fast the daemon starts and takes turns, and what it costs to leave running.
//!
//! `cargo bench --bench figures` prints, for the release build with the embedded app-server: the time from spawn to the
//! first 200 of `/healthz`, the resident memory when idle, the time of `POST /v1/codexd/turn` (50th and 99th percentile),
//! and the time from sending a turn with ten deltas to its completion on the event stream.
//! Every figure is a median of several runs.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark that cannot go on has nothing to tell"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{self, Message};

const STARTS: usize = 15;
const TURNS: usize = 300;

fn main() {
    // `cargo test --benches` and the like only want to know that it builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let mut starts: Vec<_> = (0..STARTS).map(|_| start_once()).collect();
    println!("spawn to first 200 of /healthz   {:8.2} ms (median of {STARTS})", ms(median(&mut starts)));

    let daemon = Daemon::start();
    daemon.wait_ready();
    std::thread::sleep(Duration::from_secs(2));
    println!("idle RSS                         {:8.2} MB", daemon.rss_kib() as f64 / 1024.0);

    let mut client = Client::connect(&daemon);
    let session = client.post("/v1/codexd/sessions", &json!({ "purpose": "smoke" }));
    let session = session["data"]["session"]["sessionId"].as_str().unwrap().to_owned();
    let mut events = daemon.events();
    let (mut posts, mut turns) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let began = Instant::now();
        let answer =
            client.post("/v1/codexd/turn", &json!({ "sessionId": session, "input": "hello deltas=10" }));
        posts.push(began.elapsed());
        let turn = answer["data"]["turnId"].as_str().expect("the turn is accepted");
        wait_for_end(&mut events, turn);
        turns.push(began.elapsed());
    }
    println!("POST /turn p50                   {:8.2} ms ({TURNS} turns)", ms(median(&mut posts)));
    println!("POST /turn p99                   {:8.2} ms", ms(percentile(&mut posts, 99)));
    println!("turn with ten deltas, end to end {:8.2} ms (median)", ms(median(&mut turns)));
    println!("RSS after {TURNS} turns              {:8.2} MB", daemon.rss_kib() as f64 / 1024.0);
    let size = std::fs::metadata(env!("CARGO_BIN_EXE_codexd")).unwrap().len();
    println!("size of the stripped binary      {:8.2} MB", size as f64 / 1e6);
}

fn start_once() -> Duration {
    let began = Instant::now();
    let daemon = Daemon::start();
    daemon.wait_healthy();
    began.elapsed()
}

fn wait_for_end(events: &mut tungstenite::WebSocket<TcpStream>, turn: &str) {
    loop {
        let Message::Text(text) = events.read().unwrap() else { continue };
        if text.contains("\"app-server.turn.completed\"") && text.contains(turn) {
            return;
        }
    }
}

struct Daemon {
    process: Child,
    authority: String,
    _folder: tempfile::TempDir,
}

impl Daemon {
    /// On a free port; it is known before the daemon says so, so that the start is measured from the outside.
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_codexd"))
            .args(["start", "--local-api-base", &format!("http://{free}")])
            .args(["--repo-root", folder.path().to_str().unwrap()])
            .args(["--server-command", env!("CARGO_BIN_EXE_codexd")])
            .args(["--server-arg", "embedded-app-server"])
            .env("BAA_CODEXD_LOG", "error")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, authority: free.to_string(), _folder: folder }
    }

    fn wait_healthy(&self) {
        while !self.healthz().is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn wait_ready(&self) {
        while !self.healthz().is_some_and(|answer| answer.contains("\"ready\": true")) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn healthz(&self) -> Option<String> {
        let mut stream = TcpStream::connect(&self.authority).ok()?;
        write!(stream, "GET /healthz HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.authority)
            .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    fn events(&self) -> tungstenite::WebSocket<TcpStream> {
        let stream = TcpStream::connect(&self.authority).unwrap();
        stream.set_nodelay(true).unwrap();
        let url = format!("ws://{}/v1/codexd/events", self.authority);
        tungstenite::client(url, stream).unwrap().0
    }

    fn rss_kib(&self) -> u64 {
        let output = Command::new("ps").args(["-o", "rss=", "-p", &self.process.id().to_string()]).output();
        String::from_utf8(output.unwrap().stdout).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status();
        let _ = self.process.wait();
    }
}

/// One connection that is kept open.
struct Client {
    stream: BufReader<TcpStream>,
    authority: String,
}

impl Client {
    fn connect(daemon: &Daemon) -> Self {
        let stream = TcpStream::connect(&daemon.authority).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream), authority: daemon.authority.clone() }
    }

    fn post(&mut self, path: &str, body: &Value) -> Value {
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n{body}",
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

fn median(times: &mut [Duration]) -> Duration {
    percentile(times, 50)
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
