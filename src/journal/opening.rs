//! Opening the log, whatever state it was left in.

use std::io;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, RwLock};

use super::figures::Figures;
use super::line::{Line, seq_of};
use super::log::Log;
use super::meta::{Found, Meta, MetaFile};
use super::segments::{ACTIVE, Found as FoundLines, Segment, checked_seq, sealed};
use super::sync::LogSync;
use super::tail::Tail;
use super::writer::{BLOCK, Journal, Limits};
use crate::disk::Disk;

/// How much of the log's end is looked at for its newest lines, in bytes.
const TAIL: u64 = 4 * 1024 * 1024;
/// The highest number that is believed when nothing says how far the log went: what JSON readers count exactly.
pub(super) const BELIEVABLE: u64 = 1 << 53;

/// What was found when the log was opened.
#[derive(Debug)]
pub struct Opened {
    /// The log.
    pub journal: Journal,
    /// What its owner should know, as sentences.
    pub notices: Vec<String>,
    /// Damage that was reported in an earlier life.
    pub known_damage: Vec<(u64, u64)>,
}

impl Journal {
    /// Opens the log in `folder`, or begins one; `known` is the newest number that anything else remembers.
    ///
    /// Numbers go on after every one that may ever have been told: after a crash those of the lines that a power cut may
    /// have taken are skipped.
    /// `recent` lines are read back into memory.
    /// Fails only when the folder cannot be used.
    pub fn open(folder: &Path, disk: Disk, limits: Limits, known: u64, recent: usize) -> io::Result<Opened> {
        let mut notices = Vec::new();
        let meta_file = MetaFile::new(folder, disk.clone());
        let found = match meta_file.load()? {
            Found::Good(meta) => Some(meta),
            Found::Missing => None,
            Found::Bad(reason) => {
                notices.push(format!("event-log.json could not be read: {reason}."));
                None
            }
        };
        let believable = found.as_ref().map_or(BELIEVABLE, |meta| meta.reserved_through.max(known));

        let mut segments = sealed(folder)?;
        let path = folder.join(ACTIVE);
        let file = open_active(&disk, &path, &mut notices)?;
        let size = cut_torn_line(&disk, folder, &file, &mut notices)?;
        let active = Segment { first_seq: 0, path, bytes: size, found: FoundLines::default() };
        let (newest, latest) =
            newest_lines(segments.iter().chain([&active]).rev(), recent.max(1), believable)?;

        let synced = found.as_ref().map_or(0, |meta| meta.synced_through).max(known);
        #[cfg(feature = "mutations")]
        let synced = if disk.is_broken("no-epoch") { 0 } else { synced };
        let meta = match found {
            Some(meta) if latest >= synced => meta,
            Some(meta) => {
                notices.push(format!(
                    "The event log ends at event {latest} and once went on to event {synced}: it was lost or replaced, \
                     and cursors of the old one (epoch {}) lead nowhere.",
                    meta.epoch
                ));
                Meta { reserved_through: meta.reserved_through, ..Meta::new() }
            }
            None => Meta::new(),
        };
        let last_told = latest.max(known).max(meta.reserved_through);
        #[cfg(feature = "mutations")]
        let last_told = if disk.is_broken("reuse-numbers") { latest } else { last_told };
        if latest > 0 && last_told > latest {
            notices.push(format!(
                "codexd did not stop in order; the numbers {} to {last_told} are skipped, because they may have been told \
                 already.",
                latest + 1
            ));
        }
        let next_seq = last_told + 1;
        let first_seq = first_seq(&active, believable)?.unwrap_or(next_seq);
        segments.retain(|segment| segment.first_seq < first_seq);
        segments.push(Segment { first_seq, ..active });
        for segment in &mut segments {
            segment.found = FoundLines { bytes: segment.bytes, highest: last_told };
        }

        let tail = Tail::new(last_told);
        tail.push(&newest, last_told);
        let figures = Arc::new(Figures::new());
        let log = Arc::new(Log {
            epoch: meta.epoch.clone(),
            folder: folder.to_owned(),
            oldest: AtomicU64::new(segments.first().map_or(u64::MAX, |segment| segment.first_seq)),
            segments: RwLock::new(segments),
            tail,
            rewrites: RwLock::new(0),
            figures: Arc::clone(&figures),
            #[cfg(feature = "mutations")]
            skipped: u64::from(disk.is_broken("skip-tail")),
        });
        let file = Arc::new(file);
        let sync = LogSync::new(disk.clone(), folder.to_owned(), Arc::clone(&file), latest, figures);
        let sync = Arc::new(sync);
        let known_damage = meta.damage.clone();
        let journal = Journal {
            disk,
            log,
            limits,
            meta,
            meta_file,
            file,
            size,
            next_seq,
            sync,
            block: BLOCK,
            reserved_at: None,
            failing: None,
        };
        Ok(Opened { journal, notices, known_damage })
    }
}

/// Opens the file that is written; something else in its place is moved away.
fn open_active(disk: &Disk, path: &Path, notices: &mut Vec<String>) -> io::Result<std::fs::File> {
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()) {
        let moved = disk.set_aside(path)?;
        notices.push(format!("{} was a folder and was moved to {}.", path.display(), moved.display()));
    }
    disk.open_append(path)
}

/// Cuts an unfinished last line off and keeps it aside; returns the length of what is whole.
fn cut_torn_line(
    disk: &Disk,
    folder: &Path,
    file: &std::fs::File,
    notices: &mut Vec<String>,
) -> io::Result<u64> {
    use std::os::unix::fs::FileExt;
    let length = file.metadata()?.len();
    let mut whole = 0;
    let mut end = length;
    let mut block = vec![0; 64 * 1024];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let part = &mut block[..(end - start) as usize];
        file.read_exact_at(part, start)?;
        if let Some(newline) = memchr::memrchr(b'\n', part) {
            whole = start + newline as u64 + 1;
            break;
        }
        end = start;
    }
    if whole < length {
        let mut torn = vec![0; (length - whole) as usize];
        file.read_exact_at(&mut torn, whole)?;
        let aside = folder.join("events.torn");
        disk.replace(&aside, &torn)?;
        disk.truncate(file, whole)?;
        notices.push(format!(
            "The last line of {ACTIVE} was unfinished; its {} bytes were moved to {}.",
            torn.len(),
            aside.display()
        ));
    }
    Ok(whole)
}

/// The newest lines, oldest first, from the end of the files given newest first, and the highest number there.
///
/// The highest number counts, wherever it stands and whatever became of its line: a damaged line must not make its number
/// be used again.
fn newest_lines<'a>(
    files: impl Iterator<Item = &'a Segment>,
    count: usize,
    believable: u64,
) -> io::Result<(Vec<Line>, u64)> {
    let (mut found, mut highest): (Vec<Line>, u64) = (Vec::new(), 0);
    for segment in files {
        let (lines, highest_here) = last_lines(segment, count - found.len(), believable)?;
        found.extend(lines);
        highest = highest.max(highest_here);
        if found.len() >= count {
            break;
        }
    }
    let newest = found.iter().map(|line| line.seq).max().unwrap_or(0);
    let mut below = newest + 1;
    found.retain(|line| {
        let descends = line.seq < below && (below <= newest || line.seq == newest);
        if descends {
            below = line.seq;
        }
        descends
    });
    found.reverse();
    Ok((found, highest))
}

/// The last whole lines of one file, newest first, `count` at most, and the highest number among those looked at.
fn last_lines(segment: &Segment, count: usize, believable: u64) -> io::Result<(Vec<Line>, u64)> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::open(&segment.path)?;
    let length = segment.bytes.min(file.metadata()?.len());
    let mut size = 64 * 1024;
    loop {
        let start = length.saturating_sub(size);
        let mut block = vec![0; (length - start) as usize];
        file.read_exact_at(&mut block, start)?;
        let mut parts = block.split(|&byte| byte == b'\n');
        if start > 0 {
            // Half a line.
            parts.next();
        }
        let mut highest = 0;
        let line = |json| {
            let seq = seq_of(json).filter(|&seq| seq <= believable)?;
            highest = highest.max(seq);
            checked_seq(json).map(|seq| Line::from_json(seq, json))
        };
        let lines: Vec<_> = parts.rev().filter_map(line).take(count).collect();
        if lines.len() == count || start == 0 || (size >= TAIL && !lines.is_empty()) {
            return Ok((lines, highest));
        }
        size *= 4;
    }
}

/// The number of the first whole line of a file.
fn first_seq(segment: &Segment, believable: u64) -> io::Result<Option<u64>> {
    let mut first = None;
    super::segments::Position::find(segment, 0)?.scan(|_, json| {
        // No line has the number 0.
        first = seq_of(json).filter(|&seq| seq > 0 && seq <= believable);
        first.is_none()
    })?;
    Ok(first)
}
