//! What many sessions and many clients cost in memory, and idle clients in CPU time.
//!
//! `cargo bench --bench clients` prints the resident memory of a daemon with a full log and 4,000 or 10,000 sessions: idle, with 20
//! WebSockets that connect at once and after they have left, and with 200 clients that request a large response and read
//! nothing; and the CPU time of a day with 10 idle WebSockets, from what 30 seconds take.
//! `CODEXD_BENCH_PROGRAM` is another codexd to compare with. Needs Linux.

#![expect(clippy::disallowed_methods, reason = "a benchmark is a separate process")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark that cannot continue has no result"
)]

#[path = "support/client.rs"]
mod client;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "../tests/fake_codex/program.rs"]
mod fake_codex;
#[path = "support/state.rs"]
mod state;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use client::{Client, Stream};
use daemon::Daemon;
use state::{full_log, sessions, stop};

const WEBSOCKETS: usize = 20;
const CLIENTS_WITHOUT_READING: usize = 200;
/// How long the daemon may prepare responses that nobody reads.
const PREPARATION: Duration = Duration::from_secs(5);
const IDLE_CLIENTS: usize = 10;
const IDLE_TIME: Duration = Duration::from_secs(30);
const DAY: f64 = 86_400.0;

fn main() {
    // `cargo test --benches` only checks that the benchmark builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    for count in [4_000, 10_000] {
        measure_memory(count);
    }
    measure_idle();
}

fn measure_memory(count: usize) {
    let directory = tempfile::tempdir().unwrap();
    sessions(directory.path(), count);
    full_log(directory.path());
    // The first start reads files of an earlier version.
    let daemon = Daemon::start_in(directory);
    daemon.wait_healthy();
    daemon.wait_ready();
    daemon.wait_idle();
    let daemon = Daemon::start_in(stop(daemon));
    daemon.wait_ready();
    daemon.wait_idle();
    println!("{count:6} sessions, idle                           {:7.1} MB", rss(&daemon));

    let streams: Vec<_> = (0..WEBSOCKETS).map(|_| request(&daemon, Stream::handshake(&daemon))).collect();
    let readers: Vec<_> =
        streams.into_iter().map(|stream| std::thread::spawn(move || read_hello(stream))).collect();
    let mut peak = 0.0_f64;
    while !readers.iter().all(std::thread::JoinHandle::is_finished) {
        peak = peak.max(rss(&daemon));
        std::thread::sleep(Duration::from_millis(5));
    }
    let streams: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    daemon.wait_idle();
    println!("{count:6} sessions, {WEBSOCKETS} WebSockets connect at once     {peak:7.1} MB at most");
    println!("{count:6} sessions, {WEBSOCKETS} WebSockets                     {:7.1} MB", rss(&daemon));
    drop(streams);
    daemon.wait_idle();
    println!("{count:6} sessions, they have left                 {:7.1} MB", rss(&daemon));

    let cursor = Client::connect(&daemon).get("/v1/codexd/events?limit=1")["data"]["cursor"].clone();
    let events = format!("/v1/codexd/events?after={}&limit=100000", cursor.as_str().unwrap());
    for path in ["/v1/codexd/sessions", "/v1/codexd/status", &events] {
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\n\r\n", daemon.authority);
        let connections: Vec<_> =
            (0..CLIENTS_WITHOUT_READING).map(|_| request(&daemon, head.clone())).collect();
        let began = Instant::now();
        let mut peak = 0.0_f64;
        while began.elapsed() < PREPARATION {
            peak = peak.max(rss(&daemon));
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(connections);
        let path = path.split('?').next().unwrap();
        println!(
            "{count:6} sessions, {CLIENTS_WITHOUT_READING} clients read nothing of {path:19} {peak:7.1} MB at most"
        );
        daemon.wait_idle();
    }
    println!("{count:6} sessions, they have left                 {:7.1} MB", rss(&daemon));
}

fn measure_idle() {
    let daemon = Daemon::start_in(tempfile::tempdir().unwrap());
    daemon.wait_ready();
    let mut client = Client::connect(&daemon);
    let session = client.session(None);
    let mut streams: Vec<_> = (0..IDLE_CLIENTS).map(|_| Stream::connect(&daemon)).collect();
    client.turn(&session, "hello", None);
    for stream in &mut streams {
        stream.count_deltas();
    }
    daemon.wait_idle();
    // The rounds of state files that belong to the turn.
    std::thread::sleep(Duration::from_secs(5));
    let before = daemon.cpu();
    std::thread::sleep(IDLE_TIME);
    let day = daemon.cpu().saturating_sub(before).as_secs_f64() * DAY / IDLE_TIME.as_secs_f64();
    println!("idle with {IDLE_CLIENTS} WebSockets, CPU time of 24 h         {day:7.1} s");
}

fn rss(daemon: &Daemon) -> f64 {
    daemon.kib("VmRSS") as f64 / 1024.0
}

fn request(daemon: &Daemon, head: String) -> TcpStream {
    let mut stream = TcpStream::connect(&daemon.authority).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// Reads until nothing more comes for a while.
fn read_hello(mut stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut block = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut block) {
            Ok(0) => panic!("the WebSocket was closed"),
            Ok(_) => {}
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {
                return stream;
            }
            Err(error) => panic!("{error}"),
        }
    }
}
