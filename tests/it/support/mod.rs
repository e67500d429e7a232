//! Shared parts of the integration tests: an offline model, the real app-server, the daemon, and its clients.
//!
//! Tests are plain `#[tokio::test]` functions.
//! Everything here that waits is async and has a deadline, because the daemon under test may communicate with
//! something that the same test runs in its own runtime.

pub(crate) mod codex;
pub(crate) mod daemon;
#[path = "../../fake_codex/program.rs"]
pub(crate) mod fake_codex;
#[cfg(target_os = "linux")]
pub(crate) mod hanging;
pub(crate) mod http;
pub(crate) mod model;
pub(crate) mod scratch;
#[cfg(target_os = "linux")]
pub(crate) mod screen;
pub(crate) mod skip;
pub(crate) mod sse;
pub(crate) mod terminal;
pub(crate) mod wait;
pub(crate) mod websocket;

mod self_tests;
