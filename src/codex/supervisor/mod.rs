//! Starts the app-server and restarts it after a failure.

pub(super) mod availability;
mod backoff;
mod generation;
pub(super) mod plan;
mod remote;
pub(super) mod task;
mod termination;
