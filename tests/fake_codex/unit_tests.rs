//! The unit tests of the fake app-server. Cargo builds an example as a program or as tests, not as both.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the program has no async runtime: it may block, and starts threads"
)]
#![expect(dead_code, reason = "the tests do not start the process")]

mod app_server;
