//! The log: events as lines, in one order, numbered for ever upwards.
//!
//! One [`Journal`] writes; any number of [`Subscription`]s read the [`Log`], each at its own cursor, from the newest
//! lines in memory or, when it is further behind, from the files.
//! Nobody who reads can hold up the one who writes.
//! The log is a row of segments: `events.jsonl` is written, `events-<first number>.jsonl` are older ones, and the oldest
//! are removed when all together become too large.
//! The journal knows lines and sequence numbers; what they mean is no business of its.

mod backup;
mod continuity;
mod cursor;
mod damage;
mod figures;
mod line;
mod log;
mod meta;
mod opening;
mod recovery;
mod scrub;
mod segments;
mod subscription;
mod sync;
mod tail;
#[cfg(test)]
mod tests;
mod writer;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::{
    line::seq_of,
    meta::{Found, MetaFile},
};
pub use backup::{CopiedLog, copy};
pub use cursor::{Bounds, Cursor, Gone, NotACursor};
pub use damage::{Damage, Hole};
pub use figures::Figures;
pub use line::{Entry, Line, push_on_one_line};
pub use log::Log;
pub use opening::{Known, Notice, OpenFailure, Opened};
pub use recovery::Recovered;
pub use subscription::{Next, Subscription};
pub use sync::LogSync;
pub use writer::{Journal, Limits};
