//! The integration tests: the `codexd` program as a client, a script or the system's service manager sees it.

#![expect(clippy::disallowed_methods, reason = "tests may block: each runs on a thread of its own")]
// The attribute lets clippy know that all of this is test code, helper functions outside of `#[test]` included.
#![cfg(test)]

mod access_control;
mod api;
#[cfg(target_os = "linux")]
mod blocking;
mod cli;
mod commands;
mod demo;
mod duplex;
mod files;
mod history;
mod hooks;
mod http;
mod lifecycle;
mod metrics;
mod page;
mod real;
mod sessions;
mod streams;
mod supervision;
mod support;
mod threads;
mod turns;
mod websocket;
