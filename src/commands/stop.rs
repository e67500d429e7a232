//! `codexd stop`: stops the daemon of these directories; and `codexd logs`: shows its log.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::demo::DIRECTORY;
use super::failure::{EXIT_NO_DAEMON, Failure};
use super::output;
use super::programs::{become_journal, become_program};
use crate::cli::{FileArguments, LogsArguments};
use crate::config::Paths;
use crate::service::SYSTEMD_UNIT;
use crate::storage;

/// How long a stop may take: a little longer than the daemon allows itself.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The files in the directory of logs that codexd's own log may be in.
const LOG_FILES: [&str; 2] = [storage::LOG_FILE_NAME, "launchd.stderr.log"];

pub(crate) fn run(arguments: &FileArguments) -> Result<ExitCode, Failure> {
    let paths = arguments.paths.clone().resolve(&arguments.sources)?;
    let Some((directory, pid)) = running(&paths)? else {
        return Err(Failure {
            code: EXIT_NO_DAEMON,
            message: format!("No codexd uses the state directory {}.", paths.state_dir.display()),
        });
    };
    kill_process(pid, Signal::TERM)
        .map_err(|error| Failure::new(format!("Failed to stop the process {pid}: {error}.")))?;
    let until = Instant::now() + STOP_TIMEOUT;
    while storage::holder_pid(&directory).is_ok_and(|holder| holder == Some(pid.as_raw_pid())) {
        if Instant::now() > until {
            return Err(Failure::new(format!(
                "codexd (PID {pid}) has not stopped after {} s.",
                STOP_TIMEOUT.as_secs()
            )));
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    match arguments.json {
        true => output::print_json(&json!({ "stopped": true, "pid": pid.as_raw_pid() }))?,
        false => {
            output::print(&format!("codexd (PID {pid}, state in {}) has stopped.", directory.display()))?
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The process that uses the state directory, or that of the demo, and the directory.
fn running(paths: &Paths) -> Result<Option<(PathBuf, Pid)>, Failure> {
    for directory in [paths.state_dir.clone(), paths.state_dir.join(DIRECTORY)] {
        let pid = storage::holder_pid(&directory).map_err(|error| {
            Failure::new(format!("Failed to read the lock of {}: {error}.", directory.display()))
        })?;
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            return Ok(Some((directory, pid)));
        }
    }
    Ok(None)
}

/// Becomes a program that prints the end of the log: of the journal where codexd is a unit of systemd, else of a file.
pub(crate) fn logs(arguments: &LogsArguments) -> Result<ExitCode, Failure> {
    let paths = arguments.paths.clone().resolve(&arguments.sources)?;
    let lines = arguments.lines.to_string();
    let running = running(&paths)?;
    let is_unit = running.as_ref().is_some_and(|(_, pid)| {
        let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        cgroup.contains(SYSTEMD_UNIT)
    });
    let modified = |path: &PathBuf| std::fs::metadata(path).and_then(|file| file.modified()).ok();
    let newest = || {
        let directories = [paths.logs_dir.clone(), paths.logs_dir.join(DIRECTORY)];
        let files = directories.iter().flat_map(|directory| LOG_FILES.map(|name| directory.join(name)));
        files
            .filter_map(|path| Some((modified(&path)?, path)))
            .max_by_key(|(time, _): &(SystemTime, _)| *time)
    };
    if is_unit {
        return Err(become_journal(&lines, arguments.follow));
    }
    let Some((_, path)) = newest() else {
        return Err(Failure::new(format!(
            "There is no log in {}; where codexd runs with -v or without a terminal, its log is what it writes to stderr.",
            paths.logs_dir.display()
        )));
    };
    let path: &Path = &path;
    let path = path.to_string_lossy();
    let mut command = vec!["-n", lines.as_str()];
    command.extend(arguments.follow.then_some("-F"));
    command.push(&path);
    Err(become_program("tail", &command))
}
