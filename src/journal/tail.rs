//! The newest lines in memory, and the notification of new ones.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::line::Line;

/// The limit of lines.
pub(super) const MAX_TAIL_LINES: usize = 16_384;
/// The limit of bytes, beyond the newest line.
const MAX_TAIL_BYTES: usize = 4 * 1024 * 1024;

/// The newest lines of the log.
///
/// The journal writes it and all readers use it; the lock is held only while pointers are copied.
#[derive(Debug)]
pub(crate) struct Tail {
    lines: Mutex<Kept>,
    latest: watch::Sender<u64>,
}

#[derive(Debug)]
struct Kept {
    lines: VecDeque<Line>,
    bytes: usize,
    /// The limit of lines.
    most: usize,
}

/// What memory has after a cursor.
#[derive(Debug)]
pub(crate) enum After {
    /// These lines, in order; none means that there is nothing new.
    Lines(Vec<Line>),
    /// The next line is no longer in memory.
    Behind,
}

impl Tail {
    pub(crate) fn new(latest: u64) -> Self {
        let kept = Kept { lines: VecDeque::new(), bytes: 0, most: MAX_TAIL_LINES };
        Self { lines: Mutex::new(kept), latest: watch::Sender::new(latest) }
    }

    /// Sets the limit of lines.
    #[cfg(test)]
    pub(crate) fn keep(&self, most: usize) {
        self.lock().most = most;
    }

    /// The number of the newest published line.
    pub(crate) fn latest(&self) -> u64 {
        *self.latest.borrow()
    }

    /// The newest published lines, oldest first, at most `count`.
    pub(crate) fn recent(&self, count: usize) -> Vec<Line> {
        let latest = self.latest();
        let kept = self.lock();
        let end = kept.lines.partition_point(|line| line.seq <= latest);
        kept.lines.range(end.saturating_sub(count)..end).cloned().collect()
    }

    /// All lines from this number on, including unpublished ones.
    pub(crate) fn from(&self, first_seq: u64) -> Vec<Line> {
        let kept = self.lock();
        let start = kept.lines.partition_point(|line| line.seq < first_seq);
        kept.lines.range(start..).cloned().collect()
    }

    /// The number of the oldest line in memory.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.lock().lines.front().map(|line| line.seq)
    }

    /// Adds lines, and publishes those up to `through`.
    pub(crate) fn push(&self, lines: Vec<Line>, through: u64) {
        {
            let mut kept = self.lock();
            for line in lines {
                kept.bytes += line.len();
                kept.lines.push_back(line);
            }
            while kept.lines.len() > kept.most || (kept.bytes > MAX_TAIL_BYTES && kept.lines.len() > 1) {
                let Some(dropped) = kept.lines.pop_front() else { break };
                kept.bytes -= dropped.len();
            }
        }
        self.set_visible_through(through);
    }

    /// Publishes the lines up to `through`.
    pub(crate) fn set_visible_through(&self, through: u64) {
        let Some(newest) = self.lock().lines.back().map(|line| line.seq) else { return };
        let shown = newest.min(through);
        // Never backwards: lines read back at the start are older than the numbers that may have been published.
        self.latest.send_if_modified(|latest| {
            let newer = shown > *latest;
            *latest = shown.max(*latest);
            newer
        });
    }

    /// The lines after `cursor`, at most `max_lines` and about `max_bytes`.
    pub(crate) fn after(&self, cursor: u64, max_lines: usize, max_bytes: usize) -> After {
        let latest = self.latest();
        if latest <= cursor {
            return After::Lines(Vec::new());
        }
        let kept = self.lock();
        match kept.lines.front() {
            Some(oldest) if oldest.seq <= cursor + 1 => {}
            _ => return After::Behind,
        }
        let start = kept.lines.partition_point(|line| line.seq <= cursor);
        let mut bytes = 0;
        let lines = kept.lines.range(start..).take(max_lines).take_while(|line| {
            let first = bytes == 0;
            bytes += line.len();
            line.seq <= latest && (first || bytes <= max_bytes)
        });
        After::Lines(lines.cloned().collect())
    }

    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // No operation leaves the lines half changed, so they are consistent even after a panic.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
