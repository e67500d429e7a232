//! Finds the server command.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::error::ConfigError;
use super::values::{ChildEnvironment, Config, ServerConfig};

/// The name of this program.
const NAME: &str = env!("CARGO_PKG_NAME");

impl Config {
    /// The file of a program that codexd runs beside the app-server, and which therefore has no directory of its own: a
    /// name that is searched for in the `PATH` of the daemon, or an absolute path.
    pub fn find_other_program(&self, command: &str) -> Result<PathBuf, ConfigError> {
        find_program(command, self.server.child_environment.path.as_deref(), Path::new("/"))
    }

    /// The path by which a shell finds this program, the file `program`, in `PATH`; it may be a link. `None` where a shell
    /// finds another program or none.
    pub fn own_path(&self, program: &Path) -> Option<PathBuf> {
        self.find_other_program(NAME).ok().filter(|found| is_same_file(found, program))
    }

    /// What a person types to run this program: its name where a shell finds it in `PATH`, else its path.
    pub fn own_command(&self) -> String {
        let Ok(program) = std::env::current_exe() else { return NAME.to_owned() };
        if self.own_path(&program).is_some() {
            return NAME.to_owned();
        }
        let here = std::env::current_dir().ok();
        let path =
            here.and_then(|here| program.strip_prefix(here).ok().map(Path::to_owned)).unwrap_or(program);
        shlex::try_quote(&path.to_string_lossy())
            .map_or_else(|_| NAME.to_owned(), |quoted| quoted.into_owned())
    }
}

/// Whether two paths lead to the same file.
pub fn is_same_file(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

impl ServerConfig {
    /// The file of the server command: that of [`find_program`], else the one in `~/.local/bin`.
    pub fn find_program(&self) -> Result<PathBuf, ConfigError> {
        find_server_program(&self.command, &self.child_environment, &self.cwd)
    }
}

fn find_server_program(
    command: &str,
    environment: &ChildEnvironment,
    cwd: &Path,
) -> Result<PathBuf, ConfigError> {
    find_program(command, environment.path.as_deref(), cwd).or_else(|error| {
        let local_bin = environment.local_bin.as_ref().filter(|path| path.is_absolute());
        let local = local_bin.map(|directory| directory.join(command));
        let is_found = !command.contains('/')
            && local.as_ref().is_some_and(|path| matches!(classify(path), Candidate::Program));
        local.filter(|_| is_found).ok_or(error)
    })
}

/// Returns the file that a command names.
///
/// A command with a slash is a path, relative to `cwd`; any other command is searched for in `path_variable`, the value
/// of `PATH`. Relative entries of `PATH` are skipped, because their meaning would depend on the working directory of
/// the app-server.
///
/// Callers do this each time they start the command, not when the settings are read: Codex may be installed, upgraded
/// or removed while codexd runs.
pub fn find_program(
    command: &str,
    path_variable: Option<&OsStr>,
    cwd: &Path,
) -> Result<PathBuf, ConfigError> {
    if command.contains('/') {
        let path = cwd.join(command);
        return match classify(&path) {
            Candidate::Program => Ok(path),
            Candidate::Other => Err(ConfigError::ProgramNotExecutable { path }),
            Candidate::Missing => Err(ConfigError::ProgramNotFound {
                command: command.to_owned(),
                searched: format!("at {}", path.display()),
            }),
        };
    }
    let Some(path_variable) = path_variable.filter(|value| !value.is_empty()) else {
        return Err(ConfigError::ProgramNotFound {
            command: command.to_owned(),
            searched: "because PATH is not set".to_owned(),
        });
    };
    let mut not_executable = None;
    for directory in std::env::split_paths(path_variable).filter(|directory| directory.is_absolute()) {
        let path = directory.join(command);
        match classify(&path) {
            Candidate::Program => return Ok(path),
            // As in a shell, a later entry may still have it.
            Candidate::Other => not_executable = not_executable.or(Some(path)),
            Candidate::Missing => {}
        }
    }
    Err(match not_executable {
        Some(path) => ConfigError::ProgramNotExecutable { path },
        None => ConfigError::ProgramNotFound {
            command: command.to_owned(),
            searched: format!("in PATH ({})", path_variable.to_string_lossy()),
        },
    })
}

enum Candidate {
    Program,
    Other,
    Missing,
}

fn classify(path: &Path) -> Candidate {
    match path.metadata() {
        Ok(metadata) if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 => {
            Candidate::Program
        }
        Ok(_) => Candidate::Other,
        Err(_) => Candidate::Missing,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write_program(directory: &Path, name: &str, mode: u32) -> PathBuf {
        fs::create_dir_all(directory).unwrap();
        let path = directory.join(name);
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn find_program_returns_first_executable_in_path() {
        let directory = tempfile::tempdir().unwrap();
        let [one, two, three] = ["one", "two", "three"].map(|name| directory.path().join(name));
        fs::create_dir_all(one.join("codex")).unwrap();
        write_program(&two, "codex", 0o644);
        let expected = write_program(&three, "codex", 0o755);
        let path_variable = std::env::join_paths([&one, &two, &three]).unwrap();

        assert_eq!(find_program("codex", Some(&path_variable), directory.path()).unwrap(), expected);

        fs::remove_file(expected).unwrap();
        let refusal = find_program("codex", Some(&path_variable), directory.path()).unwrap_err();
        assert!(matches!(refusal, ConfigError::ProgramNotExecutable { path } if path == one.join("codex")));
    }

    #[test]
    fn find_program_skips_relative_path_entries() {
        let directory = tempfile::tempdir().unwrap();
        write_program(directory.path(), "codex", 0o755);
        // A relative path over the root that leads to the program from the working directory of this test.
        let up = "../".repeat(std::env::current_dir().unwrap().components().count());
        let relative = format!("{up}{}", directory.path().strip_prefix("/").unwrap().display());
        assert!(Path::new(&relative).join("codex").is_file());
        for entry in [relative.as_str(), ".", ""] {
            let path_variable = format!("{entry}:/nonexistent");
            find_program("codex", Some(OsStr::new(&path_variable)), directory.path()).unwrap_err();
        }
    }

    #[test]
    fn find_program_treats_command_with_slash_as_file() {
        let directory = tempfile::tempdir().unwrap();
        let program = write_program(&directory.path().join("bin"), "codex", 0o755);
        let plain = write_program(&directory.path().join("bin"), "notes", 0o644);

        assert_eq!(find_program("bin/codex", None, directory.path()).unwrap(), program);
        assert_eq!(find_program(program.to_str().unwrap(), None, Path::new("/")).unwrap(), program);
        let refusal = find_program("bin/notes", None, directory.path()).unwrap_err();
        assert!(matches!(refusal, ConfigError::ProgramNotExecutable { path } if path == plain));
        let refusal = find_program("bin/none", None, directory.path()).unwrap_err().to_string();
        assert!(
            refusal.contains(&format!("at {}", directory.path().join("bin/none").display())),
            "{refusal}"
        );
    }

    #[test]
    fn server_command_is_also_found_where_the_shell_does_not_look_yet() {
        let directory = tempfile::tempdir().unwrap();
        let [bin, local] = ["bin", ".local/bin"].map(|name| directory.path().join(name));
        let in_local = write_program(&local, "codex", 0o755);
        let mut environment =
            ChildEnvironment { path: Some(bin.clone().into()), ..ChildEnvironment::default() };
        find_server_program("codex", &environment, directory.path()).unwrap_err();
        environment.local_bin = Some(local);
        let find = |command| find_server_program(command, &environment, directory.path());
        assert_eq!(find("codex").unwrap(), in_local);
        let in_path = write_program(&bin, "codex", 0o755);
        assert_eq!(find("codex").unwrap(), in_path, "PATH counts first");
        find("./codex").unwrap_err();
    }

    #[test]
    fn find_program_error_names_searched_places_and_fix() {
        let refusal =
            find_program("codex", Some(OsStr::new("/nonexistent/a:/nonexistent/b")), Path::new("/"))
                .unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "The server command \"codex\" was not found in PATH (/nonexistent/a:/nonexistent/b); install Codex with \
             \"npm install --global --prefix ~/.local @openai/codex\" or point --server-command at it."
        );
        for path_variable in [None, Some(OsStr::new(""))] {
            let refusal = find_program("codex", path_variable, Path::new("/")).unwrap_err().to_string();
            assert!(refusal.contains("because PATH is not set"), "{refusal}");
        }
    }
}
