//! How messages reach the app-server: over the pipes of a child process, or over a WebSocket.

pub(crate) mod stdio;
pub(crate) mod websocket;
