//! Which token a client sends.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::settings::AUTH_TOKEN_FILE;
use crate::config::{ServiceConfig, default_token_file};
use crate::http::read_token;

/// The file that a setting names, or else the one that `codexd token` creates without settings.
///
/// A named one is always used. The other one may be a remainder, so it is used after the daemon has rejected a request
/// without a token; clones of the client learn of that too.
#[derive(Debug, Clone)]
pub(super) struct ClientToken {
    named: Option<PathBuf>,
    default: Option<PathBuf>,
    is_default_used: Arc<AtomicBool>,
}

impl ClientToken {
    pub(super) fn new(service: &ServiceConfig) -> Self {
        Self {
            named: service.auth.auth_token_file.clone(),
            default: default_token_file(),
            is_default_used: Arc::default(),
        }
    }

    /// The same with another default.
    pub(super) fn with_default(self, default: Option<PathBuf>) -> Self {
        Self { default, ..self }
    }

    /// The file that is used.
    pub(super) fn file(&self) -> Option<&Path> {
        let default = self.default.as_deref().filter(|_| self.is_default_used.load(Ordering::Relaxed));
        self.named.as_deref().or(default)
    }

    /// Reads the token to send, if there is one.
    pub(super) fn read(&self) -> io::Result<Option<String>> {
        self.file().map(read_token).transpose()
    }

    /// After a request without a token was rejected: whether to send it again, because the default file has one.
    pub(super) fn use_default(&self) -> bool {
        let is_new = self.file().is_none();
        let is_there = is_new && self.default.as_deref().is_some_and(|path| read_token(path).is_ok());
        self.is_default_used.fetch_or(is_there, Ordering::Relaxed);
        is_there
    }

    /// What the user should know and do when the daemon rejects a request because of the token. The daemon speaks of headers;
    /// users have files.
    pub(super) fn rejected(&self) -> String {
        let name_it = format!("name the file it was started with by --auth-token-file or {AUTH_TOKEN_FILE}");
        if let Some(path) = self.file() {
            return format!("The daemon rejects the token in {}; {name_it}.", path.display());
        }
        let Some(path) = &self.default else { return format!("The daemon needs a token: {name_it}.") };
        match read_token(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                format!("The daemon needs a token, and the usual file cannot be used: {error}.")
            }
            _ => format!(
                "The daemon needs a token, and {} does not exist: {name_it}; \"codexd token\" creates one.",
                path.display()
            ),
        }
    }
}
