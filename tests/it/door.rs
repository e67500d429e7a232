//! Who gets in and who does not: the door before everything else.

mod browser;
mod hosts;
mod listed;
#[cfg(target_os = "linux")]
mod memory;
mod origins;
mod oversize;
mod routes;
mod smuggling;
mod token_command;
mod token_files;
mod tokens;
mod tables;
