//! The log as one client gets it: filtered, with bookmarks.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::filter::Filter;
use crate::http::stream::subscribers::SubscriberPosition;
use crate::journal::{Hole, Line, Next, Subscription};

/// How long nothing may match before a bookmark moves the client's cursor.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(15);

/// What comes next for a client.
#[derive(Debug)]
pub(super) enum Fed {
    /// These events; none means that there were some and none of them passed the filter.
    Lines(Vec<Line>),
    /// Nothing passed for a while; everything through this number was looked at.
    Bookmark(u64),
    /// The next events are missing; [`Feed::jump`] goes on behind them.
    Missing(Hole),
    /// What comes next exists no more.
    Gone,
}

/// A subscription behind a filter.
#[derive(Debug)]
pub(super) struct Feed {
    events: Subscription,
    filter: Filter,
    /// The newest number that the client knows of.
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

    /// The next step; dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> io::Result<Fed> {
        if self.filter.is_open() {
            return self.take().await;
        }
        let due = self.bookmark_due;
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            // While events come in faster than they are looked at, this alone would never let the bookmark through.
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

    /// Goes on from another place.
    pub(super) fn jump(&mut self, cursor: u64) {
        self.events.jump(cursor);
        self.position.set_position(cursor);
        self.announced = cursor;
    }

    async fn take(&mut self) -> io::Result<Fed> {
        // Whoever asks for more has passed on what it was given before.
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
