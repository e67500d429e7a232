//! The event log for one client: filtered, with bookmarks.
//!
//! [`Feed`] owns a subscription to the journal, a filter and the position of the subscriber. `sse` and `websocket` poll
//! it.
//!
//! Invariant: an event is never skipped silently; it is returned, dropped by the filter, or reported as missing or
//! expired.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::filter::Filter;
use crate::http::stream::subscribers::SubscriberPosition;
use crate::journal::{Hole, Line, Next, Subscription};

/// After how long without a matching event a bookmark moves the cursor of the client.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(15);

/// The next output for a client.
#[derive(Debug)]
pub(super) enum FeedOutput {
    /// These events; empty if there were events and none passed the filter.
    Lines(Vec<Line>),
    /// Nothing passed the filter for a while; every event through this number was checked.
    Bookmark(u64),
    /// The next events are missing from the log; [`Feed::jump`] continues after them.
    Missing(Hole),
    /// The next events have expired.
    Expired,
}

/// A subscription behind a filter.
#[derive(Debug)]
pub(super) struct Feed {
    events: Subscription,
    filter: Filter,
    /// The newest event number that the client has received, in an event or a bookmark.
    announced: u64,
    bookmark_due: Instant,
    position: SubscriberPosition,
}

impl Feed {
    pub(super) fn new(events: Subscription, filter: Filter, position: SubscriberPosition) -> Self {
        let announced = events.cursor();
        position.set_position(announced);
        Self { events, filter, announced, bookmark_due: Instant::now() + BOOKMARK_INTERVAL, position }
    }

    /// Returns the next output. Cancel safe.
    pub(super) async fn next(&mut self) -> io::Result<FeedOutput> {
        if self.filter.passes_all() {
            return self.next_from_log().await;
        }
        let due = self.bookmark_due;
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            // Without this condition, events that arrive faster than they are filtered would hold back the bookmark
            // forever.
            output = self.next_from_log(), if Instant::now() < due => return output,
        }
        self.bookmark_due = Instant::now() + BOOKMARK_INTERVAL;
        let cursor = self.events.cursor();
        if cursor > self.announced {
            self.announced = cursor;
            return Ok(FeedOutput::Bookmark(cursor));
        }
        Ok(FeedOutput::Lines(Vec::new()))
    }

    /// Continues after `cursor`.
    pub(super) fn jump(&mut self, cursor: u64) {
        self.events.jump(cursor);
        self.position.set_position(cursor);
        self.announced = cursor;
    }

    async fn next_from_log(&mut self) -> io::Result<FeedOutput> {
        // A call for more means that the previous events were forwarded.
        self.position.set_position(self.events.cursor());
        match self.events.next().await? {
            Next::Expired => Ok(FeedOutput::Expired),
            Next::Missing(hole) => Ok(FeedOutput::Missing(hole)),
            Next::Lines(mut lines) => {
                if !self.filter.passes_all() {
                    lines.retain(|line| self.filter.passes(line));
                }
                if let Some(last) = lines.last() {
                    self.announced = last.seq;
                    self.bookmark_due = Instant::now() + BOOKMARK_INTERVAL;
                }
                Ok(FeedOutput::Lines(lines))
            }
        }
    }
}
