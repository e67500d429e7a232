//! How messages reach the app-server: the pipes of a child process, or a WebSocket.

pub(crate) mod stdio;
pub(crate) mod websocket;
