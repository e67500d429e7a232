//! Whether the daemon may read the directories that sessions work in.
//!
//! macOS protects some directories of a user: which programs may read them is decided per program, and a service has other
//! permissions than a program in a terminal. `stat` works there, so only a listing shows it, and only one that the daemon
//! itself makes. The watch of Codex's health has it made; the notes of the health show the result.
//! Owned state: the notes of the last check.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::blocking::Pool;
use crate::config::Platform;

/// How a note about such a directory begins.
pub const PROTECTED_DIRECTORY: &str = "macOS does not let codexd read";
/// What the system reports when a program reads a protected directory (EPERM; a missing permission of the file is EACCES).
const NOT_PERMITTED: &str = "Operation not permitted (os error 1)";
/// How a user allows it.
const ADVICE: &str = "allow codexd in System Settings > Privacy & Security > Full Disk Access, and type: codexd service restart";
/// What macOS protects in the home directory; the last two are iCloud Drive and other clouds.
const PROTECTED_BELOW_HOME: [&str; 5] =
    ["Documents", "Desktop", "Downloads", "Library/Mobile Documents", "Library/CloudStorage"];
/// How many directories are checked.
const MAX_DIRECTORIES: usize = 32;
/// How long one may take: macOS may ask the user first.
const LISTING_TIMEOUT: Duration = Duration::from_secs(2);
static POOL: Pool = Pool::new("directories", 1, 3);

/// The result of the last check.
#[derive(Debug, Default)]
pub(super) struct DirectoryAccess {
    notes: Mutex<Vec<String>>,
}

impl DirectoryAccess {
    /// Lists each of these directories with `list`, and keeps what went wrong.
    pub(super) async fn check(&self, directories: BTreeSet<PathBuf>, list: fn(&Path) -> io::Result<()>) {
        let mut notes = Vec::new();
        for directory in directories.into_iter().take(MAX_DIRECTORIES) {
            let shown = directory.display().to_string();
            match POOL.run(LISTING_TIMEOUT, move || list(&directory)).await {
                Ok(Err(error)) if error.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error()) => {
                    notes.push(format!("{PROTECTED_DIRECTORY} {shown}: {ADVICE}"));
                }
                // Other errors are those of the session, and Codex reports them.
                Ok(_) => {}
                Err(unanswered) => notes.push(format!(
                    "{PROTECTED_DIRECTORY} {shown}: it {unanswered}. It may be asking on its screen; {ADVICE}"
                )),
            }
        }
        *self.notes.lock().unwrap_or_else(PoisonError::into_inner) = notes;
    }

    /// A sentence for each directory that cannot be read.
    pub(super) fn notes(&self) -> Vec<String> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Reads the first entry of a directory.
#[expect(clippy::disallowed_methods, reason = "it runs on a thread of the pool")]
pub(super) fn list(directory: &Path) -> io::Result<()> {
    std::fs::read_dir(directory)?.next().transpose().map(drop)
}

/// An error message of the app-server, with what to do where macOS protects a directory.
pub(super) fn explain(platform: Platform, message: String) -> String {
    if platform != Platform::MacOs || !message.contains(NOT_PERMITTED) {
        return message;
    }
    format!(
        "{}. If the directory is in Documents, Desktop, Downloads or iCloud Drive, or on another volume, macOS protects it: \
         {ADVICE}",
        message.trim_end_matches('.')
    )
}

/// What to do about a failure in the working directory `cwd` of a session, if macOS protects that one and the failure says
/// that something was not permitted.
///
/// `text` is the error of a turn or the output of a failed command, of which many name no error number.
pub fn protected_directory_hint(platform: Platform, home: &Path, cwd: &Path, text: &str) -> Option<String> {
    let is_refused = platform == Platform::MacOs && text.contains("Operation not permitted");
    let below_home = |name: &str| cwd.starts_with(home.join(name));
    let is_protected =
        PROTECTED_BELOW_HOME.iter().any(|name| below_home(name)) || cwd.starts_with("/Volumes");
    let hint = || format!("macOS protects {}: {ADVICE}", cwd.display());
    (is_refused && is_protected).then(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn protected_directory_is_noted_until_it_can_be_read() {
        let access = DirectoryAccess::default();
        let directories = || ["/mine", "/protected"].map(PathBuf::from).into();
        let refuse = |path: &Path| match path.ends_with("protected") {
            true => Err(io::Error::from_raw_os_error(rustix::io::Errno::PERM.raw_os_error())),
            false => Err(io::ErrorKind::PermissionDenied.into()),
        };
        access.check(directories(), refuse).await;
        let notes = access.notes();
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].starts_with("macOS does not let codexd read /protected: allow"), "{notes:?}");
        access.check(directories(), |_| Ok(())).await;
        assert_eq!(access.notes(), [""; 0]);
        let directory = tempfile::tempdir().unwrap();
        assert!(list(directory.path()).is_ok() && list(&directory.path().join("absent")).is_err());
    }

    #[test]
    fn error_of_protected_directory_is_explained_on_macos_only() {
        let message = "failed to read AGENTS.md: Operation not permitted (os error 1)";
        let explained = explain(Platform::MacOs, message.to_owned());
        assert!(explained.starts_with(message) && explained.contains("Full Disk Access"), "{explained}");
        assert_eq!(explain(Platform::Xdg, message.to_owned()), message);
        let other = "Permission denied (os error 13)";
        assert_eq!(explain(Platform::MacOs, other.to_owned()), other);
    }

    #[test]
    fn hint_is_about_protected_directories_and_refusals_on_macos() {
        let hint = |platform, cwd: &str, text: &str| {
            protected_directory_hint(platform, Path::new("/Users/me"), Path::new(cwd), text)
        };
        let refused = "ls: .: Operation not permitted";
        for cwd in [
            "/Users/me/Documents",
            "/Users/me/Desktop/a",
            "/Users/me/Library/Mobile Documents/a",
            "/Volumes/x",
        ] {
            let hint = hint(Platform::MacOs, cwd, refused).unwrap();
            assert!(
                hint.starts_with(&format!("macOS protects {cwd}: allow codexd in System Settings")),
                "{hint}"
            );
        }
        for (platform, cwd, text) in [
            (Platform::MacOs, "/Users/me/src/Documents", refused),
            (Platform::MacOs, "/Users/me/DocumentsOfMine", refused),
            (Platform::MacOs, "/Users/me/Documents", "Permission denied (os error 13)"),
            (Platform::Xdg, "/Users/me/Documents", refused),
        ] {
            assert_eq!(hint(platform, cwd, text), None, "{cwd} {text}");
        }
    }
}
