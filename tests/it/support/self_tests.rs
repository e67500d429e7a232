//! Tests of the test support, without codexd: the helpers work as documented, and their checks detect violations.

mod app_server;
mod daemon;
mod http;
mod model;
mod scratch;
mod wait;
mod websocket;
