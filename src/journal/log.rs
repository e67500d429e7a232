//! The one who writes the log.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::line::{Batch, Entry, Line, seq_of};
use super::reader::Reader;
use super::tail::Tail;

/// The log, open for writing; there is one in a process.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Arc<File>,
    next_seq: u64,
    unwritten: Vec<u8>,
    tail: Arc<Tail>,
}

/// What was found when the log was opened.
#[derive(Debug)]
pub struct Opened {
    /// The log.
    pub journal: Journal,
    /// How many bytes of an unfinished last line were cut off.
    pub torn_bytes: u64,
}

impl Journal {
    /// Opens the log at `path`, or begins one; numbers go on after the newest line and after `at_least`.
    ///
    /// An unfinished last line, left by a crash in the middle of a write, is cut off; it was never told to
    /// anybody.
    pub fn open(path: &Path, at_least: u64, recent: usize) -> io::Result<Opened> {
        let file = OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(path)?;
        let length = file.metadata()?.len();
        let whole = whole_length(&file, length)?;
        if whole < length {
            file.set_len(whole)?;
        }
        let reader = Reader::new(path);
        let newest = newest_lines(&file, whole, recent)?;
        let latest = newest.last().map_or(0, |line| line.seq);
        let tail = Arc::new(Tail::new(latest));
        tail.push(&newest);
        let journal = Journal {
            path: reader.path().to_owned(),
            file: Arc::new(file),
            next_seq: latest.max(at_least) + 1,
            unwritten: Vec::new(),
            tail,
        };
        Ok(Opened { journal, torn_bytes: length - whole })
    }

    /// Numbers, renders and writes a batch with one call to the system; `at` is its time as RFC 3339.
    ///
    /// The lines are returned also when the write failed: they keep their numbers, and the next batch takes
    /// them along.
    pub fn append<'a>(
        &mut self,
        at: &str,
        entries: impl Iterator<Item = Entry<'a>>,
    ) -> (Vec<Line>, io::Result<()>) {
        let mut batch = Batch::default();
        for entry in entries {
            batch.push(self.next_seq, at, entry);
            self.next_seq += 1;
        }
        let lines = batch.finish();
        for line in &lines {
            self.unwritten.extend_from_slice(line.json());
            self.unwritten.push(b'\n');
        }
        let written = self.write();
        (lines, written)
    }

    /// Tells the readers about lines that [`Journal::append`] returned.
    pub fn publish(&self, lines: &[Line]) {
        self.tail.push(lines);
    }

    /// The file, for whoever syncs it.
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// The newest lines in memory.
    pub fn tail(&self) -> Arc<Tail> {
        Arc::clone(&self.tail)
    }

    /// A reader of the file.
    pub fn reader(&self) -> Reader {
        Reader::new(&self.path)
    }

    fn write(&mut self) -> io::Result<()> {
        while !self.unwritten.is_empty() {
            match (&*self.file).write(&self.unwritten) {
                Ok(count) => drop(self.unwritten.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// How many bytes of the file are whole lines.
fn whole_length(file: &File, length: u64) -> io::Result<u64> {
    use std::os::unix::fs::FileExt;
    let mut end = length;
    let mut block = vec![0; 64 * 1024];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let part = &mut block[..(end - start) as usize];
        file.read_exact_at(part, start)?;
        if let Some(newline) = part.iter().rposition(|&byte| byte == b'\n') {
            return Ok(start + newline as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// The last lines of a file of whole lines, oldest first, `count` at most and within 4 MiB.
fn newest_lines(file: &File, length: u64, count: usize) -> io::Result<Vec<Line>> {
    use std::os::unix::fs::FileExt;
    const LIMIT: u64 = 4 * 1024 * 1024;
    let mut size = 64 * 1024;
    loop {
        let start = length.saturating_sub(size);
        let mut block = vec![0; (length - start) as usize];
        file.read_exact_at(&mut block, start)?;
        let mut lines: Vec<&[u8]> = block.split(|&byte| byte == b'\n').collect();
        // After the last newline there is nothing, and before the first one half a line, unless it is the
        // file's beginning.
        lines.pop();
        if start > 0 && !lines.is_empty() {
            lines.remove(0);
        }
        let enough = lines.len() >= count.max(1) || start == 0 || (size >= LIMIT && !lines.is_empty());
        if enough {
            let skipped = lines.len().saturating_sub(count.max(1));
            let kept = lines.into_iter().skip(skipped);
            return Ok(kept.filter_map(|json| Some(Line::from_json(seq_of(json)?, json))).collect());
        }
        size *= 2;
    }
}
