//! The HTTP interface: the listener, authentication, the routes, the event stream and the live page.
//!
//! [`Server`] accepts connections and passes each request to [`App`], which checks it (`auth`), routes it (`router`) and
//! logs it (`access_log`). `commands::start` creates both; the handlers call the daemon and hold no state.
//!
//! Invariants: no request reaches a handler before `auth` has admitted it. Every error response is defined in `error`,
//! and every response is rendered in `response`. This module only declares and re-exports.

mod access_log;
mod app;
mod app_state;
mod auth;
mod bodies;
mod body;
mod connections;
mod content_negotiation;
mod directories;
mod error;
mod examples;
mod long_response;
mod openapi;
mod parse;
mod queries;
mod request_body;
mod response;
mod route;
mod router;
mod routes;
mod server;
mod socket;
mod stream;
#[cfg(test)]
mod tests;
mod upgrade;
mod values;
mod web;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::stream::StreamQuery;
pub use app::App;
pub use app_state::base_url;
pub use auth::AllowedClients;
pub use auth::local_key::{
    IS_NEEDED as LOCAL_KEY_IS_NEEDED, create as create_local_key, prove as prove_command,
};
pub use auth::peer::{Peer, find_users, peer_of};
pub use auth::token::{TokenFile, new_token, read_token};
pub use router::openapi_document;
pub(crate) use routes::mcp::McpService;
pub use routes::service::{ServiceView, StatusView};
pub use server::Server;
