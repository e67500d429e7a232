//! JSON-RPC with the app-server: messages, pending calls, the tasks of one connection.

pub mod client;
pub(in crate::codex) mod connection;
pub(in crate::codex) mod liveness;
pub mod outline;
pub mod pending;
pub mod reader;
pub mod wire;
