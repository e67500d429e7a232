//! The proof that nothing is lost: every client writes down what it got and every promise that it was given, the daemon
//! is ended in the middle of its work in every way there is, and validators look for a contradiction.

mod connection;
mod dice;
mod full_disk;
mod lost_log;
mod mounts;
mod mutations;
mod power;
mod readers;
mod record;
mod soak;
mod validators;
mod workers;
