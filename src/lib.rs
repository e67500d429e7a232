//! codexd: the always-on local home of OpenAI Codex.

pub mod app_server;
pub mod cli;
pub mod commands;
pub mod config;
pub mod daemon;
pub mod disk;
pub mod embedded;
pub mod http;
pub mod journal;
pub mod state;
