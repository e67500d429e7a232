//! Crowds of peers that take and do not give, and one client that wants nothing but its answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::raw_connection::{HANDSHAKE, Wire, head};
use crate::support::http::{Target, get};
use crate::support::wait::{DEADLINE, wait_until};
use crate::support::websocket::EVENTS_PATH;

/// How often a peer that sends a byte now and then does so.
const BEAT: Duration = Duration::from_secs(1);
/// How much room a peer that does not read has for what it does not read.
const ROOM: u32 = 4096;
/// How many files the tests themselves have to be allowed to have open.
const FILES: u64 = 8192;

/// What a peer does to the daemon.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// Connects and says nothing.
    Silent,
    /// Sends half a head, and then a byte of it now and then.
    HalfHead,
    /// Sends a head that declares a body, and then a byte of the body now and then.
    SlowBody,
    /// Asks for something large, or for the events, and does not read.
    SlowReader,
}

impl Kind {
    /// What such a peer, the n-th of its kind, says at first.
    fn opening(self, target: &str, index: usize) -> String {
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
                // A page is about 4 MiB large, which is more than the system takes for a peer that does not read.
                0 => head(target, &format!("GET {EVENTS_PATH}?limit=1000"), ""),
                1..=8 => head(target, &format!("GET {EVENTS_PATH}"), HANDSHAKE),
                _ => head(target, &format!("GET {EVENTS_PATH}"), "Accept: text/event-stream\r\n"),
            },
        }
    }
}

/// How the daemon ended the connection of a peer.
#[derive(Debug)]
pub(super) struct End {
    pub(super) kind: Kind,
    /// From the connection to the end.
    pub(super) after: Duration,
    /// All that the daemon said.
    pub(super) said: String,
}

/// Many peers at once; they leave when this is dropped.
pub(super) struct Crowd {
    /// Held for its `Drop`.
    _peers: JoinSet<()>,
    ends: mpsc::UnboundedReceiver<End>,
    closable: usize,
}

impl Crowd {
    /// As many of each of these kinds as `each` says, once every one of them is connected and has had its say.
    pub(super) async fn gather(target: &(impl Target + ?Sized), kinds: &[Kind], each: usize) -> Self {
        allow_many_files();
        let arrived = Arc::new(Semaphore::new(0));
        let (sender, ends) = mpsc::unbounded_channel();
        let mut peers = JoinSet::new();
        for index in 0..each {
            for kind in kinds {
                let (base, arrived, sender) =
                    (target.base_url().to_owned(), Arc::clone(&arrived), sender.clone());
                peers.spawn(live(base, *kind, index, arrived, sender));
            }
        }
        let all = u32::try_from(each * kinds.len()).unwrap();
        let everybody = tokio::time::timeout(DEADLINE, arrived.acquire_many(all)).await;
        everybody.expect("the crowd does not get to the daemon").unwrap().forget();
        let closable = kinds.iter().filter(|kind| **kind != Kind::SlowReader).count() * each;
        Self { _peers: peers, ends, closable }
    }

    /// Waits until the daemon has closed the connections of all peers but those that do not read; how it did.
    pub(super) async fn closed(&mut self) -> Vec<End> {
        let mut ends = Vec::new();
        let all = async {
            while ends.len() < self.closable {
                ends.push(self.ends.recv().await.unwrap());
            }
        };
        let in_time = tokio::time::timeout(DEADLINE, all).await;
        assert!(in_time.is_ok(), "only {} of {} peers were closed", ends.len(), self.closable);
        ends
    }
}

async fn live(
    base: String,
    kind: Kind,
    index: usize,
    arrived: Arc<Semaphore>,
    ends: mpsc::UnboundedSender<End>,
) {
    let base = base.as_str();
    let began = Instant::now();
    let room = if kind == Kind::SlowReader { ROOM } else { 64 * 1024 };
    // A daemon that is full may refuse in any way; what counts is what the honest client gets.
    let Ok(Wire { mut stream, .. }) = Wire::connect_with_room(base, room).await.map_err(drop) else {
        arrived.add_permits(1);
        let _ = ends.send(End { kind, after: began.elapsed(), said: String::new() });
        return;
    };
    let _ = stream.write_all(kind.opening(base, index).as_bytes()).await;
    if kind == Kind::SlowReader {
        let _ = stream.readable().await;
        arrived.add_permits(1);
        return std::future::pending().await;
    }
    arrived.add_permits(1);
    let (mut said, mut beat) = (Vec::new(), tokio::time::interval(BEAT));
    loop {
        tokio::select! {
            read = stream.read_buf(&mut said) => if !matches!(read, Ok(1..)) { break },
            _ = beat.tick() => if kind != Kind::Silent {
                // The end is seen by reading, which also gets what the daemon said last.
                let _ = stream.write_all(b"x").await;
            },
        }
    }
    let said = String::from_utf8_lossy(&said).into_owned();
    let _ = ends.send(End { kind, after: began.elapsed(), said });
}

/// A client in a thread of its own that makes one new connection after the other, each for one request.
pub(super) struct Honest {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    thread: Option<JoinHandle<Vec<(u16, Duration)>>>,
}

impl Honest {
    /// Begins to ask, with this rest between two requests.
    pub(super) fn start(target: &(impl Target + ?Sized), rest: Duration) -> Self {
        let (stop, answers) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&answers));
        let base = target.base_url().to_owned();
        let ask = async move {
            let mut answers = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                let answer = get(base.as_str(), "/healthz").await;
                answers.push((answer.status, began.elapsed()));
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(rest).await;
            }
            answers
        };
        let thread = std::thread::spawn(|| {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(ask)
        });
        Self { stop, answers, thread: Some(thread) }
    }

    /// Waits until it has had so many more answers than now, or has given up.
    pub(super) async fn more(&self, count: usize) {
        let goal = self.answers.load(Ordering::Relaxed) + count;
        wait_until("the answers of the honest client", || {
            let gave_up = self.thread.as_ref().is_some_and(JoinHandle::is_finished);
            (gave_up || self.answers.load(Ordering::Relaxed) >= goal).then_some(())
        })
        .await;
    }

    /// Status and time of each answer; fails the test when one request had none.
    pub(super) async fn finish(mut self) -> Vec<(u16, Duration)> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().unwrap();
        let joined = tokio::task::spawn_blocking(|| thread.join()).await.unwrap();
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Honest {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The time that 99 of 100 answers did not take longer than.
pub(super) fn p99(answers: &[(u16, Duration)]) -> Duration {
    let mut times: Vec<_> = answers.iter().map(|(_, time)| *time).collect();
    times.sort_unstable();
    times[(times.len() * 99).div_ceil(100) - 1]
}

/// Lets this program have as many files open as a crowd needs, where the system allows it.
fn allow_many_files() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < FILES) {
        limit.current = Some(limit.maximum.map_or(FILES, |maximum| maximum.min(FILES)));
        setrlimit(Resource::Nofile, limit).unwrap();
    }
}
