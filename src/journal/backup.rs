//! Copies the log to another directory while a daemon may be writing it. `codexd backup` calls it.
//!
//! The daemon renames the active file and removes the oldest ones at any time, and nothing here prevents that. The order of
//! steps makes the copy complete:
//!
//! 1. The active file is opened. The older files are those before it in a list that is made afterwards, or all of them when
//!    two lists show that no rotation happened. The open file stays the successor of the newest older file, whatever its name
//!    becomes.
//! 2. It is copied first, and then the older files from the newest to the oldest. Rotation removes files from the other end,
//!    so the first missing file ends the copy, and none in the middle can be missed.
//! 3. `event-log.json` is read again after the last line was copied, because numbers are reserved there before they are used.
//!    It is never copied as a file: the new one is marked as a copy, so that the copied log gets a new epoch.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use super::continuity::Continuity;
use super::damage::Hole;
use super::line::seq_of;
use super::meta::{self, Found, Meta, MetaFile};
use super::open::{OpenFailure, skipped_by_lines};
use super::segments::{ACTIVE_FILE, Found as FoundLines, Position, Segment, sealed};
use crate::storage::Disk;

/// How often a copy is tried.
const MAX_COPY_ATTEMPTS: usize = 5;
/// How often the active file is opened, [`OPEN_RETRY_INTERVAL`] apart: a rotation takes some microseconds.
const MAX_OPEN_ATTEMPTS: usize = 200;
const OPEN_RETRY_INTERVAL: Duration = Duration::from_millis(5);
/// How much is copied at once.
const COPY_BLOCK_BYTES: usize = 256 * 1024;

/// A copy of the log.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct CopiedLog {
    /// The numbers of the first and the last event; `None` when there are none.
    pub events: Option<(u64, u64)>,
    /// The size of all files, in bytes.
    pub bytes: u64,
    /// Missing events between them that the log itself lacks.
    pub holes: Vec<Hole>,
}

/// Copies the log in the directory `from`, which a daemon may be writing, to the directory `to`.
///
/// The copy has every event that was on disk before the call, and maybe some that were written during it.
/// Fails when a file cannot be read or written, or a newer version of the program wrote the log.
pub fn copy(disk: &Disk, from: &Path, to: &Path) -> Result<CopiedLog, OpenFailure> {
    let mut before = None;
    for _ in 0..MAX_COPY_ATTEMPTS {
        let Some(copied) = copy_once(disk, from, to)? else { continue };
        // What is missing in two copies is missing in the log itself.
        let settled = copied.holes.is_empty() || before.as_ref() == Some(&copied.holes);
        before = Some(copied.holes.clone());
        if settled {
            return Ok(copied);
        }
    }
    let reason = format!(
        "the files of the event log in {} were changed during each of {MAX_COPY_ATTEMPTS} tries",
        from.display()
    );
    Err(io::Error::other(reason).into())
}

/// One try; `None` when the copy lacks a file that the log has.
fn copy_once(disk: &Disk, from: &Path, to: &Path) -> Result<Option<CopiedLog>, OpenFailure> {
    let copied_active = to.join(ACTIVE_FILE);
    let left = sealed(to)?.into_iter().map(|segment| segment.path);
    for left in left.chain(copied_active.exists().then(|| copied_active.clone())) {
        disk.remove(&left)?;
    }
    let before = meta_of(disk, from)?;
    let (older, active) = files(disk, from)?;
    let mut bytes = 0;
    match &active {
        Some(file) => bytes += copy_lines(disk, file, &copied_active)?,
        None => disk.replace(&copied_active, b"")?,
    }
    let mut copied = BTreeSet::new();
    for segment in older.iter().rev() {
        let file = match disk.open_read(&segment.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            opened => opened?,
        };
        let Some(name) = segment.path.file_name() else { continue };
        bytes += copy_lines(disk, &file, &to.join(name))?;
        copied.insert(segment.first_seq);
    }
    // Segments that were sealed since then are the active one of the copy, or after it.
    let newest = older.last().map_or(0, |segment| segment.first_seq);
    let still = sealed(from)?;
    if still.iter().any(|segment| segment.first_seq <= newest && !copied.contains(&segment.first_seq)) {
        return Ok(None);
    }

    let mut segments = sealed(to)?;
    segments.push(Segment { first_seq: 0, path: copied_active, bytes: 0, found: FoundLines::default() });
    let meta = together(before, meta_of(disk, from)?);
    let skipped = match meta.as_ref().and_then(|meta| meta.skipped.clone()) {
        Some(skipped) => skipped,
        None => skipped_by_lines(segments.iter())?,
    };
    let mut log = read_through(&segments, &Continuity::new(skipped, Vec::new()))?;
    if let Some(meta) = meta {
        let last = log.events.map_or(0, |(_, last)| last);
        let meta = Meta { synced_through: meta.synced_through.min(last), ..meta };
        bytes += MetaFile::new(to, disk.clone()).save_as_copy(&meta)?;
    }
    disk.sync_directory(to)?;
    log.bytes = bytes;
    Ok(Some(log))
}

/// The older files, oldest first, and the open file that follows them; `None` when there is no such file.
fn files(disk: &Disk, from: &Path) -> io::Result<(Vec<Segment>, Option<File>)> {
    let newest = |segments: &[Segment]| segments.last().map(|segment| segment.first_seq);
    let mut older = sealed(from)?;
    let mut missing = false;
    for _ in 0..MAX_OPEN_ATTEMPTS {
        let active = match disk.open_read(&from.join(ACTIVE_FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            opened => Some(opened?),
        };
        let mut again = sealed(from)?;
        if let Some(file) = &active
            && let Some(index) = place_of(file, &again)?
        {
            // It was sealed since it was opened; its predecessors are before it in the list.
            again.truncate(index);
            return Ok((again, active));
        }
        let same = newest(&older) == newest(&again);
        older = again;
        match active {
            Some(active) if same => return Ok((older, Some(active))),
            Some(_) => {}
            // A directory that was never used has none; a missing file is not waited for more than once.
            None if missing && same => std::thread::sleep(OPEN_RETRY_INTERVAL),
            None => missing = true,
        }
    }
    if missing {
        return Ok((older, None));
    }
    Err(io::Error::other(format!("{} was replaced all the time", from.join(ACTIVE_FILE).display())))
}

/// The index of this file among the older ones.
fn place_of(file: &File, older: &[Segment]) -> io::Result<Option<usize>> {
    let inode = file.metadata()?.ino();
    // A file that is removed meanwhile is a different one.
    let is_it = |segment: &Segment| std::fs::metadata(&segment.path).is_ok_and(|found| found.ino() == inode);
    Ok(older.iter().rposition(is_it))
}

/// Copies the whole lines that a file has now; returns their size in bytes.
fn copy_lines(disk: &Disk, from: &File, to: &Path) -> io::Result<u64> {
    let copy = disk.open_append(to)?;
    let mut rest = from.take(from.metadata()?.len());
    let mut block = vec![0; COPY_BLOCK_BYTES];
    let (mut written, mut whole) = (0, 0);
    loop {
        let count = match rest.read(&mut block) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        disk.write_all(&copy, &block[..count])?;
        if let Some(newline) = memchr::memrchr(b'\n', &block[..count]) {
            whole = written + newline as u64 + 1;
        }
        written += count as u64;
    }
    if whole < written {
        disk.truncate(&copy, whole)?;
    }
    disk.sync(&copy)?;
    Ok(whole)
}

/// The content of `event-log.json`; `None` when there is none or it is unusable.
fn meta_of(disk: &Disk, directory: &Path) -> Result<Option<Meta>, OpenFailure> {
    match MetaFile::new(directory, disk.clone()).peek()? {
        Found::Good(meta) | Found::Copied(meta) => Ok(Some(meta)),
        Found::Newer(version) => Err(OpenFailure::Newer { version, known: meta::VERSION }),
        Found::Missing | Found::Bad(_) => Ok(None),
    }
}

/// What is known about the lines that were copied between the two reads: the later one no longer lists numbers that the log
/// has removed since.
fn together(before: Option<Meta>, after: Option<Meta>) -> Option<Meta> {
    let after = after?;
    let Some(before) = before else { return Some(after) };
    let both = |mut numbers: Vec<(u64, u64)>, more: Vec<(u64, u64)>| {
        numbers.extend(more);
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    };
    let skipped = before.skipped.zip(after.skipped).map(|(before, after)| both(before, after));
    Some(Meta { skipped, missing: both(before.missing, after.missing), ..after })
}

/// The first and last events of the files, and the events missing between them.
fn read_through(segments: &[Segment], continuity: &Continuity) -> io::Result<CopiedLog> {
    let mut log = CopiedLog::default();
    for segment in segments {
        Position::find(segment, 0)?.scan(|_, json| {
            let last = log.events.map_or(0, |(_, last)| last);
            if let Some(seq) = seq_of(json).filter(|&seq| seq > last) {
                if log.events.is_some() {
                    log.holes.extend(continuity.hole(last, seq));
                }
                log.events = Some((log.events.map_or(seq, |(first, _)| first), seq));
            }
            true
        })?;
    }
    Ok(log)
}
