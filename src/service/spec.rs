//! What the files of both service managers contain, and why a file cannot be made.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::config::ConfigError;

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
    /// A variable that cannot be passed to the service.
    #[error("{name} cannot be passed to the service: {reason}.")]
    Variable {
        /// Its name.
        name: String,
        /// The reason, as half a sentence.
        reason: &'static str,
    },
    /// What was given instead of the name of a variable; it may be a secret.
    #[error(
        "--service-env and --no-service-env take the name of an environment variable that is set, such as HTTPS_PROXY, \
         without its value."
    )]
    NotAName,
    /// The file with the variables that were passed to the service cannot be used.
    #[error("The environment variables of the service cannot be used: {0}.")]
    Environment(#[source] io::Error),
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

/// The values in either kind of file.
pub(super) struct ServiceSpec<'a> {
    pub(super) program: &'a str,
    pub(super) home: &'a str,
    pub(super) search_path: String,
    pub(super) codex_home: Option<&'a str>,
    /// The settings, by environment variable.
    pub(super) variables: Vec<(String, String)>,
    pub(super) connections: usize,
}

/// The minimum soft limit for open files; codexd would request the same.
const MIN_OPEN_FILES: usize = 1024;
/// How many of them are not for connections.
const RESERVED_FILES: usize = 64;

impl ServiceSpec<'_> {
    /// The soft limit for open files.
    pub(super) fn open_files(&self) -> usize {
        // The default of --connection-limit is no reason to raise it: codexd then accepts a few connections less.
        match self.connections {
            0..=MIN_OPEN_FILES => MIN_OPEN_FILES,
            more => more.saturating_add(RESERVED_FILES),
        }
    }
}

/// Converts a path to text that either kind of file can contain.
pub(super) fn text(path: &Path) -> Result<&str, ServiceError> {
    let refused = |reason| ServiceError::Path { path: path.to_owned(), reason };
    let text = path.to_str().ok_or_else(|| refused("is not valid UTF-8"))?;
    match text.contains(char::is_control) {
        true => Err(refused("contains a control character")),
        false => Ok(text),
    }
}
