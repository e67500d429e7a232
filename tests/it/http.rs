//! The HTTP routes, right and wrong; what holds for every answer is checked by `support::http`.

mod bodies;
mod routes;
mod sessions;
