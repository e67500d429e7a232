//! `codexd config`: prints every setting with its value and source.

use std::process::ExitCode;

use super::failure::Failure;
use super::output;
use crate::config::{Config, Settings};

pub(crate) fn run(config: &Config, json: bool) -> Result<ExitCode, Failure> {
    if json {
        output::print_json(&config.report)?;
    } else {
        output::print(config.report.to_string().trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Validates the settings of a command; an invalid one is a usage error.
pub(crate) fn resolve(settings: Settings) -> Result<Config, Failure> {
    Ok(Config::from_process(settings)?)
}
