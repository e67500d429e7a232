//! The event log as one client gets it: filtered, with bookmarks.
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
pub(super) enum Fed {
    /// These events; empty if there were events and none passed the filter.
    Lines(Vec<Line>),
    /// Nothing passed the filter for a while; every event through this number was checked.
    Bookmark(u64),
    /// The next events are missing from the log; [`Feed::jump`] continues after them.
    Missing(Hole),
    /// The next events have expired.
    Gone,
}

/// A subscription behind a filter.
#[derive(Debug)]
pub(super) struct Feed {
    events: Subscription,
    filter: Filter,
    /// The newest event number that the client knows.
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
    pub(super) async fn next(&mut self) -> io::Result<Fed> {
        if self.filter.is_open() {
            return self.take().await;
        }
        let due = self.bookmark_due;
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            // Without this condition, events that arrive faster than they are filtered would hold back the bookmark
            // forever.
            fed = self.take(), if Instant::now() < due => return fed,
        }
        self.bookmark_due = Instant::now() + BOOKMARK_INTERVAL;
        let cursor = self.events.cursor();
        if cursor > self.announced {
            self.announced = cursor;
            return Ok(Fed::Bookmark(cursor));
        }
        Ok(Fed::Lines(Vec::new()))
    }

    /// Continues after `cursor`.
    pub(super) fn jump(&mut self, cursor: u64) {
        self.events.jump(cursor);
        self.position.set_position(cursor);
        self.announced = cursor;
    }

    async fn take(&mut self) -> io::Result<Fed> {
        // A call for more means that the previous events were forwarded.
        self.position.set_position(self.events.cursor());
        match self.events.next().await? {
            Next::Gone => Ok(Fed::Gone),
            Next::Missing(hole) => Ok(Fed::Missing(hole)),
            Next::Lines(mut lines) => {
                if !self.filter.is_open() {
                    lines.retain(|line| self.filter.passes(line));
                }
                if let Some(last) = lines.last() {
                    self.announced = last.seq;
                    self.bookmark_due = Instant::now() + BOOKMARK_INTERVAL;
                }
                Ok(Fed::Lines(lines))
            }
        }
    }
}
