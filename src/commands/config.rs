//! `codexd config`: every setting, its value, and where that came from.

use std::process::ExitCode;

use super::{Failure, output};
use crate::config::Config;

pub(crate) fn run(config: &Config, json: bool) -> Result<ExitCode, Failure> {
    if json {
        output::say_json(&config.report())?;
    } else {
        output::say(config.report().to_string().trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}
