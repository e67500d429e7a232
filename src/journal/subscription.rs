//! A reader that follows the log.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::damage::Hole;
use super::line::Line;
use super::log::{Log, Seek};
use super::segments::Position;
use super::tail::After;
use crate::blocking::Pool;

/// How long a step that reads files may take.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
static READ_POOL: Pool = Pool::new("log reads", 8, 24);

/// The limit of lines in one step.
const MAX_STEP_LINES: usize = 1024;
/// The limit of bytes in one step, beyond its first line.
const MAX_STEP_BYTES: usize = 256 * 1024;

/// A cursor that moves along the log and delivers each line once, in order.
///
/// It holds no lines between two steps, so a client that does not read costs only its cursor. Lines from files and lines from
/// memory are both the next lines after the cursor, so there is no gap between replay and live events.
#[derive(Debug)]
pub struct Subscription {
    cursor: u64,
    log: Arc<Log>,
    position: Option<Place>,
    /// The limit of lines in one step.
    pub(super) most: usize,
    /// The limit of bytes in one step, beyond its first line.
    most_bytes: usize,
    news: watch::Receiver<u64>,
}

/// One step along the log.
#[derive(Debug)]
pub enum Next {
    /// The next lines, at least one.
    Lines(Vec<Line>),
    /// The next events are missing, and others follow; the cursor does not move.
    Missing(Hole),
    /// The next events are no longer kept; the cursor does not move.
    Expired,
}

/// The result of reading from memory.
#[derive(Debug)]
pub(super) enum Polled {
    Lines(Next),
    Pending,
    Behind(Reading),
}

/// A read from disk that is due.
#[derive(Debug)]
pub(super) struct Reading {
    log: Arc<Log>,
    cursor: u64,
    position: Option<Place>,
    most: usize,
    most_bytes: usize,
}

/// A file position, and the number of rewrites when it was found.
#[derive(Debug)]
pub(super) struct Place {
    position: Position,
    rewrites: u64,
}

/// The result of reading from disk.
#[derive(Debug)]
pub(super) enum Read {
    Lines(Place, Vec<Line>),
    Nothing,
}

impl Log {
    /// Follows the log from the line after `cursor`, a number that [`Bounds::check`] accepted.
    pub fn follow(self: &Arc<Self>, cursor: u64) -> Subscription {
        Subscription::new(cursor, Arc::clone(self))
    }
}

impl Subscription {
    pub(super) fn new(cursor: u64, log: Arc<Log>) -> Self {
        let news = log.tail.watch();
        Self { cursor, log, position: None, most: MAX_STEP_LINES, most_bytes: MAX_STEP_BYTES, news }
    }

    /// The same with steps of at most this many bytes, beyond the first line.
    pub fn in_steps_of(mut self, bytes: usize) -> Self {
        self.most_bytes = bytes;
        self
    }

    /// The number of the last delivered line.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Continues after another number.
    pub fn jump(&mut self, cursor: u64) {
        self.cursor = cursor;
        #[cfg(feature = "mutations")]
        {
            self.cursor += self.log.skipped;
        }
        self.leave_file();
    }

    /// Closes the open file, on the pool because closing may block too.
    fn leave_file(&mut self) {
        if let Some(place) = self.position.take() {
            READ_POOL.spawn(move || drop(place));
        }
    }

    /// The next lines; waits until there is one.
    ///
    /// Dropping the future loses nothing. Fails when the log cannot be read; the call may be repeated.
    pub async fn next(&mut self) -> io::Result<Next> {
        loop {
            match self.step().await? {
                Some(next) => return Ok(next),
                None => {
                    let cursor = self.cursor;
                    // Never fails: the sender is in the log, which this holds.
                    let _ = self.news.wait_for(|&latest| latest > cursor).await;
                }
            }
        }
    }

    /// The next lines, or `None` when there are none yet; empty when the next step may have some.
    pub async fn step(&mut self) -> io::Result<Option<Next>> {
        match self.poll() {
            Polled::Lines(next) => Ok(Some(next)),
            Polled::Pending => Ok(None),
            Polled::Behind(reading) => {
                let read = READ_POOL.run(READ_TIMEOUT, move || reading.read()).await;
                let late =
                    |unanswered| io::Error::new(io::ErrorKind::TimedOut, format!("the log {unanswered}"));
                Ok(Some(self.take(read.map_err(late)??)))
            }
        }
    }

    /// The first half of a step: reads from memory.
    pub(super) fn poll(&mut self) -> Polled {
        match self.log.tail.after(self.cursor, self.most, self.most_bytes) {
            After::Lines(lines) if lines.is_empty() => Polled::Pending,
            After::Lines(lines) => {
                self.leave_file();
                Polled::Lines(self.deliver(lines))
            }
            After::Behind => Polled::Behind(Reading {
                log: Arc::clone(&self.log),
                cursor: self.cursor,
                position: self.position.take(),
                most: self.most,
                most_bytes: self.most_bytes,
            }),
        }
    }

    /// The second half of a step: takes what was read from disk.
    pub(super) fn take(&mut self, read: Read) -> Next {
        match read {
            Read::Lines(position, lines) => {
                self.position = Some(position);
                self.deliver(lines)
            }
            // A line is on disk before it is in memory; one that is in neither is lost.
            Read::Nothing => self.nothing(),
        }
    }

    /// What to deliver when the files have nothing after the cursor.
    fn nothing(&mut self) -> Next {
        let in_memory = self.log.tail.oldest().filter(|&oldest| oldest > self.cursor);
        match in_memory.filter(|_| self.cursor + 1 >= self.log.bounds().oldest) {
            None => Next::Expired,
            Some(oldest) => match self.log.continuity.hole(self.cursor, oldest) {
                Some(hole) => self.missing(hole),
                // All numbers up to there were skipped.
                None => {
                    self.cursor = oldest - 1;
                    Next::Lines(Vec::new())
                }
            },
        }
    }

    fn missing(&mut self, hole: Hole) -> Next {
        self.position = None;
        self.log.report_hole(hole);
        Next::Missing(hole)
    }

    fn deliver(&mut self, mut lines: Vec<Line>) -> Next {
        match self.log.continuity.first_hole(self.cursor, &lines) {
            None => {}
            Some((0, hole)) => return self.missing(hole),
            Some((before, _)) => {
                // The next step begins at the hole.
                lines.truncate(before);
                self.position = None;
            }
        }
        if let Some(last) = lines.last() {
            self.cursor = last.seq;
        }
        Next::Lines(lines)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.leave_file();
    }
}

impl Reading {
    /// Reads the lines after the cursor from disk, starting at the position if there is one.
    pub(super) fn read(self) -> io::Result<Read> {
        let Self { log, cursor, position, most, most_bytes } = self;
        let rewrites = log.rewrites.read().unwrap_or_else(PoisonError::into_inner);
        let mut position = match position.filter(|place| place.rewrites == *rewrites) {
            Some(place) => place.position,
            None => match log.seek(cursor)? {
                Seek::At(position) => position,
                Seek::Expired => return Ok(Read::Nothing),
            },
        };
        // The file may contain lines that are not published yet.
        let through = log.tail.latest();
        loop {
            // Looked up before the read: only a segment that already had a successor was complete when it was read.
            let next = log.after_segment(position.first_seq);
            let lines = position.lines(cursor, through, most, most_bytes)?;
            if !lines.is_empty() {
                return Ok(Read::Lines(Place { position, rewrites: *rewrites }, lines));
            }
            let Some(next) = next else { return Ok(Read::Nothing) };
            position = match log.open_segment(next, cursor)? {
                Some(position) => position,
                // Removed after the lookup, by a rotation or from outside.
                None => match log.after_segment(position.first_seq) {
                    Some(next) => match log.open_segment(next, cursor)? {
                        Some(position) => position,
                        None => return Ok(Read::Nothing),
                    },
                    None => return Ok(Read::Nothing),
                },
            };
            // Segments in between may have been removed too.
            if cursor + 1 < log.bounds().oldest {
                return Ok(Read::Nothing);
            }
        }
    }
}
