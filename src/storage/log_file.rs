//! The file of codexd's own log, for a daemon that a person starts on a terminal; elsewhere the log is on stderr.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::disk::Disk;

/// The name of the file in the directory of logs.
pub const LOG_FILE_NAME: &str = "codexd.log";
/// The name that a file gets which has become too long.
const PREVIOUS_LOG_FILE_NAME: &str = "codexd.log.1";
/// A longer file is set aside when the next daemon starts.
const MAX_LOG_FILE_BYTES: u64 = 8 * 1024 * 1024;

/// Opens the file for appending.
pub fn open_log(directory: &Path) -> io::Result<File> {
    let disk = Disk::default();
    disk.create_directory(directory)?;
    let path = directory.join(LOG_FILE_NAME);
    if fs::symlink_metadata(&path).is_ok_and(|file| file.len() > MAX_LOG_FILE_BYTES) {
        disk.rename(&path, &directory.join(PREVIOUS_LOG_FILE_NAME))?;
    }
    disk.open_append(&path)
}
