//! The app-server as a process: starting it, finding the processes that belong to it, and ending them.

pub(super) mod child;
pub(super) mod descendants;
pub(super) mod detached;
pub(super) mod escapes;
pub(super) mod exit;
pub(super) mod filter;
pub(super) mod guard;
pub(super) mod identity;
pub(super) mod info;
pub(super) mod limits;
#[cfg(target_os = "linux")]
#[expect(
    clippy::disallowed_methods,
    reason = "its callers run it on a thread of the pool, or before the daemon serves requests"
)]
pub(super) mod linux;
#[cfg(target_os = "macos")]
#[expect(
    clippy::disallowed_methods,
    reason = "its callers run it on a thread of the pool, or before the daemon serves requests"
)]
pub(super) mod macos;
pub(super) mod memory;
pub(super) mod program;
#[cfg(any(target_os = "macos", test))]
mod ps;
pub(super) mod reaper;
pub(super) mod sandbox;
pub(super) mod stderr_tail;
pub(super) mod stop_pace;
#[expect(
    clippy::disallowed_methods,
    reason = "its callers run it on a thread of the pool, or before the daemon serves requests"
)]
pub(super) mod sweep;
mod systemd;
#[cfg(test)]
mod tests;
pub(super) mod version;

#[cfg(target_os = "linux")]
pub(super) use linux as platform;
#[cfg(target_os = "macos")]
pub(super) use macos as platform;
