//! Recovers the log after a failed write or sync, or after its files were removed or replaced.
//!
//! The recorder calls [`Journal::recover`] until it succeeds. Lines keep their numbers and their order; numbers whose lines are
//! neither on disk nor in memory are reported as lost. A failed attempt can be repeated.

use std::io;
use std::sync::{Arc, PoisonError};

use super::damage::Hole;
use super::line::Line;
use super::segments::{ACTIVE_FILE, Found, Position};
use super::writer::{Failing, Journal};
use crate::storage::DirectoryLock;

/// The result of a recovery: the log can be written again.
#[derive(Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The numbers of the events that are neither on disk nor in memory any more, first and last.
    pub lost: Option<(u64, u64)>,
}

impl Journal {
    /// Writes the lines that could not be written, from memory. After an error it can be called again.
    ///
    /// After a failed sync, the lines since the last successful one go to a new file: what the system reports about the old
    /// file is no longer reliable.
    pub fn recover(&mut self) -> io::Result<Recovered> {
        if self.sync.failed() {
            // The file may have been replaced since then. If that cannot be found out, it counts as the same one.
            let _ = self.sync.check_path();
        }
        if let Some(reason) = self.sync.displaced() {
            return self.recover_displaced(reason);
        }
        if self.sync.failed() {
            let first_seq = self.sync.synced_through() + 1;
            let reason = "the event log could not be synced".to_owned();
            self.failing = Some(Failing { first_seq, new_file: true, reason });
        }
        let Some(failing) = &self.failing else { return Ok(Recovered { lost: None }) };
        let (mut first_seq, new_file) = (failing.first_seq, failing.new_file);
        let log = Arc::clone(&self.log);
        // Readers finish with the file first, and search their position again afterwards.
        let mut rewrites = log.rewrites.write().unwrap_or_else(PoisonError::into_inner);
        *rewrites += 1;
        let mut old = Vec::new();
        if new_file {
            let in_memory = self.log.tail.oldest().unwrap_or(self.next_seq);
            if in_memory > first_seq {
                old = self.copy(first_seq, in_memory)?;
            }
            self.rotate_at(first_seq)?;
            self.sync.replaced();
            // From here on, the new file can fail like any other.
            if let Some(failing) = &mut self.failing {
                failing.new_file = false;
            }
        } else {
            self.disk.truncate(&self.file, self.size)?;
        }
        let mut lost = None;
        let mut lines = old;
        if let Some(last) = lines.last() {
            first_seq = last.seq + 1;
        }
        let in_memory = self.log.tail.oldest().unwrap_or(self.next_seq);
        if in_memory > first_seq && first_seq < self.next_seq {
            lost = Some((first_seq, in_memory - 1));
            self.log.continuity.mark_reported(Hole { from: first_seq, through: in_memory - 1 });
            first_seq = in_memory;
        }
        lines.extend(self.log.tail.from(first_seq));
        self.store(&lines).map_err(|(error, _)| error)?;
        self.sync.rewritten();
        drop(rewrites);
        if new_file {
            // Only a successful sync shows that the disk works again.
            self.sync.sync()?;
        }
        self.failing = None;
        self.log.tail.set_visible_through(self.meta.reserved_through);
        Ok(Recovered { lost })
    }

    /// [`Journal::recover`] when the path of the active file no longer leads to the open file.
    ///
    /// The lines of the open file and of memory go to a new file; another file at the path is moved aside.
    fn recover_displaced(&mut self, reason: String) -> io::Result<Recovered> {
        let log = Arc::clone(&self.log);
        let Some(segment) = log.segments.read().unwrap_or_else(PoisonError::into_inner).last().cloned()
        else {
            return Err(io::Error::other("the event log has no file"));
        };
        let first_seq = segment.first_seq;
        self.failing = Some(Failing { first_seq, new_file: true, reason });
        if std::fs::symlink_metadata(&log.directory).is_err() {
            self.disk.create_directory(&log.directory)?;
            // The lock was removed with the directory.
            self.lock = Some(DirectoryLock::take(&self.disk, &log.directory).map_err(io::Error::other)?);
        }
        let mut rewrites = log.rewrites.write().unwrap_or_else(PoisonError::into_inner);
        *rewrites += 1;
        let mut open = Position::beginning(&segment, self.file.try_clone()?);
        let (mut text, mut last, mut lost): (Vec<u8>, u64, Option<Hole>) = (Vec::new(), first_seq - 1, None);
        let in_memory = log.tail.from(first_seq);
        let memory_from = in_memory.first().map_or(self.next_seq, |line| line.seq);
        let in_file = open.lines(first_seq - 1, memory_from - 1, usize::MAX, usize::MAX)?;
        for line in in_file.into_iter().chain(in_memory) {
            if let Some(hole) = log.continuity.hole(last, line.seq) {
                lost = Some(Hole { from: lost.map_or(hole.from, |lost| lost.from), through: hole.through });
                log.continuity.mark_reported(hole);
            }
            last = line.seq;
            text.extend_from_slice(line.json());
            text.push(b'\n');
        }
        self.reserve(last)?;
        let active = log.directory.join(ACTIVE_FILE);
        if std::fs::symlink_metadata(&active).is_ok() {
            let moved = self.disk.set_aside(&active)?;
            tracing::warn!(path = %moved.display(), "moved aside a file at the path of the event log");
        }
        self.disk.replace(&active, &text)?;
        {
            let mut segments = log.segments.write().unwrap_or_else(PoisonError::into_inner);
            let disk = &self.disk;
            self.file = self.sync.rotate(|written| {
                let file = Arc::new(disk.open_append(&active)?);
                written.path.clone_from(&active);
                Ok(file)
            })?;
            self.size = text.len() as u64;
            if let Some(current) = segments.last_mut() {
                (current.path, current.found) = (active, Found::default());
            }
        }
        self.sync.replaced_active();
        self.sync.written(last, self.size);
        self.sync.rewritten();
        drop(rewrites);
        self.sync.sync()?;
        // event-log.json may have been removed too.
        self.save_meta()?;
        self.failing = None;
        log.tail.set_visible_through(self.meta.reserved_through);
        Ok(Recovered { lost: lost.map(|hole| (hole.from, hole.through)) })
    }

    /// The lines from `first_seq` up to but not including `end` that can be read from the file that could not be synced.
    fn copy(&self, first_seq: u64, end: u64) -> io::Result<Vec<Line>> {
        let segment = {
            let segments = self.log.segments.read().unwrap_or_else(PoisonError::into_inner);
            let after = segments.partition_point(|segment| segment.first_seq <= first_seq);
            after.checked_sub(1).and_then(|index| segments.get(index)).cloned()
        };
        let Some(segment) = segment else { return Ok(Vec::new()) };
        let mut position = Position::find(&segment, first_seq - 1)?;
        let mut lines = position.lines(first_seq - 1, u64::MAX, usize::MAX, usize::MAX)?;
        // Only an unbroken run from the beginning is certainly what was written.
        let unbroken = lines.iter().zip(first_seq..end).take_while(|(line, seq)| line.seq == *seq).count();
        lines.truncate(unbroken);
        Ok(lines)
    }
}
