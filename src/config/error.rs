//! The errors of settings, as sentences for the user.

use std::path::PathBuf;

use crate::codex::protocol::versions::INSTALL_COMMAND;

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
        problem: String,
    },
    /// An environment variable is not valid UTF-8.
    #[error("{variable}: the value is not valid UTF-8; set it to plain text or unset it.")]
    NotUnicode {
        /// The environment variable.
        variable: String,
    },
    /// A default depends on the home directory, and HOME is not set.
    #[error(
        "HOME is not set to an absolute path, so there is no default for --{name}; set HOME, --{name} or \
         BAA_CODEXD_{}.",
        name.replace('-', "_").to_uppercase()
    )]
    NoHomeForDefault {
        /// The name of the setting, without dashes.
        name: &'static str,
    },
    /// HOME is not set, so the user of the service is unknown.
    #[error("HOME is not set to an absolute path, so the user of the service is unknown; set HOME.")]
    HomeNotSet,
    /// A path that cannot be written into an environment variable as text.
    #[error("The path {path} of --{name} is not valid UTF-8; use another path.")]
    PathNotUnicode {
        /// The name of the setting, without dashes.
        name: String,
        /// The path, approximately.
        path: String,
    },
    /// A setting that contains a secret and would be written into the service file.
    #[error(
        "The value of --{name} holds what looks like a password or a key, and those are not written into files; give \
         it to codexd at its start by the variable {variable}."
    )]
    SecretInSetting {
        /// The name of the setting, without dashes.
        name: String,
        /// The environment variable of the setting.
        variable: String,
    },
    /// The strategy is external, and no endpoint is set.
    #[error(
        "The server strategy is external, which needs the address of a running app-server: set --server-endpoint or BAA_CODEXD_SERVER_ENDPOINT."
    )]
    EndpointMissing,
    /// The strategy is shared, and the directory of Codex is not known.
    #[error(
        "The control socket of Codex is in its directory, and neither CODEX_HOME nor HOME is set; set one of them."
    )]
    NoHomeForControlSocket,
    /// The default working directory of the app-server cannot be used.
    #[error("The app-server cannot start in {}, which comes from {origin}: {reason}; choose another directory with --server-cwd.", path.display())]
    DefaultServerCwd {
        /// The directory.
        path: PathBuf,
        /// The flag or environment variable that it depends on.
        origin: String,
        /// The reason, as half a sentence.
        reason: String,
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
