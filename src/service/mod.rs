//! codexd as a service of the person: the file that the system's service manager reads, and the calls to it.
//!
//! The file is a text that follows from the settings alone ([`ServiceFile::new`]), for either system on any system.
//! [`ServiceManager`] runs `launchctl` or `systemctl`.

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

/// The name of the service: the label of the agent, and the unit without its extension.
pub const NAME: &str = "codexd";

/// Why no file can be written.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A setting cannot be handed over.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A path that the file cannot hold.
    #[error("The path {} {reason}, so no service can be made of it; move or rename it.", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Why not, as half a sentence.
        reason: &'static str,
    },
    /// This program does not know where it is.
    #[error("This program cannot find itself: {0}.")]
    Program(#[source] io::Error),
}

/// What became of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileChange {
    /// There was none.
    Installed,
    /// There was another one.
    Updated,
    /// It was there already.
    Unchanged,
}

/// The file of the service, as the settings in force want it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceFile {
    /// Where it belongs.
    pub path: PathBuf,
    /// What belongs into it.
    pub text: String,
    /// A folder that has to be there when the service starts, beside those that codexd makes.
    pub directory: Option<PathBuf>,
    /// What its owner should know, one sentence each.
    pub notes: Vec<String>,
}

/// What both kinds of files are made of.
struct ServiceSpec<'a> {
    program: &'a str,
    home: &'a str,
    search_path: String,
    codex_home: Option<&'a str>,
    /// The settings, by their variables.
    variables: Vec<(&'static str, String)>,
    connections: usize,
}

impl ServiceFile {
    /// The service that runs `program`, an absolute path, with these settings for this person.
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

    /// [`ServiceFile::new`] for this system, this person and this program.
    pub fn for_this_program(config: &Config) -> Result<Self, ServiceError> {
        let search = config.server.child_environment.path.as_deref();
        let program = std::env::current_exe().map_err(ServiceError::Program)?;
        // The system resolves links; the name that outlives an upgrade is the one in PATH.
        let program = match find_program(NAME, search, Path::new("/")) {
            Ok(named) if search::is_same(&named, &program) => named,
            _ => program,
        };
        Self::new(config, &UserEnv::from_process()?, Platform::current(), &program)
    }

    /// What [`ServiceFile::write`] would do now.
    pub fn change(&self) -> io::Result<FileChange> {
        match std::fs::read(&self.path) {
            Ok(text) if text == self.text.as_bytes() => Ok(FileChange::Unchanged),
            Ok(_) => Ok(FileChange::Updated),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(FileChange::Installed),
            Err(error) => Err(error),
        }
    }

    /// Writes the file, unless it is as it should be.
    pub fn write(&self, disk: &Disk) -> io::Result<FileChange> {
        let change = self.change()?;
        if let Some(directory) = &self.directory {
            disk.make_folder(directory)?;
        }
        if change != FileChange::Unchanged {
            disk.write_for_others(&self.path, self.text.as_bytes())?;
        }
        Ok(change)
    }
}

/// Where the file of this person's service belongs on this system.
pub fn file() -> Result<PathBuf, ServiceError> {
    let user = UserEnv::from_process()?;
    Ok(Platform::current().service_file(&user.home, user.config_home.as_deref()))
}

/// Removes the file; `false` when there was none.
pub fn remove(disk: &Disk, file: &Path) -> io::Result<bool> {
    match disk.remove(file) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A path as both kinds of files can hold it.
fn text(path: &Path) -> Result<&str, ServiceError> {
    let refused = |reason| ServiceError::Path { path: path.to_owned(), reason };
    let text = path.to_str().ok_or_else(|| refused("is not valid UTF-8"))?;
    match text.contains(char::is_control) {
        true => Err(refused("holds a control character")),
        false => Ok(text),
    }
}
