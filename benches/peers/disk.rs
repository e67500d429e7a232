//! How long the disk takes to sync a small append, measured in the same run.

use std::io::Write;
use std::time::{Duration, Instant};

/// As much as codexd appends to its log for a turn that it accepts.
const APPENDED: [u8; 1024] = [b'.'; 1024];

/// A file beside those of the daemons; it is removed when dropped.
pub(crate) struct Disk {
    file: std::fs::File,
}

impl Disk {
    pub(crate) fn new() -> Self {
        Self { file: tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap() }
    }

    /// Appends and syncs once.
    pub(crate) fn sync(&mut self) -> Duration {
        let began = Instant::now();
        self.file.write_all(&APPENDED).unwrap();
        self.file.sync_data().unwrap();
        began.elapsed()
    }
}
