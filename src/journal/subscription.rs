//! A reader that follows the log.

use std::io;
use std::sync::Arc;

use tokio::sync::watch;

use super::line::Line;
use super::reader::{Position, Reader};
use super::tail::{After, Tail};

/// How many lines one step hands out at most.
const LINES: usize = 512;
/// How many bytes one step hands out at most, beyond its first line.
const BYTES: usize = 256 * 1024;

/// A cursor that moves along the log: each line once, in order.
///
/// It holds no lines between two steps, so a client that does not read costs nothing but its cursor.
#[derive(Debug)]
pub struct Subscription {
    cursor: u64,
    tail: Arc<Tail>,
    reader: Reader,
    position: Option<Position>,
    news: watch::Receiver<u64>,
}

impl Subscription {
    /// Follows the log from the line after `cursor`.
    pub fn new(cursor: u64, tail: Arc<Tail>, reader: Reader) -> Self {
        let news = tail.watch();
        Self { cursor, tail, reader, position: None, news }
    }

    /// The number of the last line that was handed out.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The next lines, at least one; waits until there is one.
    ///
    /// Dropping the future loses nothing.
    /// Fails when the log cannot be read; the same call may be made again.
    pub async fn next(&mut self) -> io::Result<Vec<Line>> {
        loop {
            match self.tail.after(self.cursor, LINES, BYTES) {
                After::Lines(lines) if lines.is_empty() => {
                    // The tail lives as long as this subscription, so there is always a sender.
                    let cursor = self.cursor;
                    let _ = self.news.wait_for(|&latest| latest > cursor).await;
                }
                After::Lines(lines) => {
                    self.position = None;
                    return Ok(self.hand_out(lines));
                }
                After::Behind => {
                    let lines = self.read_file().await?;
                    if !lines.is_empty() {
                        return Ok(self.hand_out(lines));
                    }
                    // What is written is in the file before it is in the tail, so an empty answer means that
                    // the lines in between exist nowhere: go on with the oldest there is.
                    if let Some(oldest) = self.tail.oldest() {
                        self.cursor = self.cursor.max(oldest.saturating_sub(1));
                    }
                }
            }
        }
    }

    async fn read_file(&mut self) -> io::Result<Vec<Line>> {
        let cursor = self.cursor;
        let reader = self.reader.clone();
        let position = self.position.take();
        let read = tokio::task::spawn_blocking(move || {
            let mut position = match position {
                Some(position) => position,
                None => match reader.seek(cursor)? {
                    Some(position) => position,
                    None => return Ok((None, Vec::new())),
                },
            };
            let lines = position.lines(cursor, LINES, BYTES)?;
            Ok::<_, io::Error>((Some(position), lines))
        });
        let (position, lines) = read.await.map_err(io::Error::other)??;
        self.position = position;
        Ok(lines)
    }

    fn hand_out(&mut self, lines: Vec<Line>) -> Vec<Line> {
        if let Some(last) = lines.last() {
            self.cursor = last.seq;
        }
        lines
    }
}
