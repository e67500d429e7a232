//! The event log: lines in one order, with sequence numbers that only rise.
//!
//! One [`Journal`] writes. Any number of [`Subscription`]s read the [`Log`], each at its own cursor, from the newest lines in
//! memory or, when it is behind, from the files. A reader never blocks the writer.
//! The log is a sequence of segments: `events.jsonl` is being written, `events-<first number>.jsonl` are older, and the
//! oldest are removed when the total size exceeds its limit.
//! The recorder in `daemon` owns the journal; `http` reads from subscriptions. The journal does not know what a line means.

mod backup;
mod continuity;
mod cursor;
mod damage;
mod line;
mod log;
mod meta;
mod metrics;
mod open;
mod recovery;
mod relocation;
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
pub use cursor::{Bounds, Cursor, CursorExpired, InvalidCursor};
pub use damage::{Damage, Hole};
pub use line::{DETAIL_PARTS, Entry, Line, MESSAGE_PARTS, push_on_one_line, websocket_header};
pub use log::Log;
pub use metrics::LogMetrics;
pub use open::{Known, Notice, OpenFailure, Opened};
pub use recovery::Recovered;
pub use relocation::{find, relocate};
pub use subscription::{Next, Subscription};
pub use sync::LogSync;
pub use writer::{Journal, Limits};
