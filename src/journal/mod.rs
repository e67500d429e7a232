//! The log: events as lines, in one order, numbered without gaps or repeats.
//!
//! One [`Journal`] writes; any number of [`Subscription`]s read, each at its own cursor, from the newest lines in
//! memory or, when it is further behind, from the file.
//! Nobody who reads can hold up the one who writes.
//! The journal knows lines and sequence numbers; what they mean is no business of its.

mod line;
mod log;
mod reader;
mod subscription;
mod tail;
#[cfg(test)]
mod tests;

pub use line::{Entry, Line};
pub use log::{Journal, Opened};
pub use reader::Reader;
pub use subscription::Subscription;
pub use tail::Tail;
