//! The `PATH` of the service.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::spec::{ServiceError, text};
use crate::config::{ChildStrategy, Config, Platform, find_program, is_same_file};

/// The `PATH` of the agent template: the user's own programs, Homebrew on Apple silicon and on Intel, npm's default, and the
/// system.
pub(super) const MACOS_PATH: &str = "__HOME__/.local/bin:/opt/homebrew/bin:/opt/homebrew/sbin:/usr/local/bin:/usr/local/sbin:/usr/bin:/bin:/usr/sbin:/sbin";
/// The `PATH` common to Linux distributions, after the directory of the user's own programs.
const LINUX_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What follows from the strategy `shared` for Codex in a terminal.
const SHARED_NOTE: &str = "The shared app-server runs with the environment of the service if codexd starts it, also for codex in a \
     terminal that joins it.";

/// The default directories, preceded by those of Codex and node if the default ones would find other programs; and a
/// note for each program that was not found.
pub(super) fn path(
    config: &Config,
    platform: Platform,
    home: &str,
) -> Result<(String, Vec<String>), ServiceError> {
    let usual = match platform {
        Platform::MacOs => MACOS_PATH.replace("__HOME__", home),
        Platform::Xdg => format!("{home}/.local/bin:{LINUX_PATH}"),
    };
    let mut directories: Vec<String> = usual.split(':').map(str::to_owned).collect();
    let mut notes = Vec::new();
    let server = &config.server;
    if server.strategy == ChildStrategy::External {
        return Ok((usual, notes));
    }
    if server.strategy == ChildStrategy::Shared {
        notes.push(SHARED_NOTE.to_owned());
    }
    let given = server.child_environment.path.as_deref();
    // npm installs codex as a script for node. Codex is handled last, so its directory comes first.
    let node = find_program("node", given, &server.cwd);
    for (command, found, is_needed) in
        [("node", node, false), (server.command.as_str(), server.find_program(), true)]
    {
        match found {
            Ok(_) if command.contains('/') => {}
            Ok(found) => {
                let so_far = directories.join(":");
                let without = find_program(command, Some(OsStr::new(&so_far)), &server.cwd);
                if without.is_ok_and(|other| is_same_file(&other, &found)) {
                    continue;
                }
                let directory = text(&lasting(found.parent().unwrap_or(Path::new("/"))))?.to_owned();
                directories.retain(|other| *other != directory);
                directories.insert(0, directory);
            }
            Err(error) if is_needed => notes.push(error.to_string()),
            Err(_) => {}
        }
    }
    Ok((directories.join(":"), notes))
}

/// The directory itself, where the path is one of fnm that exists only as long as a shell.
fn lasting(directory: &Path) -> PathBuf {
    let is_of_a_shell = directory.iter().any(|name| name == "fnm_multishells");
    let lasting = if is_of_a_shell { directory.canonicalize().ok() } else { None };
    lasting.unwrap_or_else(|| directory.to_owned())
}
