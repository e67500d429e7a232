//! The segments, which are the files of the log: lists them, and reads them from any cursor.
//!
//! The active segment is `events.jsonl`; a sealed one carries its first number in its name and is never written again. The log,
//! subscriptions, scrubs and backups read through a [`Position`]. Reading never changes a file; damaged lines are skipped.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::line::{Line, seq_of};

/// The name of the active file, to which lines are appended.
pub(crate) const ACTIVE_FILE: &str = "events.jsonl";
/// The size of a read, in bytes.
const READ_BLOCK_BYTES: usize = 64 * 1024;

/// One file of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The number of its first line; in an empty file, of the next line.
    pub(crate) first_seq: u64,
    pub(crate) path: PathBuf,
    /// The size in bytes; for the active file the journal has the current value.
    pub(crate) bytes: u64,
    /// The part that existed when the log was opened.
    pub(crate) found: Found,
}

/// The part of a file that earlier runs of the program wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Found {
    /// The length in bytes.
    pub(crate) bytes: u64,
    /// The highest number that a line in it can have: a line with a higher one is damaged.
    pub(crate) highest: u64,
}

impl Found {
    /// Whether the line that begins at `offset` can have this number.
    pub(crate) fn can_have(self, offset: u64, seq: u64) -> bool {
        offset >= self.bytes || seq <= self.highest
    }
}

/// The file name of a sealed segment.
pub(crate) fn sealed_name(first_seq: u64) -> String {
    // As many digits as the highest number, so that the names sort like the numbers.
    format!("events-{first_seq:020}.jsonl")
}

/// The sealed segments of a directory, oldest first.
pub(crate) fn sealed(directory: &Path) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let digits = name
            .to_str()
            .and_then(|name| name.strip_prefix("events-"))
            .and_then(|rest| rest.strip_suffix(".jsonl"));
        let Some(first_seq) =
            digits.filter(|digits| digits.len() == 20).and_then(|digits| digits.parse().ok())
        else {
            continue;
        };
        let metadata = match entry.metadata() {
            // The process whose log is copied removed or renamed it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            metadata => metadata?,
        };
        if metadata.is_file() {
            segments.push(Segment {
                first_seq,
                path: entry.path(),
                bytes: metadata.len(),
                found: Found::default(),
            });
        }
    }
    segments.sort_unstable_by_key(|segment| segment.first_seq);
    Ok(segments)
}

/// A position in a segment.
#[derive(Debug)]
pub(crate) struct Position {
    /// The first number of the segment.
    pub(crate) first_seq: u64,
    /// The part that existed when the log was opened.
    pub(crate) found: Found,
    file: File,
    offset: u64,
}

impl Position {
    /// The position of the first line after `cursor` in a segment, found by binary search.
    pub(crate) fn find(segment: &Segment, cursor: u64) -> io::Result<Self> {
        let file = File::open(&segment.path)?;
        let mut low = 0;
        let mut high = file.metadata()?.len();
        // Every line that starts before `low` is at or before the cursor.
        while high - low > READ_BLOCK_BYTES as u64 {
            let middle = low + (high - low) / 2;
            match first_line_from(&file, middle)? {
                Some((start, seq)) if seq <= cursor && start < high => low = start,
                _ => high = middle,
            }
        }
        Ok(Self { first_seq: segment.first_seq, found: segment.found, file, offset: low })
    }

    /// The beginning of a segment whose file is open.
    pub(crate) fn beginning(segment: &Segment, file: File) -> Self {
        Self { first_seq: segment.first_seq, found: segment.found, file, offset: 0 }
    }

    /// The lines from here on that are after `cursor` and up to `through`, at most `max_lines` and about `max_bytes`; an empty
    /// result means that there are no more.
    ///
    /// Damaged lines are skipped.
    pub(crate) fn lines(
        &mut self,
        cursor: u64,
        through: u64,
        max_lines: usize,
        max_bytes: usize,
    ) -> io::Result<Vec<Line>> {
        let mut lines: Vec<Line> = Vec::new();
        let mut bytes = 0;
        loop {
            let before = self.offset;
            let (mut next, found) = (self.offset, self.found);
            let mut full = false;
            self.read(|json| {
                let offset = next;
                next += json.len() as u64 + 1;
                full = lines.len() >= max_lines || (bytes >= max_bytes && !lines.is_empty());
                if full {
                    return false;
                }
                let last = lines.last().map_or(cursor, |line| line.seq);
                if let Some(seq) = checked_seq(json).filter(|&seq| seq > last && found.can_have(offset, seq))
                {
                    full = seq > through;
                    if full {
                        return false;
                    }
                    bytes += json.len();
                    lines.push(Line::from_json(seq, json));
                }
                true
            })?;
            if full || self.offset == before {
                return Ok(lines);
            }
        }
    }

    /// Calls `each` with every whole line from here on and the offset of its beginning, until it returns `false`.
    pub(crate) fn scan(&mut self, mut each: impl FnMut(u64, &[u8]) -> bool) -> io::Result<()> {
        loop {
            let before = self.offset;
            let mut offset = self.offset;
            let mut stop = false;
            self.read(|json| {
                stop = !each(offset, json);
                offset += json.len() as u64 + 1;
                !stop
            })?;
            if stop || self.offset == before {
                return Ok(());
            }
        }
    }

    /// Reads one block, or one line if that is longer, and calls `each` with its whole lines, without their newlines. A line
    /// for which `each` returns `false` is read again by the next call.
    fn read(&mut self, mut each: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
        let mut block = vec![0; READ_BLOCK_BYTES];
        let mut filled = 0;
        loop {
            let count = self.file.read_at(&mut block[filled..], self.offset + filled as u64)?;
            filled += count;
            if let Some(end) = memchr::memrchr(b'\n', &block[..filled]) {
                for line in block[..=end].split_inclusive(|&byte| byte == b'\n') {
                    if !each(&line[..line.len() - 1]) {
                        return Ok(());
                    }
                    self.offset += line.len() as u64;
                }
                return Ok(());
            }
            if count == 0 {
                return Ok(());
            }
            if filled == block.len() {
                block.resize(block.len() * 2, 0);
            }
        }
    }
}

/// The number of a line, if the line is valid JSON.
pub(crate) fn checked_seq(json: &[u8]) -> Option<u64> {
    let seq = seq_of(json)?;
    serde_json::from_slice::<serde::de::IgnoredAny>(json).is_ok().then_some(seq)
}

/// The start and the number of the first numbered line that starts at or after `offset`.
fn first_line_from(file: &File, offset: u64) -> io::Result<Option<(u64, u64)>> {
    // One byte earlier, so that the newline before a line that starts exactly here is seen.
    let from = offset.saturating_sub(1);
    let mut block = vec![0; 4096];
    loop {
        let count = fill(file, &mut block, from)?;
        let mut start = 0;
        for line in block[..count].split_inclusive(|&byte| byte == b'\n') {
            let begins_here = start > 0 || offset == 0;
            if begins_here && let Some(seq) = seq_of(line) {
                return Ok(Some((from + start as u64, seq)));
            }
            start += line.len();
        }
        if count < block.len() {
            return Ok(None);
        }
        block.resize(block.len() * 4, 0);
    }
}

/// Reads until the block is full or the file ends; returns the number of bytes.
fn fill(file: &File, block: &mut [u8], from: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match file.read_at(&mut block[filled..], from + filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}
