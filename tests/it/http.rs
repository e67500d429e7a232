//! The HTTP routes with valid and invalid requests. `support::http` checks what applies to every response.

mod bodies;
mod examples;
mod routes;
mod sessions;
