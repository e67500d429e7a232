//! The readable side of the log, shared by the recorder and all readers.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::continuity::Continuity;
use super::cursor::Bounds;
use super::damage::Damage;
use super::line::{Line, seq_of};
use super::metrics::LogMetrics;
use super::segments::{Position, Segment};
use super::tail::Tail;

/// The log as readers see it.
#[derive(Debug)]
pub struct Log {
    pub(super) epoch: String,
    pub(super) directory: PathBuf,
    /// Oldest first; the last one is being written.
    ///
    /// Held while files are opened and renamed, so never taken by an async task.
    pub(super) segments: RwLock<Vec<Segment>>,
    /// The first number of the oldest segment; [`u64::MAX`] when there is none.
    pub(super) oldest: AtomicU64,
    pub(super) tail: Tail,
    /// How often lines were removed from the files to be rewritten; older file positions are invalid afterwards.
    ///
    /// Held for reading while a reader uses a file, and for writing while lines are rewritten, which happens only after a failed
    /// write or sync.
    pub(super) rewrites: RwLock<u64>,
    pub(super) metrics: Arc<LogMetrics>,
    pub(super) continuity: Continuity,
    /// How many events a subscription skips before its first, as a deliberate bug.
    #[cfg(feature = "mutations")]
    pub(super) skipped: u64,
}

/// Where reading continues.
pub(crate) enum Seek {
    /// At this position.
    At(Position),
    /// The next line is no longer kept.
    Expired,
}

impl Log {
    /// The extent of the log.
    pub fn bounds(&self) -> Bounds {
        let latest = self.tail.latest();
        let oldest = self.oldest.load(Ordering::Acquire).min(latest + 1);
        Bounds { epoch: self.epoch.clone(), oldest, latest }
    }

    /// Updates the oldest number after the segments have changed.
    pub(super) fn note_oldest(&self, segments: &[Segment]) {
        self.oldest.store(segments.first().map_or(u64::MAX, |segment| segment.first_seq), Ordering::Release);
    }

    /// Counters of this run.
    pub fn metrics(&self) -> &LogMetrics {
        &self.metrics
    }

    /// The newest lines, oldest first, at most `count`.
    pub fn recent(&self, count: usize) -> Vec<Line> {
        self.tail.recent(count)
    }

    /// Notifies of new lines.
    pub fn news(&self) -> tokio::sync::watch::Receiver<u64> {
        self.tail.watch()
    }

    /// Calls `each` with every whole line after `cursor` that is on disk, in order, until it returns `false`.
    pub fn scan(&self, cursor: u64, mut each: impl FnMut(u64, &[u8]) -> bool) -> io::Result<()> {
        let mut last = cursor;
        let Some(mut position) = self.oldest_from(cursor)? else { return Ok(()) };
        loop {
            let next = self.after_segment(position.first_seq);
            let (mut stop, found) = (false, position.found);
            position.scan(|offset, json| {
                let seq = seq_of(json);
                if let Some(seq) = seq.filter(|&seq| seq > last && found.can_have(offset, seq)) {
                    last = seq;
                    stop = !each(seq, json);
                }
                !stop
            })?;
            match next {
                Some(next) if !stop => match self.open_segment(next, last)? {
                    Some(next) => position = next,
                    // Removed meanwhile.
                    None => position.first_seq = next,
                },
                _ => return Ok(()),
            }
        }
    }

    /// The position after `cursor`.
    pub(super) fn seek(&self, cursor: u64) -> io::Result<Seek> {
        loop {
            let first_seq = {
                let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
                let after = segments.partition_point(|segment| segment.first_seq <= cursor + 1);
                after.checked_sub(1).and_then(|index| segments.get(index)).map(|segment| segment.first_seq)
            };
            let Some(first_seq) = first_seq else { return Ok(Seek::Expired) };
            if let Some(position) = self.open_segment(first_seq, cursor)? {
                return Ok(Seek::At(position));
            }
        }
    }

    /// Checks that the sealed files of the log are as they were written, and reports what is not.
    ///
    /// Each sync checks the active file.
    pub fn check_files(self: &Arc<Self>) {
        let mut segments = self.segments.read().unwrap_or_else(PoisonError::into_inner).clone();
        segments.pop();
        for segment in segments {
            match std::fs::symlink_metadata(&segment.path) {
                // The list may be older than a rotation in the meantime.
                Err(error) if error.kind() == io::ErrorKind::NotFound => drop(self.forget(&segment)),
                Ok(found) if found.len() < segment.bytes && self.shortened(&segment, found.len()) => {
                    self.start_scrub()
                }
                _ => {}
            }
        }
    }

    /// Records that a file became shorter; `false` when that was known.
    fn shortened(&self, segment: &Segment, bytes: u64) -> bool {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        let known = segments.iter_mut().find(|known| *known == segment);
        known.map(|known| known.bytes = bytes).is_some()
    }

    /// Removes a file that was deleted from the list, and reports its events as missing; `false` when there was nothing to
    /// remove.
    fn forget(&self, segment: &Segment) -> bool {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        let index = segments.iter().position(|known| known == segment);
        let Some((index, next)) = index.and_then(|index| Some((index, segments.get(index + 1)?.first_seq)))
        else {
            // It is the active file, which the owner of the log has to check, or the deletion is known.
            let is_known = index.is_none();
            drop(segments);
            self.report(Vec::new());
            return is_known;
        };
        segments.remove(index);
        drop(segments);
        let after = segment.first_seq.saturating_sub(1);
        let missing = self.continuity.hole(after, next);
        if missing.is_some_and(|hole| self.continuity.mark_reported(hole)) {
            let (path, key) = (segment.path.clone(), (segment.first_seq, 0));
            self.report(vec![Damage { path, key, after, before: Some(next), bytes: segment.bytes, missing }]);
        }
        true
    }

    /// The first number of the segment after the one that begins at `first_seq`.
    pub(super) fn after_segment(&self, first_seq: u64) -> Option<u64> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.iter().map(|segment| segment.first_seq).find(|&next| next > first_seq)
    }

    /// The position after `cursor` in the segment that begins at `first_seq`; `None` when there is no such segment.
    pub(super) fn open_segment(&self, first_seq: u64, cursor: u64) -> io::Result<Option<Position>> {
        let (segment, opened) = {
            // Opened under the lock: after it, a rotation may have given the name to another file.
            let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
            let Some(segment) = segments.iter().find(|segment| segment.first_seq == first_seq) else {
                return Ok(None);
            };
            (segment.clone(), Position::find(segment, cursor))
        };
        match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.forget(&segment) => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// The position after `cursor`, or the oldest position if that is later.
    fn oldest_from(&self, cursor: u64) -> io::Result<Option<Position>> {
        match self.seek(cursor)? {
            Seek::At(position) => Ok(Some(position)),
            Seek::Expired => {
                let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
                segments.first().map(|segment| Position::find(segment, cursor)).transpose()
            }
        }
    }
}
