//! The fake app-server of the tests, for `codexd smoke`.

#[path = "../tests/fake_codex/app_server/mod.rs"]
mod app_server;

pub(crate) use app_server::{Options, run};
