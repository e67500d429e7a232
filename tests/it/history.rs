//! The proof that nothing is lost: every client writes down what it got and every promise that it was given, the daemon
//! is ended in the middle of its work in every way there is, and validators look for a contradiction.
//!
//! `soak` kills the daemon, `power` cuts the power of its disk, `full_disk` takes the space away, `lost_log` takes the
//! log away, `operators` do to the files what people and programs do, and `mutations` breaks codexd on purpose and asks that the others notice.

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
