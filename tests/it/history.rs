//! Durability tests: each client records the events it receives and the acknowledgements it gets, the daemon fails in
//! the middle of its work, and validators search the recorded history for contradictions.
//!
//! `soak` kills the daemon with SIGKILL, `power` cuts the power of its disk, `full_disk` fills the disk, `lost_log`
//! removes or replaces the log, `operators` changes the files in ways users and programs do, and `mutations` breaks
//! codexd on purpose and requires that a validator detects it.

mod clients;
mod connection;
mod full_disk;
mod lost_log;
mod mounts;
mod mutations;
mod operators;
mod power;
pub(crate) mod random;
mod readers;
mod record;
mod soak;
mod validators;
mod workers;
