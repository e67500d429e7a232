//! How messages reach the app-server: the pipes of a child process, or a WebSocket.

pub(in crate::codex) mod stdio;
pub(in crate::codex) mod websocket;
