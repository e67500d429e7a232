//! The files of the daemon: the only layer that creates, writes, syncs, renames or removes one.
//!
//! Only the owner can enter the directories and read the files, for any umask. Symlinks, and files and directories of
//! another user, are rejected. All calls go through a [`Disk`], so that tests can make any of them fail. `journal`, `state`,
//! `daemon` and some commands use it; its functions block.

mod disk;
#[cfg(test)]
pub(crate) mod faults;
mod file_mark;
mod lock;
mod log_file;
mod secret;
#[cfg(test)]
mod tests;

pub use disk::Disk;
#[cfg(test)]
pub(crate) use disk::Operation;
pub(crate) use disk::{Content, beside};
pub(crate) use file_mark::FileMark;
pub use lock::{DirectoryLock, LockError, holder, holder_pid};
pub use log_file::{LOG_FILE_NAME, open_log};
pub use secret::{Stamp, read_secret};
