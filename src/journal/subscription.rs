//! A reader that follows the log.

use std::io;
use std::sync::Arc;

use tokio::sync::watch;

use super::line::Line;
use super::log::{Log, Seek};
use super::segments::Position;
use super::tail::After;

/// How many lines one step hands out at most.
const LINES: usize = 1024;
/// How many bytes one step hands out at most, beyond its first line.
const BYTES: usize = 256 * 1024;

/// A cursor that moves along the log: each line once, in order.
///
/// It holds no lines between two steps, so a client that does not read costs nothing but its cursor.
/// There is no seam between what is read back and what is live: both are the next lines after the cursor.
#[derive(Debug)]
pub struct Subscription {
    cursor: u64,
    log: Arc<Log>,
    position: Option<Position>,
    news: watch::Receiver<u64>,
}

/// One step along the log.
#[derive(Debug)]
pub enum Next {
    /// The next lines, at least one.
    Lines(Vec<Line>),
    /// What comes next exists no more; the cursor stays where it was.
    Gone,
}

/// What was found on disk.
enum Read {
    Lines(Position, Vec<Line>),
    Nothing,
}

impl Subscription {
    pub(super) fn new(cursor: u64, log: Arc<Log>) -> Self {
        let news = log.tail.watch();
        Self { cursor, log, position: None, news }
    }

    /// The number of the last line that was handed out.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Goes on from another place.
    pub fn jump(&mut self, cursor: u64) {
        self.cursor = cursor;
        #[cfg(feature = "mutations")]
        {
            self.cursor += self.log.skipped;
        }
        self.position = None;
    }

    /// The next lines; waits until there is one.
    ///
    /// Dropping the future loses nothing.
    /// Fails when the log cannot be read; the same call may be made again.
    pub async fn next(&mut self) -> io::Result<Next> {
        loop {
            match self.step().await? {
                Some(next) => return Ok(next),
                None => {
                    let cursor = self.cursor;
                    // The sender lives in the log, and this holds the log.
                    let _ = self.news.wait_for(|&latest| latest > cursor).await;
                }
            }
        }
    }

    /// The next lines, or `None` when there are none yet.
    pub async fn step(&mut self) -> io::Result<Option<Next>> {
        match self.log.tail.after(self.cursor, LINES, BYTES) {
            After::Lines(lines) if lines.is_empty() => Ok(None),
            After::Lines(lines) => {
                self.position = None;
                Ok(Some(self.hand_out(lines)))
            }
            After::Behind => {
                let log = Arc::clone(&self.log);
                let (cursor, position) = (self.cursor, self.position.take());
                let read = tokio::task::spawn_blocking(move || log.read(cursor, position));
                match read.await.map_err(io::Error::other)?? {
                    Read::Lines(position, lines) => {
                        self.position = Some(position);
                        Ok(Some(self.hand_out(lines)))
                    }
                    // A line is on disk before it is in the tail; one that is in neither is lost.
                    Read::Nothing => Ok(Some(Next::Gone)),
                }
            }
        }
    }

    fn hand_out(&mut self, lines: Vec<Line>) -> Next {
        if let Some(last) = lines.last() {
            self.cursor = last.seq;
        }
        Next::Lines(lines)
    }
}

impl Log {
    /// The lines on disk after `cursor`, from `position` on if there is one.
    fn read(&self, cursor: u64, position: Option<Position>) -> io::Result<Read> {
        let mut position = match position {
            Some(position) => position,
            None => match self.seek(cursor)? {
                Seek::At(position) => position,
                Seek::Gone => return Ok(Read::Nothing),
            },
        };
        loop {
            // Looked up before the read: only a segment that had a successor then was complete when it was read.
            let next = self.after_segment(position.first_seq);
            let lines = position.lines(cursor, LINES, BYTES)?;
            if !lines.is_empty() {
                return Ok(Read::Lines(position, lines));
            }
            let Some(next) = next else { return Ok(Read::Nothing) };
            position = match Position::find(&next, cursor) {
                Ok(position) => position,
                // Removed to keep the log within its size, after it was looked up.
                Err(error) if error.kind() == io::ErrorKind::NotFound => match self.seek(cursor)? {
                    Seek::At(position) => position,
                    Seek::Gone => return Ok(Read::Nothing),
                },
                Err(error) => return Err(error),
            };
            // Segments in between may have been removed too.
            if cursor + 1 < self.bounds().oldest {
                return Ok(Read::Nothing);
            }
        }
    }
}
