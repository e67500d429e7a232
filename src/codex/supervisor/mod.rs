//! Starting the app-server, and starting it again when it has ended.

pub(super) mod availability;
mod backoff;
mod generation;
pub(super) mod plan;
pub(super) mod task;
