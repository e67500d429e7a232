//! The integration tests: the `codexd` program as a client, a script or the system's service manager sees it.

// The attribute lets clippy know that all of this is test code, helper functions outside of `#[test]` included.
#![cfg(test)]

mod api;
mod commands;
mod door;
mod duplex;
mod files;
mod history;
mod http;
mod lifecycle;
mod metrics;
mod page;
mod people;
mod real;
mod sessions;
mod streams;
mod supervision;
mod support;
mod threads;
mod turns;
mod websocket;
