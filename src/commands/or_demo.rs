//! `codexd start --or-demo`: the settings of a daemon with Codex, or of the demo where turns of Codex would fail.

use std::sync::Arc;

use super::failure::Failure;
use super::{demo, doctor, output};
use crate::config::{ChildStrategy, Config, Settings};

/// The given settings, or those of the demo where turns would fail, which is then printed with the reason.
pub(crate) fn config(given: Settings) -> Result<Config, Failure> {
    let resolved = Arc::new(super::config::resolve(given.clone())?);
    if resolved.server.strategy != ChildStrategy::Spawn {
        return Err(Failure::usage("--or-demo is for --server-strategy spawn."));
    }
    match doctor::why_unusable(&resolved)? {
        Some(reason) => {
            output::print_error(&format!("codexd: {reason}"));
            demo::config(given)
        }
        None => super::config::resolve(given),
    }
}
