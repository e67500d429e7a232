//! The environment variables of this process.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use crate::codex::protocol::environment::{CODEX_HOME, DEFAULT_CODEX_HOME};

/// Environment variables and their values, which need not be UTF-8; tests supply their own.
pub type Environment = BTreeMap<OsString, OsString>;

/// The environment of this process.
pub(super) fn process_environment() -> Environment {
    std::env::vars_os().collect()
}

/// The path in an environment variable; an empty one counts as unset.
pub(super) fn path_in(environment: &Environment, name: &str) -> Option<PathBuf> {
    environment.get(OsStr::new(name)).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The variable in the service file that names the file with the variables passed to the service. No setting: codexd reads
/// it in `start` only, and no process that it starts has it.
pub const SERVICE_ENV_FILE: &str = "BAA_CODEXD_SERVICE_ENV";

/// The file with the variables that were passed to this service; `None` in a process that is no service, and in one that
/// has them.
pub fn service_env_file() -> Option<PathBuf> {
    path_in(&process_environment(), SERVICE_ENV_FILE)
}

/// The value of an environment variable of this process.
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Whether an environment variable of this process is set.
pub fn is_variable_set(name: &str) -> bool {
    std::env::var_os(name).is_some()
}

/// Whether terminal output has no colors: `NO_COLOR` is set (no-color.org), `CLICOLOR` is 0, or `TERM` is `dumb`.
pub fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("CLICOLOR").is_some_and(|value| value == "0")
        || std::env::var_os("TERM").is_some_and(|value| value == "dumb")
}

/// The command line of the pager: `PAGER`, else `less`.
pub fn pager() -> String {
    std::env::var("PAGER").ok().filter(|pager| !pager.trim().is_empty()).unwrap_or_else(|| "less".to_owned())
}

/// Whether programs can open windows: always on macOS, elsewhere with `DISPLAY` or `WAYLAND_DISPLAY`.
pub fn has_display() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    cfg!(target_os = "macos") || is_set("DISPLAY") || is_set("WAYLAND_DISPLAY")
}

/// The directory of Codex: `CODEX_HOME`, else `.codex` in the home directory.
pub fn codex_home() -> Option<PathBuf> {
    let environment = process_environment();
    let path = |name| path_in(&environment, name);
    path(CODEX_HOME).or_else(|| Some(path("HOME")?.join(DEFAULT_CODEX_HOME)))
}

/// The environment variable of an argument of clap, if it is set in this process.
pub fn variable_of(argument: &clap::Arg) -> Option<OsString> {
    argument.get_env().and_then(std::env::var_os)
}

/// Whether the environment variable of an argument is blank in this process, which counts as unset.
pub fn has_blank_variable(argument: &clap::Arg) -> bool {
    variable_of(argument).is_some_and(|value| value.to_str().is_some_and(|text| text.trim().is_empty()))
}
