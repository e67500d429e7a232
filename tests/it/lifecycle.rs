//! Starting, stopping and starting again: of the daemon, and of its app-server.

mod files;
mod starting;
mod stopping;
