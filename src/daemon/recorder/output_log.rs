//! `stdout.log` and `stderr.log`: the output of the child.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::storage::{Disk, beside};

/// `stdout.log` or `stderr.log`: the bytes as they arrived, and one older file after a rotation.
pub(crate) struct OutputLog {
    disk: Disk,
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
    failing: bool,
}

impl OutputLog {
    /// Opens or creates the log; at `limit` bytes it is renamed to `NAME.1` and a new file is started.
    pub(crate) fn open(disk: Disk, path: &Path, limit: u64) -> io::Result<Self> {
        let file = disk.open_append(path)?;
        let size = file.metadata()?.len();
        Ok(Self { disk, path: path.to_owned(), file, size, limit, failing: false })
    }

    /// Appends bytes; codexd never reads these logs, so a failure is logged once and loses only the bytes.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        match self.write(bytes) {
            Ok(()) => self.failing = false,
            Err(error) => {
                if !self.failing {
                    tracing::warn!(%error, path = %self.path.display(), "failed to write output of the app-server; it is lost");
                }
                self.failing = true;
            }
        }
    }

    /// Opens a new file when the current one was removed or replaced.
    pub(crate) fn reopen_if_replaced(&mut self) {
        let mark = |found: std::fs::Metadata| (found.dev(), found.ino());
        let in_place = std::fs::symlink_metadata(&self.path).map(mark).ok();
        if in_place.is_some() && in_place == self.file.metadata().map(mark).ok() {
            return;
        }
        match self.disk.open_append(&self.path).and_then(|file| Ok((file.metadata()?.len(), file))) {
            Ok((size, file)) => (self.size, self.file) = (size, file),
            Err(error) => tracing::warn!(%error, path = %self.path.display(), "failed to open a log again"),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + bytes.len() as u64 > self.limit {
            self.disk.rename(&self.path, &beside(&self.path, "1"))?;
            self.file = self.disk.open_append(&self.path)?;
            self.size = 0;
        }
        self.disk.write_all(&self.file, bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }
}
