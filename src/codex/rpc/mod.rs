//! JSON-RPC with the app-server: encoding, pending calls, and the reader and writer of one connection.

pub mod call_error;
pub mod client;
pub(crate) mod connection;
pub(crate) mod liveness;
pub mod outline;
pub mod pending;
pub mod reader;
pub mod wire;
