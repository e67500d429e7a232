//! Start, stop and restart of the daemon and its app-server.

mod files;
#[cfg(target_os = "linux")]
mod keep_awake;
mod starting;
mod stopping;
