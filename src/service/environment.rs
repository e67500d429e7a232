//! The environment variables that `codexd service install --service-env` passes to the service.
//!
//! They may be secrets, and other users may be able to read the service file. So the service file has only the path of a
//! file of their own, which no other user may read. Both service managers start codexd alike: `codexd start` reads the
//! file and executes itself again with the variables, before it starts any thread. So codexd, the app-server and all other
//! processes have them, and none has to be told.
//!
//! Invariant: no value is in an error, in `Debug` or in the service file.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::spec::ServiceError;
use crate::codex::protocol::environment::CODEX_HOME;
use crate::config::{SERVICE_ENV_FILE, service_env_file};
use crate::storage::{Disk, read_secret};

/// The maximum size of the file, in bytes; the environment of a process cannot be much larger.
const MAX_FILE_BYTES: u64 = 1 << 20;

const HEADING: &str = "\
# The environment variables of the codexd service; codexd service install --service-env NAME writes them.
# One NAME=VALUE per line. A value in double quotes is a JSON string.
";

/// The variables that the user passes to the service, and the file in which they are stored.
#[derive(Clone, PartialEq, Eq)]
pub struct ServiceEnvironment {
    path: PathBuf,
    variables: BTreeMap<String, String>,
}

impl fmt::Debug for ServiceEnvironment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.names().collect();
        formatter.debug_struct("ServiceEnvironment").field("path", &self.path).field("names", &names).finish()
    }
}

impl ServiceEnvironment {
    /// Reads what is stored in the file; without a file there are none.
    ///
    /// A file that another user may read is an error, because its secrets may be known already.
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = match read_secret(path, MAX_FILE_BYTES) {
            Ok((text, _)) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let variables = parse(&text).map_err(|problem| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{} {problem}", path.display()))
        })?;
        Ok(Self { path: path.to_owned(), variables })
    }

    /// [`ServiceEnvironment::read`] for this user and system.
    pub fn of_this_user() -> Result<Self, ServiceError> {
        Self::read(&super::variables_file()?).map_err(ServiceError::Environment)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of the variables, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.keys().map(String::as_str)
    }

    /// Whether the variable is passed to the service.
    pub fn has(&self, name: &str) -> bool {
        self.variables.contains_key(name)
    }

    /// Whether the variable is passed to the service with another value than this one.
    pub fn differs(&self, name: &str, value: &OsStr) -> bool {
        self.variables.get(name).is_some_and(|stored| OsStr::new(stored) != value)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.variables.is_empty()
    }

    /// Takes the variables `removed` out, and stores `added` with the values that `value_of` returns.
    pub fn change(
        &mut self,
        added: &[String],
        removed: &[String],
        value_of: impl Fn(&str) -> Option<OsString>,
    ) -> Result<(), ServiceError> {
        for name in removed {
            check_name(name)?;
            if self.variables.remove(name).is_none() {
                return Err(refused(name, "it is none of the variables that were passed to it"));
            }
        }
        for name in added {
            check_name(name)?;
            let value = value_of(name).ok_or_else(|| not_set(name))?;
            let value = value.into_string().map_err(|_| refused(name, "its value is not valid UTF-8"))?;
            self.variables.insert(name.clone(), value);
        }
        Ok(())
    }

    /// Writes the file, which only its owner may read, or removes it where there are no variables.
    pub fn write(&self, disk: &Disk) -> io::Result<()> {
        if self.is_empty() {
            return super::remove(disk, &self.path).map(drop);
        }
        if let Some(directory) = self.path.parent() {
            disk.create_directory(directory)?;
        }
        let lines = self.variables.iter().map(|(name, value)| {
            // Quoted, so that a value may have several lines.
            format!("{name}={}\n", serde_json::Value::from(value.as_str()))
        });
        let text: String = std::iter::once(HEADING.to_owned()).chain(lines).collect();
        disk.replace(&self.path, text.as_bytes())
    }
}

/// In a process that the service manager started with a file of variables, executes this program again with them: the
/// process stays the same, so its PID does. Returns in every other process, and on failure.
pub fn enter_environment() -> Result<(), ServiceError> {
    let Some(path) = service_env_file() else { return Ok(()) };
    let environment = ServiceEnvironment::read(&path).map_err(ServiceError::Environment)?;
    if environment.is_empty() {
        let problem = format!(
            "{} has none, although the service file names it; \"codexd service install\" writes both",
            path.display()
        );
        return Err(ServiceError::Environment(io::Error::new(io::ErrorKind::NotFound, problem)));
    }
    let mut command = Command::new(std::env::current_exe().map_err(ServiceError::Program)?);
    let mut arguments = std::env::args_os();
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments).envs(environment.variables).env_remove(SERVICE_ENV_FILE);
    // It returns only if the program cannot be executed.
    Err(ServiceError::Environment(command.exec()))
}

/// Reads the lines of the file; an error is half a sentence without any value.
fn parse(text: &[u8]) -> Result<BTreeMap<String, String>, String> {
    let text = std::str::from_utf8(text).map_err(|_| "is not valid UTF-8".to_owned())?;
    let lines =
        text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|(index, line)| {
            let number = index + 1;
            let (name, value) = line.split_once('=').ok_or(format!("has no NAME=VALUE in line {number}"))?;
            check_name(name)
                .map_err(|error| format!("has a name that is no use in line {number}: {error}"))?;
            let value = match value.starts_with('"') {
                true => serde_json::from_str(value)
                    .map_err(|_| format!("has a value in line {number} that is not a JSON string"))?,
                false => value.to_owned(),
            };
            if value.contains('\0') {
                return Err(format!("has a value in line {number} with a null character"));
            }
            Ok((name.to_owned(), value))
        })
        .collect()
}

/// Checks that the service can be given a variable of this name.
fn check_name(name: &str) -> Result<(), ServiceError> {
    let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && name.starts_with(|c: char| !c.is_ascii_digit());
    // What is given instead of a name may be the value.
    if !is_name {
        return Err(ServiceError::NotAName);
    }
    let reason = match name {
        "PATH" => "\"codexd service install\" makes a PATH that has Codex and node",
        "HOME" => "the service has the home directory of your user",
        CODEX_HOME => "\"codexd service install\" puts it into the service file itself",
        _ if name.starts_with("BAA_") => {
            "it belongs to codexd; \"codexd service install\" puts every setting into the service file itself"
        }
        _ => return Ok(()),
    };
    Err(refused(name, reason))
}

/// What is no variable of this process may be the value of one, as in `--service-env $KEY`; it is shown if it looks like a
/// name, `HTTPS_PROXY` or `https_proxy`.
fn not_set(name: &str) -> ServiceError {
    let has = |kind: fn(&char) -> bool| name.chars().any(|c| kind(&c));
    match has(char::is_ascii_lowercase) && (has(char::is_ascii_digit) || has(char::is_ascii_uppercase)) {
        true => ServiceError::NotAName,
        false => refused(name, "it is not set in the environment of this command; export it first"),
    }
}

fn refused(name: &str, reason: &'static str) -> ServiceError {
    ServiceError::Variable { name: name.to_owned(), reason }
}
