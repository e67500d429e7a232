//! The logs of the child's own output.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// One of `stdout.log` and `stderr.log`: bytes as they came.
pub(crate) struct OutputLog {
    path: PathBuf,
    file: File,
    failing: bool,
}

impl OutputLog {
    /// Opens the log, or begins one.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        Ok(Self { path: path.to_owned(), file, failing: false })
    }

    /// Adds bytes; these logs are for people, so a failure is said once and costs nothing but the bytes.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        match self.file.write_all(bytes) {
            Ok(()) => self.failing = false,
            Err(error) => {
                if !self.failing {
                    tracing::warn!(%error, path = %self.path.display(), "output of the app-server is lost");
                }
                self.failing = true;
            }
        }
    }
}
