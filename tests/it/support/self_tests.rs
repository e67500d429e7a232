//! Tests of the tests' own tools, without codexd: what they promise holds, and what they check they do refuse.

mod app_server;
mod daemon;
mod http;
mod model;
mod scratch;
mod wait;
mod websocket;
