//! codexd: the always-on local home of OpenAI Codex.

pub mod app_server;
pub mod cli;
pub mod config;
pub mod journal;
pub mod state;
