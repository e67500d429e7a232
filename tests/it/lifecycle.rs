//! Start, stop and restart of the daemon and its app-server.

mod files;
mod starting;
mod stopping;
