//! Clients of the event stream: those that check that they receive every event once, the one that reads the log page by
//! page, and those that do not read at all.

#[path = "../../tests/it/history/connection.rs"]
#[expect(dead_code, reason = "shared with the tests of the history")]
mod connection;
#[path = "../../tests/it/history/record.rs"]
#[expect(dead_code, reason = "shared with the tests of the history")]
mod record;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio::sync::watch;

use self::connection::{Connection, Received};
use self::record::Filter;
use crate::instance::Instance;
use crate::random::SeededRandom;
use crate::record::Latency;
use crate::support::http::Target;
use crate::support::websocket::EVENTS_PATH;

pub(crate) use self::connection::Transport;

/// The pause of the client that reads pages, when it has read all.
const PAGE_INTERVAL: Duration = Duration::from_secs(2);
/// The receive buffer of a client that does not read.
const SMALL_BUFFER_BYTES: u32 = 4096;
/// How long the client waits for the first delta of a turn.
const DELTA_TIMEOUT: Duration = Duration::from_secs(60);

/// What a client received.
#[derive(Debug, Default)]
pub(crate) struct Followed {
    pub(crate) transport: &'static str,
    pub(crate) connections: u64,
    /// The sequence number and a digest of each event, in the order of arrival.
    pub(crate) events: Vec<(u64, u64)>,
    /// Gaps, and another epoch.
    pub(crate) faults: Vec<String>,
    /// The events about turns, sessions and requests; only of the client that reads pages.
    pub(crate) notable: Vec<Notable>,
    epoch: String,
}

/// The parts of an event that the verdicts need.
#[derive(Debug, Clone)]
pub(crate) struct Notable {
    pub(crate) seq: u64,
    pub(crate) event_type: String,
    pub(crate) turn_id: String,
    pub(crate) queue_id: String,
    pub(crate) resolved_by: String,
}

/// When a client ends: after the event with this sequence number, once it is known.
pub(crate) type End = Arc<AtomicU64>;

impl Followed {
    fn reached(&self) -> u64 {
        self.events.last().map_or(0, |(seq, _)| *seq)
    }

    fn cursor(&self) -> String {
        if self.epoch.is_empty() { "0".to_owned() } else { format!("{}-{}", self.epoch, self.reached()) }
    }

    fn take(&mut self, received: Received, keeps_notable: bool) {
        match received {
            Received::Hello { epoch, .. } | Received::Bookmark { epoch, .. } => self.name_epoch(epoch),
            Received::Event { epoch, text } => {
                epoch.into_iter().for_each(|epoch| self.name_epoch(epoch));
                let event: Value = serde_json::from_str(&text).unwrap_or_default();
                let (seq, digest) = digest(&event);
                self.events.push((seq, digest));
                if keeps_notable {
                    self.notable.extend(Notable::of(seq, &event));
                }
            }
            Received::Gap(reason) => {
                self.faults.push(format!("a gap after event {}: {reason}", self.reached()));
                // Everything that is kept is read again, so the gap is reported once.
                self.epoch.clear();
            }
        }
    }

    fn name_epoch(&mut self, epoch: String) {
        if self.epoch.is_empty() {
            self.epoch = epoch;
        } else if self.epoch != epoch {
            self.faults.push(format!("the epoch {epoch} after {}", self.epoch));
            self.epoch = epoch;
        }
    }
}

/// The sequence number of an event and a digest of its JSON.
pub(crate) fn digest(event: &Value) -> (u64, u64) {
    let mut hasher = DefaultHasher::new();
    event.to_string().hash(&mut hasher);
    (event["seq"].as_u64().unwrap_or_default(), hasher.finish())
}

impl Notable {
    /// Events about turns, sessions and requests; `None` for all others.
    fn of(seq: u64, event: &Value) -> Option<Self> {
        let event_type = event["type"].as_str()?;
        let is_notable = ["turn.", "session.", "request.", "app-server.turn.completed"]
            .iter()
            .any(|start| event_type.starts_with(start));
        let id = |name: &str| event["detail"][name].as_str().unwrap_or_default().to_owned();
        is_notable.then(|| Self {
            seq,
            event_type: event_type.to_owned(),
            turn_id: id("turnId"),
            queue_id: id("queueId"),
            resolved_by: id("resolvedBy"),
        })
    }
}

/// Follows all events from the first one on, and reconnects with the cursor: when the daemon ends, and after random times.
/// Ends when it has the event `end`.
pub(crate) async fn follow(
    instance: Arc<Instance>,
    transport: Transport,
    mut random: SeededRandom,
    end: End,
) -> Followed {
    let is_pages = transport == Transport::Pages;
    let mut followed = Followed { transport: name(transport), ..Followed::default() };
    while followed.reached() < end.load(Ordering::Relaxed) {
        let base = instance.base().await;
        let cursor = followed.cursor();
        let opened = Connection::open(transport, &base, Some(&cursor), &Filter::default(), 500).await;
        let Some(mut connection) = opened else {
            tokio::time::sleep(random.milliseconds(100, 500)).await;
            continue;
        };
        followed.connections += 1;
        let until = Instant::now() + random.milliseconds(3_000, 40_000);
        while followed.reached() < end.load(Ordering::Relaxed) {
            let left = until.saturating_duration_since(Instant::now()).min(PAGE_INTERVAL);
            match tokio::time::timeout(left, connection.next()).await {
                Err(_) if Instant::now() >= until => break,
                Err(_) => {}
                Ok(None) => break,
                Ok(Some(received)) => {
                    let is_end_of_page = is_pages && matches!(received, Received::Bookmark { .. });
                    followed.take(received, is_pages);
                    if is_end_of_page {
                        tokio::time::sleep(PAGE_INTERVAL).await;
                    }
                }
            }
        }
        drop(connection);
        // Sometimes it is away for longer, so that it has to catch up from the files.
        let most = if random.chance(10) { 20_000 } else { 500 };
        tokio::time::sleep(random.milliseconds(1, most)).await;
    }
    followed
}

fn name(transport: Transport) -> &'static str {
    match transport {
        Transport::WebSocket => "WebSocket",
        Transport::Sse => "SSE",
        Transport::Pages => "pages",
    }
}

/// Connects a WebSocket for one session, calls `submit`, and measures from then to the first delta; the result is that of
/// `submit`.
pub(crate) async fn until_first_delta<T>(
    instance: &Instance,
    session_id: &str,
    submit: impl Future<Output = Option<T>>,
) -> Option<T> {
    // The filter accepts any event that names the session or its thread.
    let session = Some((session_id.to_owned(), String::new()));
    let filter = Filter { types: vec!["app-server.turn.message.delta".to_owned()], session };
    let base = instance.base().await;
    let mut connection = Connection::open(Transport::WebSocket, &base, None, &filter, 1).await?;
    let began = Instant::now();
    let accepted = submit.await?;
    let delta = async {
        while let Some(received) = connection.next().await {
            if matches!(received, Received::Event { .. }) {
                return true;
            }
        }
        false
    };
    if tokio::time::timeout(DELTA_TIMEOUT, delta).await == Ok(true) {
        instance.record.measured(Latency::FirstDelta, began.elapsed());
    }
    Some(accepted)
}

/// Connects again and again and reads nothing, over WebSocket and as server-sent events in turns.
pub(crate) async fn never_read(
    instance: Arc<Instance>,
    mut random: SeededRandom,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let base = instance.base().await;
        let form = if random.chance(50) {
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        } else {
            "Accept: text/event-stream\r\n"
        };
        let authority = base.authority();
        let head = format!("GET {EVENTS_PATH}?after=0 HTTP/1.1\r\nHost: {authority}\r\n{form}\r\n");
        let connected = async {
            let socket = TcpSocket::new_v4()?;
            socket.set_recv_buffer_size(SMALL_BUFFER_BYTES)?;
            let mut stream = socket.connect(authority.parse().map_err(std::io::Error::other)?).await?;
            stream.write_all(head.as_bytes()).await?;
            Ok::<_, std::io::Error>(stream)
        };
        // The daemon may be restarting.
        let stream = connected.await.ok();
        instance.record.count("client that does not read");
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(random.milliseconds(1_000, 30_000)) => drop(stream),
        }
    }
}
