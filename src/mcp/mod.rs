//! The Model Context Protocol: the tools with which an MCP client starts, follows and answers Codex.
//!
//! Two transports have the same tools: [`serve_stdio`] for `codexd mcp`, and [`http_service`] for `/mcp` of the daemon.
//! Both use the HTTP interface of the daemon through `client`, so a tool can do what any client can, and no more.
//! `tools` declares the tools, `jobs` carries them out, `questions` says what Codex asks, and `server` is the only file
//! that knows the MCP library.
//!
//! Invariant: this module keeps no state of a turn. What a tool returns was read from the daemon, so a client that lost
//! its connection, or another client, continues with the thread ID.

mod jobs;
mod questions;
mod server;
mod tools;

pub(crate) use server::{http_service, serve_stdio};
