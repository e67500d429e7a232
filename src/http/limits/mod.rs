//! Limits on connections: how many may be open, and how long a write may make no progress.

pub(super) mod connections;
pub(super) mod write_timeout;
