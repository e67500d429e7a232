//! Reading the log's file from any cursor.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::line::{Line, seq_of};

/// How much is read at once, in bytes.
const BLOCK: usize = 64 * 1024;

/// Where a cursor stands in a file.
#[derive(Debug)]
pub(crate) struct Position {
    file: File,
    offset: u64,
}

/// Reads the log's file; cheap to clone, and independent of the one who writes.
#[derive(Debug, Clone)]
pub struct Reader {
    path: PathBuf,
}

impl Reader {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads every whole line after `cursor` and hands it on, until `each` says `false`.
    pub fn scan(&self, cursor: u64, mut each: impl FnMut(u64, &[u8]) -> bool) -> io::Result<()> {
        let Some(mut position) = self.seek(cursor)? else { return Ok(()) };
        loop {
            let mut lines = 0;
            let mut stop = false;
            position.read(|seq, json| {
                lines += 1;
                if seq > cursor && !stop {
                    stop = !each(seq, json);
                }
                !stop
            })?;
            if stop || lines == 0 {
                return Ok(());
            }
        }
    }

    /// The place of the first line after `cursor`, found by halving the file; `None` when there is no file.
    pub(crate) fn seek(&self, cursor: u64) -> io::Result<Option<Position>> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut low = 0;
        let mut high = file.metadata()?.len();
        // Invariant: every line that starts before `low` is at or before the cursor.
        while high - low > BLOCK as u64 {
            let middle = low + (high - low) / 2;
            match first_line_from(&file, middle)? {
                Some((start, seq)) if seq <= cursor && start < high => low = start,
                _ => high = middle,
            }
        }
        let mut position = Position { file, offset: low };
        position.skip_through(cursor)?;
        Ok(Some(position))
    }
}

impl Position {
    /// The lines from here on, about `max_bytes` at most; an empty answer means the end of what is written.
    pub(crate) fn lines(&mut self, cursor: u64, max_lines: usize, max_bytes: usize) -> io::Result<Vec<Line>> {
        let mut lines = Vec::new();
        let mut bytes = 0;
        while lines.len() < max_lines && bytes < max_bytes {
            let before = self.offset;
            self.read(|seq, json| {
                if lines.len() >= max_lines || (bytes >= max_bytes && !lines.is_empty()) {
                    return false;
                }
                if seq > cursor {
                    bytes += json.len();
                    lines.push(Line::from_json(seq, json));
                }
                true
            })?;
            if self.offset == before {
                break;
            }
        }
        Ok(lines)
    }

    fn skip_through(&mut self, cursor: u64) -> io::Result<()> {
        loop {
            let before = self.offset;
            let mut found = false;
            self.read(|seq, _| {
                found = seq > cursor;
                !found
            })?;
            if found || self.offset == before {
                return Ok(());
            }
        }
    }

    /// Reads one block, or one line when it is longer, and hands on its whole lines.
    ///
    /// A line that `each` refuses is read again next time; lines without a number are passed over.
    fn read(&mut self, mut each: impl FnMut(u64, &[u8]) -> bool) -> io::Result<()> {
        let mut block = vec![0; BLOCK];
        let mut filled = 0;
        loop {
            let count = self.file.read_at(&mut block[filled..], self.offset + filled as u64)?;
            filled += count;
            let whole = block[..filled].iter().rposition(|&byte| byte == b'\n');
            if let Some(end) = whole {
                for line in block[..=end].split_inclusive(|&byte| byte == b'\n') {
                    let json = &line[..line.len() - 1];
                    if let Some(seq) = seq_of(json)
                        && !each(seq, json)
                    {
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

/// The start and the number of the first numbered line that starts at or after `offset`.
fn first_line_from(file: &File, offset: u64) -> io::Result<Option<(u64, u64)>> {
    // One byte earlier, so that a line that starts exactly here is found by the newline before it.
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
