//! Bookmarks: that they come when nothing passed for a while, and only then; and how far behind a feed is.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::feed::{Fed, Feed};
use super::filter::Filter;
use super::query::Query;
use crate::http::stream::subscribers::{Subscribers, Transport};
use crate::journal::{Entry, Journal, Limits};
use crate::storage::Disk;

/// As long as it takes.
const BOOKMARK: Duration = Duration::from_secs(15);

struct Room {
    journal: Journal,
    subscribers: Arc<Subscribers>,
    _folder: tempfile::TempDir,
}

impl Room {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits { segment_bytes: 1 << 20, total_bytes: 1 << 30 };
        let journal = Journal::open(folder.path(), Disk::default(), limits, 0, 10).unwrap().journal;
        Self { journal, subscribers: Arc::default(), _folder: folder }
    }

    fn append(&mut self, event_type: &str) {
        let entry = Entry { level: "info", event_type, message: "m", detail: None };
        let lines = self.journal.append("2026-01-02T03:04:05.678Z", std::iter::once(entry));
        self.journal.publish(&lines);
    }

    fn feed(&self, query: &str) -> Feed {
        let filter = Filter::new(&Query::parse(query).unwrap(), None);
        Feed::new(self.journal.log().follow(0), filter, self.subscribers.add(Transport::WebSocket))
    }
}

/// The next step that says something, as text.
async fn next(feed: &mut Feed) -> String {
    loop {
        match feed.next().await.unwrap() {
            Fed::Lines(lines) if lines.is_empty() => {}
            Fed::Lines(lines) => {
                return format!("{:?}", lines.iter().map(|line| line.seq).collect::<Vec<_>>());
            }
            Fed::Bookmark(seq) => return format!("bookmark {seq}"),
            Fed::Missing(hole) => return format!("missing {} to {}", hole.from, hole.through),
            Fed::Gone => return "gone".to_owned(),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_bookmark_comes_when_nothing_passed_for_a_while_and_says_how_far_all_was_looked_at() {
    let mut room = Room::new();
    let mut feed = room.feed("type=wanted");
    let began = Instant::now();
    room.append("other");
    room.append("other");
    assert_eq!(next(&mut feed).await, "bookmark 2");
    assert_eq!(began.elapsed(), BOOKMARK);
    // What passes is a cursor itself, and the time begins anew with it.
    tokio::time::advance(BOOKMARK - Duration::from_secs(1)).await;
    room.append("wanted");
    assert_eq!(next(&mut feed).await, "[3]");
    let since = Instant::now();
    room.append("other");
    assert_eq!(next(&mut feed).await, "bookmark 4");
    assert_eq!(since.elapsed(), BOOKMARK);
}

#[tokio::test(start_paused = true)]
async fn there_is_no_bookmark_where_nothing_happened_or_nothing_is_filtered() {
    let mut room = Room::new();
    let mut filtered = room.feed("type=wanted");
    let mut open = room.feed("");
    let quiet = BOOKMARK * 100;
    assert!(tokio::time::timeout(quiet, next(&mut filtered)).await.is_err(), "nothing to say");
    assert!(tokio::time::timeout(quiet, next(&mut open)).await.is_err(), "nothing to say");
    room.append("other");
    assert_eq!(next(&mut open).await, "[1]");
    assert!(tokio::time::timeout(quiet, next(&mut open)).await.is_err(), "every event was a cursor");
    assert_eq!(next(&mut filtered).await, "bookmark 1");
    assert!(tokio::time::timeout(quiet, next(&mut filtered)).await.is_err(), "it was said once");
}

#[tokio::test(start_paused = true)]
async fn a_flood_that_does_not_pass_does_not_hold_the_bookmark_up() {
    let mut room = Room::new();
    let mut feed = room.feed("type=wanted");
    let began = Instant::now();
    let said = loop {
        room.append("other");
        tokio::time::advance(Duration::from_millis(100)).await;
        match feed.next().await.unwrap() {
            Fed::Lines(lines) => assert!(lines.is_empty(), "{lines:?}"),
            Fed::Bookmark(seq) => break seq,
            Fed::Gone | Fed::Missing(_) => panic!("nothing was removed"),
        }
        assert!(began.elapsed() < BOOKMARK * 2, "no bookmark");
    };
    assert!(began.elapsed() <= BOOKMARK + Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(said >= 140, "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_goes_on_elsewhere_has_no_bookmark_from_before() {
    let mut room = Room::new();
    let mut feed = room.feed("type=wanted");
    for _ in 0..10 {
        room.append("other");
    }
    feed.jump(10);
    assert!(tokio::time::timeout(BOOKMARK * 3, next(&mut feed)).await.is_err(), "the client knows of 10");
    room.append("wanted");
    assert_eq!(next(&mut feed).await, "[11]");
}

#[tokio::test(start_paused = true)]
async fn a_feed_is_behind_by_what_was_taken_from_it_and_not_yet_passed_on() {
    let mut room = Room::new();
    let mut feed = room.feed("");
    room.append("one");
    room.append("two");
    assert_eq!(room.subscribers.max_lag(2), 2);
    assert_eq!(next(&mut feed).await, "[1, 2]");
    assert_eq!(room.subscribers.max_lag(2), 2, "nobody knows yet whether the client took it");
    let asked = tokio::time::timeout(Duration::from_secs(1), feed.next()).await;
    assert!(asked.is_err() && room.subscribers.max_lag(2) == 0, "whoever asks for more took it");
    let filtered = room.feed("type=wanted");
    assert_eq!((room.subscribers.count(Transport::WebSocket), room.subscribers.max_lag(2)), (2, 2));
    drop((feed, filtered));
    assert_eq!((room.subscribers.count(Transport::WebSocket), room.subscribers.max_lag(2)), (0, 0));
}
