//! The door: who is let in, what is asked of a request before anything else looks at it, what a crowd costs, and what is
//! said about all of it.

mod access_log;
mod browser;
mod canary;
mod crowds;
#[cfg(target_os = "linux")]
mod descriptors;
#[cfg(target_os = "linux")]
mod figures;
mod frames;
mod hosts;
mod listed;
#[cfg(target_os = "linux")]
mod memory;
mod origins;
#[cfg(target_os = "linux")]
mod other_user;
mod oversize;
mod peers;
mod routes;
mod smuggling;
mod tables;
mod token_command;
mod token_files;
mod tokens;
mod wire;
