//! codexd: the always-on local home of OpenAI Codex.
pub mod embedded;
