//! The service file: its path and text for the current settings, and writing and removing it.

use std::io;
use std::path::{Path, PathBuf};

use super::environment::ServiceEnvironment;
use super::spec::{FileChange, ServiceError, ServiceSpec, text};
use super::{launchd, search, systemd};
use crate::codex::redact;
use crate::config::{Config, ConfigError, Platform, SERVICE_ENV_FILE, UserEnv, settings};
use crate::storage::Disk;

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

impl ServiceFile {
    /// The file of a service that runs `program`, an absolute path, with these settings for this user; of `environment` it
    /// contains the path only, and nothing if that is empty.
    pub fn new(
        config: &Config,
        user: &UserEnv,
        platform: Platform,
        program: &Path,
        environment: &ServiceEnvironment,
    ) -> Result<Self, ServiceError> {
        let home = text(&user.home)?;
        let arguments = &config.server.args;
        if arguments.iter().any(|argument| redact(argument) != *argument) {
            let (name, variable) = ("server-arg".to_owned(), settings::SERVER_ARGS.to_owned());
            return Err(ConfigError::SecretInSetting { name, variable }.into());
        }
        let (search_path, notes) = search::path(config, platform, home)?;
        let mut variables = config.service_variables()?;
        if !environment.is_empty() {
            variables.push((SERVICE_ENV_FILE.to_owned(), text(environment.path())?.to_owned()));
        }
        let spec = ServiceSpec {
            program: text(program)?,
            home,
            search_path,
            codex_home: user.codex_home.as_deref().map(text).transpose()?,
            variables,
            connections: config.http.connection_limit,
        };
        let path = platform.service_file(&user.home, user.config_home.as_deref());
        let (text, directory) = match platform {
            // launchd opens its two files there before codexd runs.
            Platform::MacOs => (launchd::agent(&spec), platform.logs_dir(Some(&user.home), None)),
            Platform::Xdg => (systemd::unit(&spec)?, None),
        };
        Ok(Self { path, text, directory, notes })
    }

    /// [`ServiceFile::new`] for this system, user and program, with the variables that are stored.
    pub fn for_this_program(config: &Config) -> Result<Self, ServiceError> {
        Self::with_environment(config, &ServiceEnvironment::of_this_user()?)
    }

    /// [`ServiceFile::new`] for this system, user and program.
    pub fn with_environment(config: &Config, environment: &ServiceEnvironment) -> Result<Self, ServiceError> {
        let program = std::env::current_exe().map_err(ServiceError::Program)?;
        // `current_exe` resolves links; the name that stays valid across upgrades is the one in PATH.
        let program = config.own_path(&program).unwrap_or(program);
        Self::new(config, &UserEnv::from_process()?, Platform::current(), &program, environment)
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

/// The path of the file with the variables that were passed to the service of this user on this system.
pub fn variables_file() -> Result<PathBuf, ServiceError> {
    let user = UserEnv::from_process()?;
    Ok(Platform::current().service_env_file(&user.home, user.config_home.as_deref()))
}

/// The file with the stderr of the agent of launchd.
pub fn launchd_log() -> Result<PathBuf, ServiceError> {
    let home = UserEnv::from_process()?.home;
    Ok(Platform::MacOs.logs_dir(Some(&home), None).unwrap_or(home).join("launchd.stderr.log"))
}

/// Removes the file; `false` if it did not exist.
pub fn remove(disk: &Disk, file: &Path) -> io::Result<bool> {
    match disk.remove(file) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The value of an environment variable in the text of a service file, if nothing in it had to be escaped.
pub fn installed_variable<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let unit = || text.split_once(&format!("\nEnvironment=\"{name}="))?.1.split_once("\"\n");
    let agent = || {
        let value = text.split_once(&format!("<key>{name}</key>"))?.1.trim_start();
        value.strip_prefix("<string>")?.split_once("</string>")
    };
    unit().or_else(agent).map(|(value, _)| value)
}
