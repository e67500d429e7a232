//! Clients that hold connections without completing requests, and a probe client that measures how the daemon responds
//! to others meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::raw_connection::{HANDSHAKE, RawConnection, head};
use crate::support::http::{Target, get};
use crate::support::wait::{DEADLINE, wait_until};
use crate::support::websocket::EVENTS_PATH;

/// The interval at which a slow sender sends one byte.
const BYTE_INTERVAL: Duration = Duration::from_secs(1);
/// The receive buffer of a client that does not read.
const UNREAD_BUFFER_BYTES: u32 = 4096;
/// The limit of open file descriptors that the test process itself needs.
const TEST_DESCRIPTOR_LIMIT: u64 = 8192;

/// What a slow client does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum ClientKind {
    /// Connects and sends nothing.
    Silent,
    /// Sends a part of a request head, then one byte per second.
    HalfHead,
    /// Sends a head with a content length, then one byte of the body per second.
    SlowBody,
    /// Requests a large response or an event stream, and does not read it.
    SlowReader,
}

impl ClientKind {
    /// The first bytes that the client with this index among its kind sends.
    fn first_bytes(self, target: &str, index: usize) -> String {
        let host = target.authority();
        match self {
            Self::Silent => String::new(),
            Self::HalfHead => format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nX-More: "),
            Self::SlowBody => {
                format!(
                    "POST /v1/codexd/sessions HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000\r\n\r\n{{\"x\":\""
                )
            }
            Self::SlowReader => match index % 50 {
                // A page is about 4 MiB large, which is more than the kernel buffers for a client that does not read.
                0 => head(target, &format!("GET {EVENTS_PATH}?limit=1000"), ""),
                1..=8 => head(target, &format!("GET {EVENTS_PATH}"), HANDSHAKE),
                _ => head(target, &format!("GET {EVENTS_PATH}"), "Accept: text/event-stream\r\n"),
            },
        }
    }
}

/// A client whose connection the daemon has closed.
#[derive(Debug)]
pub(super) struct ClosedClient {
    pub(super) kind: ClientKind,
    /// The time from connecting to the close.
    pub(super) open_for: Duration,
    /// All bytes that the daemon sent.
    pub(super) received: String,
}

/// Many slow clients at once; dropping this closes their connections.
pub(super) struct SlowClients {
    /// Held for its `Drop`.
    _clients: JoinSet<()>,
    closed: mpsc::UnboundedReceiver<ClosedClient>,
    closable: usize,
}

impl SlowClients {
    /// Connects `each` clients of each of these kinds; returns when all have sent their first bytes.
    pub(super) async fn connect(target: &(impl Target + ?Sized), kinds: &[ClientKind], each: usize) -> Self {
        raise_descriptor_limit();
        let connected = Arc::new(Semaphore::new(0));
        let (closed_sender, closed) = mpsc::unbounded_channel();
        let mut clients = JoinSet::new();
        for index in 0..each {
            for kind in kinds {
                let (base, connected, closed_sender) =
                    (target.base_url().to_owned(), Arc::clone(&connected), closed_sender.clone());
                clients.spawn(run_client(base, *kind, index, connected, closed_sender));
            }
        }
        let all = u32::try_from(each * kinds.len()).unwrap();
        let all_connected = tokio::time::timeout(DEADLINE, connected.acquire_many(all)).await;
        all_connected.expect("the clients did not connect in time").unwrap().forget();
        let closable = kinds.iter().filter(|kind| **kind != ClientKind::SlowReader).count() * each;
        Self { _clients: clients, closed, closable }
    }

    /// Waits until the daemon has closed the connections of all clients except slow readers; returns these clients.
    pub(super) async fn wait_until_closed(&mut self) -> Vec<ClosedClient> {
        let mut closed = Vec::new();
        let all = async {
            while closed.len() < self.closable {
                closed.push(self.closed.recv().await.unwrap());
            }
        };
        let result = tokio::time::timeout(DEADLINE, all).await;
        assert!(result.is_ok(), "only {} of {} clients were closed", closed.len(), self.closable);
        closed
    }
}

async fn run_client(
    base: String,
    kind: ClientKind,
    index: usize,
    connected: Arc<Semaphore>,
    closed: mpsc::UnboundedSender<ClosedClient>,
) {
    let base = base.as_str();
    let started = Instant::now();
    let buffer_bytes = if kind == ClientKind::SlowReader { UNREAD_BUFFER_BYTES } else { 64 * 1024 };
    // A full daemon may refuse in any way: the tests assert what the probe client gets.
    let Ok(RawConnection { mut stream, .. }) =
        RawConnection::connect_with_receive_buffer(base, buffer_bytes).await.map_err(drop)
    else {
        connected.add_permits(1);
        let _ = closed.send(ClosedClient { kind, open_for: started.elapsed(), received: String::new() });
        return;
    };
    let _ = stream.write_all(kind.first_bytes(base, index).as_bytes()).await;
    if kind == ClientKind::SlowReader {
        let _ = stream.readable().await;
        connected.add_permits(1);
        return std::future::pending().await;
    }
    connected.add_permits(1);
    let (mut received, mut byte_timer) = (Vec::new(), tokio::time::interval(BYTE_INTERVAL));
    loop {
        tokio::select! {
            read = stream.read_buf(&mut received) => if !matches!(read, Ok(1..)) { break },
            _ = byte_timer.tick() => if kind != ClientKind::Silent {
                // The read side detects the close, and also receives the last bytes of the daemon.
                let _ = stream.write_all(b"x").await;
            },
        }
    }
    let received = String::from_utf8_lossy(&received).into_owned();
    let _ = closed.send(ClosedClient { kind, open_for: started.elapsed(), received });
}

/// A client in its own thread that sends one request after the other, each on a new connection.
pub(super) struct ProbeClient {
    stop: Arc<AtomicBool>,
    responses: Arc<AtomicUsize>,
    thread: Option<JoinHandle<Vec<(u16, Duration)>>>,
}

impl ProbeClient {
    /// Starts the client; it waits `pause` between two requests.
    pub(super) fn start(target: &(impl Target + ?Sized), pause: Duration) -> Self {
        let (stop, responses) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&responses));
        let base = target.base_url().to_owned();
        let send_requests = async move {
            let mut responses = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let started = Instant::now();
                let response = get(base.as_str(), "/healthz").await;
                responses.push((response.status, started.elapsed()));
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(pause).await;
            }
            responses
        };
        let thread = std::thread::spawn(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(send_requests)
        });
        Self { stop, responses, thread: Some(thread) }
    }

    /// Waits until the client has received `count` more responses, or has failed.
    pub(super) async fn wait_for_more(&self, count: usize) {
        let goal = self.responses.load(Ordering::Relaxed) + count;
        wait_until("more responses to the probe client", || {
            let has_failed = self.thread.as_ref().is_some_and(JoinHandle::is_finished);
            (has_failed || self.responses.load(Ordering::Relaxed) >= goal).then_some(())
        })
        .await;
    }

    /// Stops the client; returns status and duration of each response. Fails the test when a request got no response.
    pub(super) async fn finish(mut self) -> Vec<(u16, Duration)> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().unwrap();
        let joined = tokio::task::spawn_blocking(|| thread.join()).await.unwrap();
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for ProbeClient {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The 99th percentile of the response times.
pub(super) fn p99(responses: &[(u16, Duration)]) -> Duration {
    let mut times: Vec<_> = responses.iter().map(|(_, time)| *time).collect();
    times.sort_unstable();
    times[(times.len() * 99).div_ceil(100) - 1]
}

/// Raises the descriptor limit of the test process to what many clients need, where the system allows it.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < TEST_DESCRIPTOR_LIMIT) {
        limit.current =
            Some(limit.maximum.map_or(TEST_DESCRIPTOR_LIMIT, |maximum| maximum.min(TEST_DESCRIPTOR_LIMIT)));
        setrlimit(Resource::Nofile, limit).unwrap();
    }
}
