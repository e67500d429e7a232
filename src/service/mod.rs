//! codexd as a service of the user: the file for the service manager, and the calls to it.
//!
//! The text of the file depends on the settings alone ([`ServiceFile::new`]), for either system on any system.
//! [`ServiceManager`] runs `launchctl` or `systemctl`. `codexd service` and `codexd doctor` use both.

mod launchd;
mod manager;
mod search;
mod systemd;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::codex::redact;
use crate::config::{Config, ConfigError, Platform, UserEnv, find_program, settings};
use crate::storage::Disk;

pub use manager::{ManagerError, ServiceManager, ServiceState};

/// The name of the service: the label of the agent, and the unit name without its extension.
pub const NAME: &str = "codexd";

/// Why the service file cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A setting cannot be written into the file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A path that the file cannot contain.
    #[error("The path {} {reason}, so the service file cannot contain it; move or rename it.", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// The reason, as half a sentence.
        reason: &'static str,
    },
    /// The path of this program is unknown.
    #[error("The path of this program is unknown: {0}.")]
    Program(#[source] io::Error),
}

/// The difference between the file and the settings, or what writing it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileChange {
    /// The file did not exist.
    Installed,
    /// The file was different.
    Updated,
    /// The file was the same.
    Unchanged,
}

/// The service file for the current settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceFile {
    /// Its path.
    pub path: PathBuf,
    /// Its content.
    pub text: String,
    /// A directory that must exist when the service starts, besides those that codexd creates.
    pub directory: Option<PathBuf>,
    /// Notes for the user, one sentence each.
    pub notes: Vec<String>,
}

/// The values in either kind of file.
struct ServiceSpec<'a> {
    program: &'a str,
    home: &'a str,
    search_path: String,
    codex_home: Option<&'a str>,
    /// The settings, by environment variable.
    variables: Vec<(&'static str, String)>,
    connections: usize,
}

impl ServiceFile {
    /// The file of a service that runs `program`, an absolute path, with these settings for this user.
    pub fn new(
        config: &Config,
        user: &UserEnv,
        platform: Platform,
        program: &Path,
    ) -> Result<Self, ServiceError> {
        let home = text(&user.home)?;
        let arguments = &config.server.args;
        if arguments.iter().any(|argument| redact(argument) != *argument) {
            let (name, variable) = (settings::SERVER_ARGS.name, settings::SERVER_ARGS.variable);
            return Err(ConfigError::SecretInSetting { name, variable }.into());
        }
        let (search_path, notes) = search::path(config, platform, home)?;
        let spec = ServiceSpec {
            program: text(program)?,
            home,
            search_path,
            codex_home: user.codex_home.as_deref().map(text).transpose()?,
            variables: config.service_variables()?,
            connections: config.service.connections,
        };
        let path = platform.service_file(&user.home, user.config_home.as_deref());
        let (text, directory) = match platform {
            // launchd opens its two files there before codexd runs.
            Platform::MacOs => (launchd::agent(&spec), platform.logs_dir(Some(&user.home), None)),
            Platform::Xdg => (systemd::unit(&spec)?, None),
        };
        Ok(Self { path, text, directory, notes })
    }

    /// [`ServiceFile::new`] for this system, user and program.
    pub fn for_this_program(config: &Config) -> Result<Self, ServiceError> {
        let search = config.server.child_environment.path.as_deref();
        let program = std::env::current_exe().map_err(ServiceError::Program)?;
        // `current_exe` resolves links; the name that stays valid across upgrades is the one in PATH.
        let program = match find_program(NAME, search, Path::new("/")) {
            Ok(named) if search::is_same(&named, &program) => named,
            _ => program,
        };
        Self::new(config, &UserEnv::from_process()?, Platform::current(), &program)
    }

    /// What [`ServiceFile::write`] would do.
    pub fn change(&self) -> io::Result<FileChange> {
        match std::fs::read(&self.path) {
            Ok(text) if text == self.text.as_bytes() => Ok(FileChange::Unchanged),
            Ok(_) => Ok(FileChange::Updated),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(FileChange::Installed),
            Err(error) => Err(error),
        }
    }

    /// Writes the file, unless it is up to date.
    pub fn write(&self, disk: &Disk) -> io::Result<FileChange> {
        let change = self.change()?;
        if let Some(directory) = &self.directory {
            disk.create_directory(directory)?;
        }
        if change != FileChange::Unchanged {
            disk.write_shared(&self.path, self.text.as_bytes())?;
        }
        Ok(change)
    }
}

/// The path of the service file of this user on this system.
pub fn file() -> Result<PathBuf, ServiceError> {
    let user = UserEnv::from_process()?;
    Ok(Platform::current().service_file(&user.home, user.config_home.as_deref()))
}

/// Removes the file; `false` if it did not exist.
pub fn remove(disk: &Disk, file: &Path) -> io::Result<bool> {
    match disk.remove(file) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Converts a path to text that either kind of file can contain.
fn text(path: &Path) -> Result<&str, ServiceError> {
    let refused = |reason| ServiceError::Path { path: path.to_owned(), reason };
    let text = path.to_str().ok_or_else(|| refused("is not valid UTF-8"))?;
    match text.contains(char::is_control) {
        true => Err(refused("contains a control character")),
        false => Ok(text),
    }
}
