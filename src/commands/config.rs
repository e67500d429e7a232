//! `codexd config`: every setting, its value, and where that came from.

use std::process::ExitCode;

use super::output;
use crate::config::Config;

pub(crate) fn run(config: &Config, json: bool) -> ExitCode {
    if json {
        output::say_json(&config.report());
    } else {
        output::say(config.report().to_string().trim_end());
    }
    ExitCode::SUCCESS
}
