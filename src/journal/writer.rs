//! The writing side of the log: numbering, writing, rotation. The recorder owns the [`Journal`].

use std::fs::File;
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::line::{Batch, Entry, Line};
use super::log::Log;
use super::meta::{Meta, MetaFile};
use super::segments::{ACTIVE_FILE, Found, Segment, sealed_name};
use super::sync::LogSync;
use crate::storage::{DirectoryLock, Disk};

/// How many numbers are reserved at once when events are rare.
///
/// Half of it is always left, which is as many lines as memory holds: while a failing disk loses no line, it does not delay
/// their publication either.
pub(super) const MIN_RESERVED_BLOCK: u64 = 2 * super::tail::MAX_TAIL_LINES as u64;
/// The largest number of numbers that are reserved at once.
const MAX_RESERVED_BLOCK: u64 = 8 * MIN_RESERVED_BLOCK;

/// How much is written with one system call; the memory for more is returned to the system after each use, which takes longer.
const WRITE_BYTES: usize = 32 * 1024;
/// A longer line is written without being copied.
const LONG_LINE_BYTES: usize = 8 * WRITE_BYTES;
/// The name of a file that could not be synced and whose lines are all in another one.
const UNSYNCED_FILE: &str = "events.unsynced";

/// Size limits of the log.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A segment with this many bytes is followed by a new one.
    pub segment_bytes: u64,
    /// The limit of all segments together; the oldest are removed.
    pub total_bytes: u64,
}

/// The log, open for writing; there is one per process.
#[derive(Debug)]
pub struct Journal {
    pub(super) disk: Disk,
    pub(super) log: Arc<Log>,
    pub(super) limits: Limits,
    pub(super) meta: Meta,
    pub(super) meta_file: MetaFile,
    pub(super) file: Arc<File>,
    /// How many bytes of the file are whole lines.
    pub(super) size: u64,
    pub(super) next_seq: u64,
    pub(super) sync: Arc<LogSync>,
    pub(super) block: u64,
    pub(super) reserved_at: Option<Instant>,
    pub(super) failing: Option<Failing>,
    /// The lock of a directory that was created again after the locked one was removed.
    pub(super) lock: Option<DirectoryLock>,
}

/// Why the log cannot be written now, and what to do about it.
#[derive(Debug)]
pub(super) struct Failing {
    /// The first number that is not in the file.
    pub(super) first_seq: u64,
    /// Whether the lines must go to another file.
    pub(super) new_file: bool,
    pub(super) reason: String,
}

impl Journal {
    /// The readable side.
    pub fn log(&self) -> Arc<Log> {
        Arc::clone(&self.log)
    }

    /// The part that syncs the log.
    pub fn sync(&self) -> Arc<LogSync> {
        Arc::clone(&self.sync)
    }

    /// Why the log cannot be written now.
    pub fn failing(&self) -> Option<&str> {
        self.failing.as_ref().map(|failing| failing.reason.as_str())
    }

    /// Numbers, renders and writes a batch; `at` is its time in RFC 3339.
    ///
    /// Returns the lines even if they could not be written; see [`Journal::failing`].
    pub fn append<'a>(&mut self, at: &str, entries: impl Iterator<Item = Entry<'a>> + Clone) -> Vec<Line> {
        let first_seq = self.next_seq;
        let mut batch = Batch::for_entries(entries.clone());
        for entry in entries {
            batch.push(self.next_seq, at, entry);
            self.next_seq += 1;
        }
        let lines = batch.finish();
        #[cfg(feature = "mutations")]
        if self.disk.is_broken("publish-before-write") {
            self.log.tail.push(lines.clone(), self.meta.reserved_through);
            // As long as a disk may take, so that a kill hits this gap now and then.
            std::thread::sleep(Duration::from_millis(5));
        }
        if self.failing.is_none()
            && let Err((error, new_file)) = self.store(&lines)
        {
            self.failing = Some(Failing { first_seq, new_file, reason: error.to_string() });
        }
        lines
    }

    /// Publishes lines that [`Journal::append`] returned.
    ///
    /// Lines whose numbers could not be reserved are held back: after a crash, other events would get the same numbers.
    pub fn publish(&self, lines: Vec<Line>) {
        #[cfg(feature = "mutations")]
        if self.disk.is_broken("publish-before-write") {
            return;
        }
        self.log.tail.push(lines, self.meta.reserved_through);
    }

    /// Records an orderly end, so that the next run skips no number.
    pub fn close(&mut self) -> io::Result<()> {
        self.sync.sync()?;
        self.meta.reserved_through = self.next_seq - 1;
        self.save_meta()
    }

    /// Records reported damage, so that it is reported once.
    pub fn remember_damage(&mut self, keys: impl IntoIterator<Item = (u64, u64)>) -> io::Result<()> {
        self.meta.damage.extend(keys);
        self.save_meta()
    }

    pub(super) fn save_meta(&mut self) -> io::Result<()> {
        self.meta.synced_through = self.sync.synced_through();
        let (skipped, missing) = self.log.continuity.kept(self.log.bounds().oldest);
        (self.meta.skipped, self.meta.missing) = (Some(skipped), missing);
        self.meta_file.save(&self.meta)
    }

    /// Writes lines; the error reports whether they must go to another file.
    pub(super) fn store(&mut self, lines: &[Line]) -> Result<(), (io::Error, bool)> {
        let Some(last) = lines.last() else { return Ok(()) };
        let in_place = |error| (error, false);
        self.reserve(last.seq).map_err(in_place)?;
        let bytes: usize = lines.iter().map(|line| line.json().len() + 1).sum();
        if self.size > 0 && self.size + bytes as u64 > self.limits.segment_bytes {
            self.rotate(lines, bytes as u64);
        }
        let mut text = Vec::with_capacity(bytes.min(2 * WRITE_BYTES));
        for (index, line) in lines.iter().enumerate() {
            if line.len() > LONG_LINE_BYTES {
                self.disk.write_all(&self.file, &text).map_err(in_place)?;
                self.disk.write_all(&self.file, line.json()).map_err(in_place)?;
                text.clear();
            } else {
                text.extend_from_slice(line.json());
            }
            text.push(b'\n');
            if text.len() >= WRITE_BYTES || index + 1 == lines.len() {
                self.disk.write_all(&self.file, &text).map_err(in_place)?;
                text.clear();
            }
        }
        self.size += bytes as u64;
        self.sync.written(last.seq, self.size);
        self.log.metrics.wrote(lines.len(), bytes);
        Ok(())
    }

    /// Reserves every number through `seq` ahead of time, so that none of them is used again after a crash.
    pub(super) fn reserve(&mut self, seq: u64) -> io::Result<()> {
        if seq + self.block / 2 <= self.meta.reserved_through {
            return Ok(());
        }
        // While events are frequent, larger blocks keep this rare; while they are rare, small ones skip few numbers after a
        // crash.
        let fast = self.reserved_at.is_some_and(|at| at.elapsed() < Duration::from_secs(1));
        self.block = if fast { (self.block * 2).min(MAX_RESERVED_BLOCK) } else { MIN_RESERVED_BLOCK };
        self.reserved_at = Some(Instant::now());
        let before = self.meta.reserved_through;
        self.meta.reserved_through = seq + self.block;
        let saved = self.save_meta();
        if saved.is_err() {
            self.meta.reserved_through = before;
            if seq <= before {
                return Ok(());
            }
        }
        saved
    }

    /// Begins a new segment for lines of `bytes` bytes; if that fails, the old one stays active.
    fn rotate(&mut self, lines: &[Line], bytes: u64) {
        let first_seq = lines.first().map_or(self.next_seq, |line| line.seq);
        match self.sync.check_path().and_then(|()| self.rotate_at(first_seq)) {
            Ok(()) => self.remove_oldest(bytes.max(self.limits.segment_bytes)),
            Err(error) => tracing::warn!(%error, "failed to rotate the event log; the segment grows on"),
        }
    }

    /// Seals the active file and opens another one, whose first line will be `first_seq`.
    ///
    /// A file whose lines are all rewritten is set aside instead: no two segments begin with the same number.
    pub(super) fn rotate_at(&mut self, first_seq: u64) -> io::Result<()> {
        let mut segments = self.log.segments.write().unwrap_or_else(PoisonError::into_inner);
        let active = self.log.directory.join(ACTIVE_FILE);
        let again = segments.last().is_some_and(|current| current.first_seq >= first_seq);
        let (disk, directory, size) = (&self.disk, &self.log.directory, self.size);
        self.file = self.sync.rotate(|written| {
            if let Some(current) = segments.last_mut() {
                current.bytes = size;
                if current.path == active {
                    let name = if again { UNSYNCED_FILE.to_owned() } else { sealed_name(current.first_seq) };
                    let sealed = directory.join(name);
                    // The name is taken only if a damaged line gave its number to this file: no line may be lost.
                    if !again && std::fs::symlink_metadata(&sealed).is_ok() {
                        let moved = disk.set_aside(&sealed)?;
                        tracing::warn!(path = %moved.display(), "moved a segment with the number of another one");
                    }
                    disk.rename(&active, &sealed)?;
                    written.path.clone_from(&sealed);
                    current.path = sealed;
                }
            }
            // If this fails, the file stays active under its new name.
            let file = Arc::new(disk.open_append(&active)?);
            written.path.clone_from(&active);
            Ok(file)
        })?;
        self.size = 0;
        while let Some(rewritten) = segments.pop_if(|segment| segment.first_seq >= first_seq) {
            // None of its lines was acked, and all are rewritten.
            if rewritten.path != self.log.directory.join(UNSYNCED_FILE)
                && let Err(error) = self.disk.remove(&rewritten.path)
            {
                tracing::warn!(%error, path = %rewritten.path.display(), "failed to remove a segment");
            }
        }
        segments.push(Segment { first_seq, path: active, bytes: 0, found: Found::default() });
        self.log.note_oldest(&segments);
        Ok(())
    }

    /// Removes the oldest segments until `bytes_needed` bytes fit within the size limit.
    pub(super) fn remove_oldest(&mut self, bytes_needed: u64) {
        let mut segments = self.log.segments.write().unwrap_or_else(PoisonError::into_inner);
        let mut total: u64 = segments.iter().map(|segment| segment.bytes).sum();
        while total + bytes_needed > self.limits.total_bytes && segments.len() > 1 {
            let oldest = segments.remove(0);
            total -= oldest.bytes;
            match self.disk.remove(&oldest.path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(%error, path = %oldest.path.display(), "failed to remove an old segment");
                    segments.insert(0, oldest);
                    break;
                }
            }
            self.log.note_oldest(&segments);
        }
    }
}
