//! The app-server as a process: how it is started, which processes belong to it, and how they are ended.

pub mod child;
pub mod escapes;
pub mod guard;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(any(target_os = "macos", test))]
mod ps;
pub(in crate::codex) mod reaper;
mod sandbox;
pub(in crate::codex) mod stderr_tail;
#[expect(
    clippy::disallowed_methods,
    reason = "its callers run it on a thread of its pool, or before anything is served"
)]
pub mod tree;
