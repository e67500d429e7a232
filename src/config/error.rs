//! The errors of settings, as sentences for the user.

use std::path::PathBuf;

use crate::codex::protocol::versions::INSTALL_COMMAND;

use super::address::{AddressError, StreamPathError};
use super::endpoint::EndpointError;
use super::origin::OriginError;

/// Why there is no configuration.
///
/// Each message is one sentence that names the flag or environment variable, and never shows credentials or a query.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value is invalid for its setting.
    #[error("{origin}: {problem}")]
    Invalid {
        /// The flag or environment variable that has the value.
        origin: String,
        /// What is wrong with it.
        problem: ValueError,
    },
    /// An environment variable is not valid UTF-8.
    #[error("{variable}: the value is not valid UTF-8; set it to plain text or unset it.")]
    NotUnicode {
        /// The environment variable.
        variable: String,
    },
    /// A default depends on the home directory, and HOME is not set.
    #[error(
        "HOME is not set to an absolute path, so there is no default for --{name}; set HOME, --{name} or {variable}."
    )]
    NoHomeForDefault {
        /// The name of the setting, without dashes.
        name: &'static str,
        /// The environment variable of the setting.
        variable: &'static str,
    },
    /// HOME is not set, so the user of the service is unknown.
    #[error("HOME is not set to an absolute path, so the user of the service is unknown; set HOME.")]
    HomeNotSet,
    /// A path that cannot be written into an environment variable as text.
    #[error("The path {} of --{name} is not valid UTF-8; use another path.", path.display())]
    PathNotUnicode {
        /// The name of the setting, without dashes.
        name: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// A setting that contains a secret and would be written into the service file.
    #[error(
        "The value of --{name} holds what looks like a password or a key, and those are not written into files; give \
         it to codexd at its start by the variable {variable}."
    )]
    SecretInSetting {
        /// The name of the setting, without dashes.
        name: &'static str,
        /// The environment variable of the setting.
        variable: &'static str,
    },
    /// The strategy is external, and no endpoint is set.
    #[error(
        "The server strategy is external, which needs the address of a running app-server: set --server-endpoint or BAA_CODEXD_SERVER_ENDPOINT."
    )]
    EndpointMissing,
    /// The default working directory of the app-server cannot be used.
    #[error("The app-server cannot start in {}, which comes from {origin}: {reason}; choose another directory with --server-cwd.", path.display())]
    DefaultServerCwd {
        /// The directory.
        path: PathBuf,
        /// The flag or environment variable that it depends on.
        origin: &'static str,
        /// The reason, as half a sentence.
        reason: String,
    },
    /// The current directory was removed or cannot be read.
    #[error("The current directory cannot be read: {source}; start codexd in another directory.")]
    CurrentDirectory {
        /// The error of the system.
        source: std::io::Error,
    },
    /// The server command was not found.
    #[error(
        "The server command {command:?} was not found {searched}; install Codex with \"{install}\" or point --server-command at it.",
        install = INSTALL_COMMAND
    )]
    ProgramNotFound {
        /// The command as given.
        command: String,
        /// The places that were searched, as half a sentence.
        searched: String,
    },
    /// The server command was found but is not executable.
    #[error(
        "The server command {} is not an executable file; make it executable, install Codex with \"{install}\" or point --server-command at another.",
        path.display(),
        install = INSTALL_COMMAND
    )]
    ProgramNotExecutable {
        /// The file or directory with that name.
        path: PathBuf,
    },
}

/// Why a value is invalid.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// A flag with an empty or blank value.
    #[error("the value is empty; give a value or omit the flag.")]
    Empty,
    /// A control character such as a line break, which would break one-line output.
    #[error("the value contains a control character; remove it.")]
    ControlCharacter,
    /// A mode other than `app-server`.
    #[error("the mode {0:?} is not supported; app-server is the only mode.")]
    Mode(String),
    /// An unknown strategy.
    #[error("the strategy {0:?} does not exist; use spawn or external.")]
    Strategy(String),
    /// A count that is not a whole number within its limits.
    #[error("{value:?} is not a whole number from {minimum} to {maximum}.")]
    Count {
        /// The value as given.
        value: String,
        /// The minimum.
        minimum: usize,
        /// The maximum.
        maximum: usize,
    },
    /// A path that needs a shell to expand it.
    #[error("{0:?} starts with a tilde, which only a shell expands; write the full path.")]
    Tilde(String),
    /// A relative path of a program, in a current directory whose path is not UTF-8.
    #[error("the path {} is not valid UTF-8; use another path.", .0.display())]
    NotUnicode(PathBuf),
    /// A directory that cannot be used.
    #[error("{} {reason}; choose an existing directory.", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The reason, such as `does not exist`.
        reason: String,
    },
    /// Arguments that look like JSON but are not an array of strings.
    #[error("the value starts with [ but is not a JSON array of strings ({0}).")]
    Arguments(String),
    /// An invalid address of the listener.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// An invalid path of the event stream.
    #[error(transparent)]
    StreamPath(#[from] StreamPathError),
    /// An invalid origin.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// An invalid endpoint of the app-server.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
}
