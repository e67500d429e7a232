//! Opens the log in any state, and decides which numbers to skip.

use std::io;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, RwLock};

use super::continuity::Continuity;
use super::line::{Line, MAX_PLAUSIBLE_SEQ, seq_of};
use super::log::Log;
use super::meta::{self, Found, Meta, MetaFile};
use super::metrics::LogMetrics;
use super::segments::{ACTIVE_FILE, Found as FoundLines, Position, Segment, checked_seq, sealed};
use super::sync::{Current, LogSync};
use super::tail::Tail;
use super::writer::{Journal, Limits, MIN_RESERVED_BLOCK};
use crate::storage::Disk;

/// How much of the end of the log is searched for its newest lines, in bytes.
const MAX_TAIL_SEARCH_BYTES: u64 = 4 * 1024 * 1024;

/// The result of opening the log.
#[derive(Debug)]
pub struct Opened {
    /// The log.
    pub journal: Journal,
    /// What its owner should report.
    pub notices: Vec<Notice>,
    /// Damage that was reported in an earlier run.
    pub known_damage: Vec<(u64, u64)>,
}

/// Something that was found or done while the log was opened.
#[derive(Debug, PartialEq, Eq)]
pub struct Notice {
    /// As a sentence.
    pub message: String,
    /// The skipped numbers, first and last, if this is about them.
    pub skipped: Option<(u64, u64)>,
}

impl From<String> for Notice {
    fn from(message: String) -> Self {
        Self { message, skipped: None }
    }
}

/// Why the log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenFailure {
    /// A newer version of the program wrote it, in this format version.
    #[error("event-log.json has the layout {version}, and this codexd knows {known}")]
    Newer {
        /// The format version.
        version: u32,
        /// The highest format version that this program knows.
        known: u32,
    },
    /// The directory cannot be used.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What the state files know about the log.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// The newest number that was assigned.
    pub assigned: u64,
    /// The newest event that was on disk.
    pub synced: u64,
}

impl From<u64> for Known {
    /// All events up to this one were on disk.
    fn from(seq: u64) -> Self {
        Self { assigned: seq, synced: seq }
    }
}

impl Journal {
    /// Opens the log in `directory`, or begins one; `known` is what the state files know about it.
    ///
    /// Numbering continues after every number that may ever have been published: after a crash, the numbers of lines that a
    /// power cut may have removed are skipped. `recent` lines are read back into memory.
    /// Fails only when the directory cannot be used, or a newer version of the program used it.
    pub fn open(
        directory: &Path,
        disk: Disk,
        limits: Limits,
        known: impl Into<Known>,
        recent: usize,
    ) -> Result<Opened, OpenFailure> {
        let known = known.into();
        let mut notices: Vec<Notice> = Vec::new();
        let meta_file = MetaFile::new(directory, disk.clone());
        let mut is_copy = false;
        let found = match meta_file.load()? {
            Found::Good(meta) => Some(meta),
            Found::Copied(meta) => {
                is_copy = true;
                Some(meta)
            }
            Found::Newer(version) => {
                return Err(OpenFailure::Newer { version, known: meta::VERSION });
            }
            Found::Missing => None,
            Found::Bad(reason) => {
                notices.push(format!("event-log.json could not be read: {reason}.").into());
                None
            }
        };
        let max_seq =
            found.as_ref().map_or(MAX_PLAUSIBLE_SEQ, |meta| meta.reserved_through.max(known.assigned));

        let mut segments = sealed(directory)?;
        let path = directory.join(ACTIVE_FILE);
        let file = open_active(&disk, &path, &mut notices)?;
        let size = cut_torn_line(&disk, directory, &file, &mut notices)?;
        let active = Segment { first_seq: 0, path, bytes: size, found: FoundLines::default() };
        let (newest, latest) = newest_lines(segments.iter().chain([&active]).rev(), recent.max(1), max_seq)?;

        let synced = found.as_ref().map_or(0, |meta| meta.synced_through).max(known.synced);
        #[cfg(feature = "mutations")]
        let (synced, is_copy) = if disk.is_broken("no-epoch") { (0, false) } else { (synced, is_copy) };
        let is_named = found.is_some();
        let old_epoch = found.as_ref().map(|meta| meta.epoch.clone());
        let mut meta = match found {
            Some(meta) if latest >= synced && !is_copy => meta,
            Some(meta) => {
                let why = if latest < synced {
                    format!(
                        "The event log ends at event {latest} although event {synced} was synced: it was removed or \
                         replaced."
                    )
                } else {
                    "event-log.json is a copy: the event log was restored or copied.".to_owned()
                };
                notices
                    .push(format!("{why} Cursors of its previous epoch {} are invalid.", meta.epoch).into());
                Meta { epoch: Meta::new().epoch, ..meta }
            }
            None => Meta::new(),
        };
        if !is_named && latest < known.synced {
            notices.push(
                format!(
                    "The event log in {} is missing: it ends at event {latest}, but the state files contain event {}. \
                     The sessions are read from the state files. A new event log (epoch {}) begins; cursors of the \
                     previous one are invalid.",
                    directory.display(),
                    known.assigned,
                    meta.epoch
                )
                .into(),
            );
        } else if !is_named && known.assigned > 0 && notices.is_empty() {
            notices.push(
                format!(
                    "event-log.json is missing: the event log gets a new epoch ({}), and cursors of the previous \
                     epoch are invalid.",
                    meta.epoch
                )
                .into(),
            );
        }
        let last_assigned = latest.max(known.assigned).max(meta.reserved_through);
        #[cfg(feature = "mutations")]
        let last_assigned = if disk.is_broken("reuse-numbers") { latest } else { last_assigned };
        let mut skipped = match meta.skipped.take() {
            Some(skipped) => skipped,
            None => skipped_by_lines(segments.iter().chain([&active]))?,
        };
        if latest > 0 && last_assigned > latest {
            skipped.push((latest + 1, last_assigned));
            notices.push(Notice {
                message: format!(
                    "codexd was not stopped cleanly; the numbers {} to {last_assigned} are skipped, because clients may \
                     have received them.",
                    latest + 1
                ),
                skipped: Some((latest + 1, last_assigned)),
            });
        }
        let next_seq = last_assigned + 1;
        let first_seq = first_seq(&active, max_seq)?.unwrap_or(next_seq);
        segments.retain(|segment| segment.first_seq < first_seq);
        segments.push(Segment { first_seq, ..active });
        for segment in &mut segments {
            segment.found = FoundLines { bytes: segment.bytes, highest: last_assigned };
        }

        let tail = Tail::new(last_assigned);
        tail.push(newest, last_assigned);
        let metrics = Arc::new(LogMetrics::new());
        let log = Arc::new(Log {
            epoch: meta.epoch.clone(),
            directory: directory.to_owned(),
            oldest: AtomicU64::new(segments.first().map_or(u64::MAX, |segment| segment.first_seq)),
            segments: RwLock::new(segments),
            tail,
            rewrites: RwLock::new(0),
            metrics: Arc::clone(&metrics),
            continuity: Continuity::new(skipped, std::mem::take(&mut meta.missing)),
            #[cfg(feature = "mutations")]
            skipped: u64::from(disk.is_broken("skip-tail")),
        });
        let file = Arc::new(file);
        let current = Current { file: Arc::clone(&file), path: directory.join(ACTIVE_FILE), bytes: size };
        let sync = LogSync::new(disk.clone(), directory.to_owned(), current, latest, metrics);
        let sync = Arc::new(sync);
        let known_damage = meta.damage.clone();
        if old_epoch.as_ref() != Some(&meta.epoch)
            && let Err(error) = meta_file.save(&Meta { synced_through: latest, ..meta.clone() })
        {
            // Tried again with the first event.
            tracing::warn!(%error, "failed to write event-log.json");
        }
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
            block: MIN_RESERVED_BLOCK,
            reserved_at: None,
            failing: None,
            lock: None,
        };
        Ok(Opened { journal, notices, known_damage })
    }
}

/// Opens the active file; anything else at its path is moved away.
fn open_active(disk: &Disk, path: &Path, notices: &mut Vec<Notice>) -> io::Result<std::fs::File> {
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()) {
        let moved = disk.set_aside(path)?;
        notices
            .push(format!("{} was a directory and was moved to {}.", path.display(), moved.display()).into());
    }
    disk.open_append(path)
}

/// Cuts off an unfinished last line and sets it aside; returns the length of the rest.
fn cut_torn_line(
    disk: &Disk,
    directory: &Path,
    file: &std::fs::File,
    notices: &mut Vec<Notice>,
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
        let aside = directory.join("events.torn");
        disk.replace(&aside, &torn)?;
        disk.truncate(file, whole)?;
        notices.push(
            format!(
                "The last line of {ACTIVE_FILE} was unfinished; its {} bytes were moved to {}.",
                torn.len(),
                aside.display()
            )
            .into(),
        );
    }
    Ok(whole)
}

/// The newest lines, oldest first, from the end of the files given newest first, and the highest number there.
///
/// The highest number counts even if its line is damaged: it must not be used again.
fn newest_lines<'a>(
    files: impl Iterator<Item = &'a Segment>,
    count: usize,
    max_seq: u64,
) -> io::Result<(Vec<Line>, u64)> {
    let (mut found, mut highest): (Vec<Line>, u64) = (Vec::new(), 0);
    for segment in files {
        let (lines, highest_here) = last_lines(segment, count - found.len(), max_seq)?;
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

/// The last whole lines of one file, newest first, at most `count`, and the highest number among the lines searched.
fn last_lines(segment: &Segment, count: usize, max_seq: u64) -> io::Result<(Vec<Line>, u64)> {
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
            // A partial line.
            parts.next();
        }
        let mut highest = 0;
        let line = |json| {
            let seq = seq_of(json).filter(|&seq| seq <= max_seq)?;
            highest = highest.max(seq);
            checked_seq(json).map(|seq| Line::from_json(seq, json))
        };
        let lines: Vec<_> = parts.rev().filter_map(line).take(count).collect();
        if lines.len() == count || start == 0 || (size >= MAX_TAIL_SEARCH_BYTES && !lines.is_empty()) {
            return Ok((lines, highest));
        }
        size *= 4;
    }
}

/// The number of the first whole line of a file.
fn first_seq(segment: &Segment, max_seq: u64) -> io::Result<Option<u64>> {
    let mut first = None;
    super::segments::Position::find(segment, 0)?.scan(|_, json| {
        // No line has the number 0.
        first = seq_of(json).filter(|&seq| seq > 0 && seq <= max_seq);
        first.is_none()
    })?;
    Ok(first)
}

/// How many lines after a gap are searched for the event that names the skipped numbers: a start records some other events
/// before it.
const LINES_OF_A_START: usize = 16;

/// The numbers skipped after crashes, as the events after each gap name them.
///
/// For a log whose `event-log.json` is lost or of an earlier version.
pub(super) fn skipped_by_lines<'a>(files: impl Iterator<Item = &'a Segment>) -> io::Result<Vec<(u64, u64)>> {
    let mut skipped = Vec::new();
    let (mut last, mut jump, mut lines_checked) = (0, None, 0);
    for segment in files {
        Position::find(segment, 0)?.scan(|_, json| {
            let Some(seq) = seq_of(json).filter(|&seq| seq > last) else { return true };
            if last > 0 && seq > last + 1 {
                (jump, lines_checked) = (Some((last + 1, seq - 1)), 0);
            }
            last = seq;
            if let Some((from, through)) = jump {
                lines_checked += 1;
                if let Some(named) = skipped_numbers(json).filter(|named| named.1 == through) {
                    skipped.push((named.0.max(from), through));
                    jump = None;
                } else if lines_checked == LINES_OF_A_START {
                    jump = None;
                }
            }
            true
        })?;
    }
    Ok(skipped)
}

/// The skipped numbers that a `state.recovered` event names; parsed from its message, which all versions have.
fn skipped_numbers(json: &[u8]) -> Option<(u64, u64)> {
    let text = std::str::from_utf8(json).ok().filter(|text| text.contains("\"type\":\"state.recovered\""))?;
    let (_, numbers) = text.split_once("; the numbers ")?;
    let (numbers, _) = numbers.split_once(" are skipped")?;
    let (from, through) = numbers.split_once(" to ")?;
    Some((from.parse().ok()?, through.parse().ok()?))
}
