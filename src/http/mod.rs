//! The edge: what comes in over the one listener, and what goes out.
//!
//! Handlers see the daemon's handle and their own request and response types.
//! One table turns errors into statuses (`error`), one place renders answers (`answer`).

mod access_log;
mod app;
mod app_state;
mod auth;
mod bodies;
mod body;
mod content_negotiation;
mod directories;
mod error;
mod framing;
mod limits;
mod openapi;
mod queries;
mod response;
mod route;
mod router;
mod routes;
mod server;
mod stream;
#[cfg(test)]
mod tests;
mod upgrade;
mod values;
mod web;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::{
    app::check_without_token_file,
    framing::chunks::ChunkedBody,
    framing::head::{Framing, HeadError, HeadScanner},
    stream::StreamQuery,
};
pub use app::App;
pub use app_state::base_url;
pub use auth::peer::{Peer, peer_of};
pub use auth::token::{TokenFile, new_token, read_token};
pub use router::openapi_document;
pub use routes::service::{ServiceView, StatusView};
pub use server::Server;
