//! The files that the app-server reads at its start and not again: its program, its configuration and its login.
//!
//! Everything here blocks, so it is called from threads that may.
//! Of the login only hashes are stored in memory, keyed with a random key of this process.

use std::collections::hash_map::RandomState;
use std::fs::{self, Metadata};
use std::hash::BuildHasher;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::codex::protocol::environment;

/// The longest `auth.json` that is read, in bytes; one of Codex has a few thousand.
const MAX_AUTH_BYTES: u64 = 1024 * 1024;

/// Identifies a version of a file; `None` for a file that does not exist.
///
/// With the time of its last change of any kind: npm sets the time of the content of every file to the same value.
pub(in crate::daemon) type Stamp = Option<(u64, i64, i64, u64)>;
/// The file of a program, and its version.
pub(in crate::daemon) type ProgramFile = (PathBuf, Stamp);

/// What the app-server has read.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct AtStart {
    program: Option<ProgramFile>,
    config: Stamp,
    /// The configuration without symlinks, which is how Codex names it.
    config_path: Option<PathBuf>,
    auth: Auth,
}

/// The login as it is on disk.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Auth {
    stamp: Stamp,
    /// Of the whole file.
    content: u64,
    /// Of what stays when Codex renews its own tokens: the key and the account.
    identity: u64,
}

/// What has changed since the app-server was started.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::daemon) struct Changes {
    pub(in crate::daemon) program: bool,
    pub(in crate::daemon) config: bool,
    /// The login in any way: Codex does so itself when it renews its tokens.
    pub(in crate::daemon) auth: bool,
    /// The login to another key or account.
    pub(in crate::daemon) account: bool,
}

/// The files.
#[derive(Debug)]
pub(in crate::daemon) struct Files {
    codex_home: Option<PathBuf>,
    at_start: Mutex<AtStart>,
    hashes: RandomState,
}

impl Files {
    pub(in crate::daemon) fn new(codex_home: Option<PathBuf>) -> Self {
        Self { codex_home, at_start: Mutex::default(), hashes: RandomState::new() }
    }

    /// Whether there are files to check.
    pub(in crate::daemon) fn are_known(&self) -> bool {
        self.codex_home.is_some()
    }

    pub(in crate::daemon) fn config_path(&self) -> Option<PathBuf> {
        self.codex_home.as_ref().map(|home| home.join(environment::CONFIG_FILE))
    }

    /// Records the files that an app-server is about to read; returns whether its login differs from that of the previous
    /// app-server.
    pub(in crate::daemon) fn note_start(&self, program: Option<&Path>) -> bool {
        let now = AtStart {
            program: program.map(program_file),
            config: self.config_stamp(),
            config_path: self
                .codex_home
                .as_deref()
                .and_then(|home| fs::canonicalize(home).ok())
                .map(|home| home.join(environment::CONFIG_FILE)),
            auth: self.auth(Auth::default()),
        };
        let mut at_start = self.at_start.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *at_start, now);
        before.auth.content != at_start.auth.content
    }

    /// Records the login that an app-server uses which was started before.
    pub(in crate::daemon) fn note_login(&self) {
        let auth = self.auth(Auth::default());
        self.at_start.lock().unwrap_or_else(PoisonError::into_inner).auth = auth;
    }

    /// The program that the app-server was started from.
    pub(in crate::daemon) fn program_at_start(&self) -> Option<ProgramFile> {
        self.at_start.lock().unwrap_or_else(PoisonError::into_inner).program.clone()
    }

    /// The state of the configuration as it is now.
    pub(in crate::daemon) fn config_stamp(&self) -> Stamp {
        self.config_path().as_deref().and_then(stamp)
    }

    /// Whether a reason of Codex begins with a position in the configuration of its user, such as
    /// `/h/config.toml:1:9: …`; that of a project is read for the threads of that project only. Reads no file.
    pub(in crate::daemon) fn is_in_config(&self, reason: &str) -> bool {
        let resolved = self.at_start.lock().unwrap_or_else(PoisonError::into_inner).config_path.clone();
        [self.config_path(), resolved].into_iter().flatten().any(|path| {
            reason.strip_prefix(&*path.to_string_lossy()).is_some_and(|rest| rest.starts_with(':'))
        })
    }

    /// What has changed; `program` is where the program is now.
    pub(in crate::daemon) fn changes(&self, program: Option<&Path>) -> Changes {
        let before = self.at_start.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let auth = self.auth(before.auth);
        Changes {
            program: program.is_some() && before.program != program.map(program_file),
            config: before.config != self.config_stamp(),
            auth: before.auth.content != auth.content,
            account: before.auth.identity != auth.identity,
        }
    }

    /// The login as it is now; one whose stamp is that of `known` is not read again.
    fn auth(&self, known: Auth) -> Auth {
        let Some(path) = self.codex_home.as_ref().map(|home| home.join(environment::AUTH_FILE)) else {
            return known;
        };
        let stamp = stamp(&path);
        if stamp.is_some() && stamp == known.stamp {
            return known;
        }
        let small = stamp.is_some_and(|(length, ..)| length <= MAX_AUTH_BYTES);
        let text = if small { fs::read(&path).unwrap_or_default() } else { Vec::new() };
        let login: Value = serde_json::from_slice(&text).unwrap_or_default();
        let identity = self.hashes.hash_one(environment::login_identity(&login).map(Value::to_string));
        Auth { stamp, content: self.hashes.hash_one(&text), identity }
    }
}

/// The file of a program as it is now; blocks.
pub(in crate::daemon) fn program_file(path: &Path) -> ProgramFile {
    (path.to_owned(), stamp(path))
}

fn stamp(path: &Path) -> Stamp {
    let of = |about: Metadata| (about.len(), about.ctime(), about.ctime_nsec(), about.ino());
    fs::metadata(path).ok().map(of)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_distinguish_new_account_from_renewed_tokens() {
        let home = tempfile::tempdir().unwrap();
        let files = Files::new(Some(home.path().to_owned()));
        let write = |login: Value| fs::write(home.path().join("auth.json"), login.to_string()).unwrap();
        let login = |account: &str, token: &str| json!({ "tokens": { "account_id": account, "access_token": token } });
        write(login("a", "one"));
        files.note_start(None);
        assert_eq!(files.changes(None), Changes::default());
        write(login("a", "renewed"));
        assert_eq!(files.changes(None), Changes { auth: true, ..Changes::default() });
        write(login("b", "other"));
        assert_eq!(files.changes(None), Changes { auth: true, account: true, ..Changes::default() });
        fs::remove_file(home.path().join("auth.json")).unwrap();
        assert!(files.changes(None).account);
        assert!(files.note_start(None), "the login is another one than that of the start before");
        assert_eq!(files.changes(None), Changes::default());
    }

    #[test]
    fn changes_report_program_and_configuration() {
        let home = tempfile::tempdir().unwrap();
        let files = Files::new(Some(home.path().to_owned()));
        let (config, program) = (home.path().join("config.toml"), home.path().join("codex"));
        files.note_start(None);
        assert_eq!(files.changes(None), Changes::default());
        fs::write(&config, "x = 1").unwrap();
        fs::write(&program, "").unwrap();
        assert_eq!(files.changes(None), Changes { config: true, ..Changes::default() });
        assert_eq!(
            files.changes(Some(&program)),
            Changes { config: true, program: true, ..Changes::default() }
        );
        files.note_start(Some(&program));
        assert_eq!(files.changes(Some(&program)), Changes::default());
    }

    #[test]
    fn is_in_config_rejects_the_configuration_of_a_project() {
        let home = tempfile::tempdir().unwrap();
        let link = home.path().join("link");
        fs::create_dir(home.path().join("codex")).unwrap();
        std::os::unix::fs::symlink(home.path().join("codex"), &link).unwrap();
        let files = Files::new(Some(link.clone()));
        files.note_start(None);
        let resolved = fs::canonicalize(&link).unwrap();
        for (reason, is_in_config) in [
            (format!("{}/config.toml:1:9: no `=`", link.display()), true),
            (format!("{}/config.toml:1:9: no `=`", resolved.display()), true),
            (format!("{}/config.toml.old:1:9: no `=`", link.display()), false),
            ("/project/.codex/config.toml:1:9: no `=`".to_owned(), false),
            ("Model provider `nope` not found".to_owned(), false),
        ] {
            assert_eq!(files.is_in_config(&reason), is_in_config, "{reason}");
        }
        assert!(!Files::new(None).is_in_config("/h/config.toml:1:9: no `=`"));
    }
}
