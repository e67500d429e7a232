//! What can be wrong with the settings, in sentences for the person who gave them.

use std::path::PathBuf;

use crate::codex::protocol::versions::INSTALL_COMMAND;

use super::{AddressError, EndpointError, OriginError, StreamPathError};

/// Why there is no configuration.
///
/// Each message is one sentence, says where the value was given, and never shows credentials or a query.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value breaks the rules of its setting.
    #[error("{origin}: {problem}")]
    Invalid {
        /// The flag or the variable that holds the value.
        origin: String,
        /// What is wrong with it.
        problem: ValueError,
    },
    /// A variable is not text.
    #[error("{variable}: the value is not valid UTF-8; set it to plain text or unset it.")]
    NotUnicode {
        /// The variable.
        variable: String,
    },
    /// A default needs the home folder and there is none.
    #[error(
        "HOME is not set to an absolute path, so there is no default for --{name}; set HOME, --{name} or {variable}."
    )]
    NoHomeForDefault {
        /// The setting without its dashes.
        name: &'static str,
        /// The variable of the setting.
        variable: &'static str,
    },
    /// Nothing says whose service it would be.
    #[error("HOME is not set to an absolute path, so it is not known whose service is meant; set HOME.")]
    HomeNotSet,
    /// A path that no variable can hold as text.
    #[error("The path {} of --{name} is not valid UTF-8; name another.", path.display())]
    PathNotUnicode {
        /// The setting without its dashes.
        name: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// A setting with a secret in it, which is asked for as a variable.
    #[error(
        "The value of --{name} holds what looks like a password or a key, and those are not written into files; give \
         it to codexd at its start by the variable {variable}."
    )]
    SecretInSetting {
        /// The setting without its dashes.
        name: &'static str,
        /// The variable of the setting.
        variable: &'static str,
    },
    /// The strategy says external, and nothing says where.
    #[error(
        "The server strategy is external, which needs the address of a running app-server: set --server-endpoint or BAA_CODEXD_SERVER_ENDPOINT."
    )]
    EndpointMissing,
    /// The default folder for the app-server cannot be used.
    #[error("The app-server cannot start in {}, which comes from {origin}: {reason}; name another folder with --server-cwd.", path.display())]
    DefaultServerCwd {
        /// The folder.
        path: PathBuf,
        /// The flag or the variable it follows from.
        origin: &'static str,
        /// Why it cannot be used, as half a sentence.
        reason: String,
    },
    /// The folder codexd was started in is gone or not readable.
    #[error("The current folder cannot be read: {source}; start codexd in another folder.")]
    CurrentDirectory {
        /// The system's answer.
        source: std::io::Error,
    },
    /// The server command is nowhere.
    #[error(
        "The server command {command:?} was not found {searched}; install Codex with \"{install}\" or point --server-command at it.",
        install = INSTALL_COMMAND
    )]
    ProgramNotFound {
        /// The command as set.
        command: String,
        /// Where it was looked for, as half a sentence with PATH in it.
        searched: String,
    },
    /// The server command is there, but cannot be run.
    #[error(
        "The server command {} is not a file that may be run; make it executable, install Codex with \"{install}\" or point --server-command at another.",
        path.display(),
        install = INSTALL_COMMAND
    )]
    ProgramNotExecutable {
        /// The file or folder that has the name.
        path: PathBuf,
    },
}

/// What is wrong with one value.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// A flag with nothing but white space.
    #[error("the value is empty; give one or leave the flag out.")]
    Empty,
    /// A line break or the like, which would tear the one-line outputs apart.
    #[error("the value contains a control character; remove it.")]
    ControlCharacter,
    /// A mode other than the one there is.
    #[error("the mode {0:?} is not supported; app-server is the only mode.")]
    Mode(String),
    /// A strategy that does not exist.
    #[error("the strategy {0:?} does not exist; use spawn or external.")]
    Strategy(String),
    /// A count that is no whole number within its limits.
    #[error("{value:?} is not a whole number from {minimum} to {maximum}.")]
    Count {
        /// What was given.
        value: String,
        /// The least that is allowed.
        minimum: usize,
        /// The most that is allowed.
        maximum: usize,
    },
    /// A path that only a shell could read.
    #[error("{0:?} begins with a tilde, which only a shell replaces; write the whole path.")]
    Tilde(String),
    /// A relative path of a program, seen from a directory whose path is not UTF-8.
    #[error("the path {} is not valid UTF-8; name another.", .0.display())]
    NotUnicode(PathBuf),
    /// A folder that cannot be used.
    #[error("{} {reason}; name a folder that exists.", path.display())]
    Directory {
        /// The folder.
        path: PathBuf,
        /// Why not, such as `does not exist`.
        reason: String,
    },
    /// Arguments that look like JSON and are not an array of strings.
    #[error("the value begins with [ and is not a JSON array of strings ({0}).")]
    Arguments(String),
    /// A bad address of the service.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A bad path of the WebSocket.
    #[error(transparent)]
    StreamPath(#[from] StreamPathError),
    /// A bad origin.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// A bad endpoint of the app-server.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
}
