//! Starting the app-server, and starting it again when it has ended.

mod backoff;
pub(in crate::codex) mod generation;
pub(in crate::codex) mod task;
