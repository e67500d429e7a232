//! The event stream in its three transports: WebSocket, server-sent events, and pages of JSON.
//!
//! All three read the same log by cursor and with the same filters. `router` calls the handler; this module only declares
//! and re-exports.
//!
//! Invariant: an event is never omitted without notice.

mod feed;
mod filter;
mod gap;
mod handler;
mod json;
mod outgoing;
mod query;
mod snapshot;
mod sse;
mod subscribers;
#[cfg(test)]
mod tests;
mod websocket;

pub(super) use handler::events;
pub(super) use json::Page;
pub(crate) use query::StreamQuery;
pub(super) use snapshot::SnapshotCache;
pub(super) use subscribers::{Subscribers, Transport};
pub(super) use websocket::CLOSE_TIMEOUT;
