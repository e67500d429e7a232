//! Tests of `feed`: when bookmarks are sent, and the lag of a feed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::feed::{Feed, FeedOutput};
use super::filter::Filter;
use super::query::StreamQuery;
use crate::http::stream::subscribers::{Subscribers, Transport};
use crate::journal::{Entry, Journal, Limits};
use crate::storage::Disk;

/// The interval of `feed`.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(15);

struct TestLog {
    journal: Journal,
    subscribers: Arc<Subscribers>,
    _directory: tempfile::TempDir,
}

impl TestLog {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let limits = Limits { segment_bytes: 1 << 20, total_bytes: 1 << 30 };
        let journal = Journal::open(directory.path(), Disk::default(), limits, 0, 10).unwrap().journal;
        Self { journal, subscribers: Arc::default(), _directory: directory }
    }

    fn append(&mut self, event_type: &str) {
        let entry = Entry::new("info", event_type, "m", None);
        let lines = self.journal.append("2026-01-02T03:04:05.678Z", std::iter::once(entry));
        self.journal.publish(lines);
    }

    fn feed(&self, query: &str) -> Feed {
        let filter = Filter::new(&StreamQuery::parse(query).unwrap(), None);
        Feed::new(self.journal.log().follow(0), filter, self.subscribers.add(Transport::WebSocket))
    }
}

/// The next output that is not empty, as text.
async fn next(feed: &mut Feed) -> String {
    loop {
        match feed.next().await.unwrap() {
            FeedOutput::Lines(lines) if lines.is_empty() => {}
            FeedOutput::Lines(lines) => {
                return format!("{:?}", lines.iter().map(|line| line.seq).collect::<Vec<_>>());
            }
            FeedOutput::Bookmark(seq) => return format!("bookmark {seq}"),
            FeedOutput::Missing(hole) => return format!("missing {} to {}", hole.from, hole.through),
            FeedOutput::Expired => return "expired".to_owned(),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn feed_sends_bookmark_after_interval_without_match() {
    let mut log = TestLog::new();
    let mut feed = log.feed("type=selected");
    let began = Instant::now();
    log.append("other");
    log.append("other");
    assert_eq!(next(&mut feed).await, "bookmark 2");
    assert_eq!(began.elapsed(), BOOKMARK_INTERVAL);
    // A matching event moves the cursor, and restarts the interval.
    tokio::time::advance(BOOKMARK_INTERVAL - Duration::from_secs(1)).await;
    log.append("selected");
    assert_eq!(next(&mut feed).await, "[3]");
    let since = Instant::now();
    log.append("other");
    assert_eq!(next(&mut feed).await, "bookmark 4");
    assert_eq!(since.elapsed(), BOOKMARK_INTERVAL);
}

#[tokio::test(start_paused = true)]
async fn feed_sends_no_bookmark_when_idle_or_unfiltered() {
    let mut log = TestLog::new();
    let mut filtered = log.feed("type=selected");
    let mut open = log.feed("");
    let quiet = BOOKMARK_INTERVAL * 100;
    assert!(tokio::time::timeout(quiet, next(&mut filtered)).await.is_err(), "nothing to report");
    assert!(tokio::time::timeout(quiet, next(&mut open)).await.is_err(), "nothing to report");
    log.append("other");
    assert_eq!(next(&mut open).await, "[1]");
    assert!(tokio::time::timeout(quiet, next(&mut open)).await.is_err(), "every event was a cursor");
    assert_eq!(next(&mut filtered).await, "bookmark 1");
    assert!(tokio::time::timeout(quiet, next(&mut filtered)).await.is_err(), "the bookmark was sent once");
}

#[tokio::test(start_paused = true)]
async fn feed_sends_bookmark_during_flood_of_filtered_events() {
    let mut log = TestLog::new();
    let mut feed = log.feed("type=selected");
    let began = Instant::now();
    let bookmark = loop {
        log.append("other");
        tokio::time::advance(Duration::from_millis(100)).await;
        match feed.next().await.unwrap() {
            FeedOutput::Lines(lines) => assert!(lines.is_empty(), "{lines:?}"),
            FeedOutput::Bookmark(seq) => break seq,
            FeedOutput::Expired | FeedOutput::Missing(_) => panic!("nothing was removed"),
        }
        assert!(began.elapsed() < BOOKMARK_INTERVAL * 2, "no bookmark");
    };
    assert!(began.elapsed() <= BOOKMARK_INTERVAL + Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(bookmark >= 140, "{bookmark}");
}

#[tokio::test(start_paused = true)]
async fn feed_jump_discards_pending_bookmark() {
    let mut log = TestLog::new();
    let mut feed = log.feed("type=selected");
    for _ in 0..10 {
        log.append("other");
    }
    feed.jump(10);
    assert!(
        tokio::time::timeout(BOOKMARK_INTERVAL * 3, next(&mut feed)).await.is_err(),
        "the client has the cursor 10"
    );
    log.append("selected");
    assert_eq!(next(&mut feed).await, "[11]");
}

#[tokio::test(start_paused = true)]
async fn feed_lag_counts_events_until_next_call() {
    let mut log = TestLog::new();
    let mut feed = log.feed("");
    log.append("one");
    log.append("two");
    assert_eq!(log.subscribers.max_lag(2), 2);
    assert_eq!(next(&mut feed).await, "[1, 2]");
    assert_eq!(log.subscribers.max_lag(2), 2, "it is not known yet whether the client received it");
    let polled = tokio::time::timeout(Duration::from_secs(1), feed.next()).await;
    assert!(
        polled.is_err() && log.subscribers.max_lag(2) == 0,
        "a call for more means that it was forwarded"
    );
    let filtered = log.feed("type=selected");
    assert_eq!((log.subscribers.count(Transport::WebSocket), log.subscribers.max_lag(2)), (2, 2));
    drop((feed, filtered));
    assert_eq!((log.subscribers.count(Transport::WebSocket), log.subscribers.max_lag(2)), (0, 0));
}
