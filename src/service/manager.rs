//! Calls `launchctl` or `systemctl` for the service of the user.
//!
//! Each call is one process with a timeout. The manager may be missing, such as in a container; that is
//! [`ManagerError::Absent`].

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::process::Command;

use super::spec::{FileChange, NAME};
use crate::config::Platform;

/// Timeout of one call: a stop may take 30 seconds, and a start comes after it.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// How often to check whether launchd has removed the agent.
const UNLOAD_POLL_INTERVAL: Duration = Duration::from_millis(200);
/// The name of the systemd unit.
pub const SYSTEMD_UNIT: &str = "codexd.service";

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManagerError {
    /// There is no service manager, such as in a container; with the reason.
    #[error("no service manager answers ({0})")]
    Absent(String),
    /// The manager reported an error.
    #[error("`{command}` failed: {description}")]
    Failed {
        /// The command line.
        command: String,
        /// The last line of its stderr.
        description: String,
    },
}

/// The state of the service as its manager reports it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ServiceState {
    /// Whether the manager has loaded it.
    pub loaded: bool,
    /// Whether it starts at login; `null` if the manager does not report it.
    pub enabled: Option<bool>,
    /// Whether it runs.
    pub running: bool,
    /// Whether it ended and is not restarted.
    pub failed: bool,
    /// Its PID while it runs.
    pub pid: Option<u32>,
    /// The manager's own text, such as `active (running)`.
    #[serde(rename = "words")]
    pub description: String,
    /// How its last process ended, if one did.
    #[serde(rename = "lastExit")]
    pub last_exit: Option<String>,
}

/// The service manager of the user.
#[derive(Debug, Clone)]
pub struct ServiceManager {
    platform: Platform,
    /// `launchctl` or `systemctl`.
    program: PathBuf,
    user: u32,
}

impl ServiceManager {
    /// The manager of this system.
    pub fn for_this_system() -> Self {
        let platform = Platform::current();
        let program = match platform {
            Platform::MacOs => "launchctl",
            Platform::Xdg => "systemctl",
        };
        Self::new(platform, PathBuf::from(program), rustix::process::getuid().as_raw())
    }

    /// A manager called through `program`, for the user with this ID.
    pub(super) fn new(platform: Platform, program: PathBuf, user: u32) -> Self {
        Self { platform, program, user }
    }

    /// `launchd` or `systemd`.
    pub fn name(&self) -> &'static str {
        match self.platform {
            Platform::MacOs => "launchd",
            Platform::Xdg => "systemd",
        }
    }

    /// The commands that start the service whose file was just written, for the user to type.
    pub fn load_commands(&self, file: &Path) -> Vec<String> {
        match self.platform {
            Platform::MacOs => {
                vec![format!("launchctl bootstrap gui/{} {:?}", self.user, file.display().to_string())]
            }
            Platform::Xdg => {
                vec![
                    "systemctl --user daemon-reload".to_owned(),
                    format!("systemctl --user enable --now {SYSTEMD_UNIT}"),
                ]
            }
        }
    }

    /// The commands that stop and unload the service, for the user to type.
    pub fn unload_commands(&self) -> Vec<String> {
        match self.platform {
            Platform::MacOs => vec![format!("launchctl bootout {}", self.target())],
            Platform::Xdg => {
                vec![
                    format!("systemctl --user disable --now {SYSTEMD_UNIT}"),
                    "systemctl --user daemon-reload".to_owned(),
                ]
            }
        }
    }

    /// The state of the service.
    pub async fn state(&self) -> Result<ServiceState, ManagerError> {
        self.check_available().await?;
        match self.platform {
            Platform::MacOs => {
                let output = self.run(&["print", &self.target()]).await?;
                Ok(if output.status.success() {
                    parse_launchctl_print(&lossy_text(&output.stdout))
                } else {
                    ServiceState::default()
                })
            }
            Platform::Xdg => {
                let asked =
                    "--property=LoadState,ActiveState,SubState,UnitFileState,MainPID,Result,ExecMainStatus";
                let output = self.run_checked(&["--user", "show", SYSTEMD_UNIT, asked]).await?;
                Ok(parse_systemctl_show(&lossy_text(&output.stdout)))
            }
        }
    }

    /// Starts the service, or restarts it if its file has changed.
    pub async fn load(&self, file: &Path, change: FileChange) -> Result<(), ManagerError> {
        let state = self.state().await?;
        match self.platform {
            Platform::MacOs => {
                if state.loaded && change == FileChange::Unchanged {
                    return self.run_checked(&["kickstart", &self.target()]).await.map(drop);
                }
                // launchd reads the file only when the agent is loaded.
                self.boot_out(&state).await?;
                self.run_checked(&["enable", &self.target()]).await?;
                self.run_checked(&["bootstrap", &self.domain(), &file.display().to_string()]).await.map(drop)
            }
            Platform::Xdg => {
                self.run_checked(&["--user", "daemon-reload"]).await?;
                self.run_checked(&["--user", "enable", SYSTEMD_UNIT]).await?;
                let verb = if change == FileChange::Unchanged { "start" } else { "restart" };
                self.run_checked(&["--user", verb, SYSTEMD_UNIT]).await.map(drop)
            }
        }
    }

    /// Stops the service and keeps it from starting again; its file still exists.
    pub async fn unload(&self) -> Result<(), ManagerError> {
        let state = self.state().await?;
        match self.platform {
            Platform::MacOs => self.boot_out(&state).await,
            Platform::Xdg if !state.loaded => Ok(()),
            Platform::Xdg => self.run_checked(&["--user", "disable", "--now", SYSTEMD_UNIT]).await.map(drop),
        }
    }

    /// Makes the manager notice that the file was removed.
    pub async fn reload(&self) -> Result<(), ManagerError> {
        match self.platform {
            Platform::MacOs => Ok(()),
            Platform::Xdg => self.run_checked(&["--user", "daemon-reload"]).await.map(drop),
        }
    }

    /// Unloads the agent and waits until launchd has removed it: before that it cannot be loaded again.
    async fn boot_out(&self, state: &ServiceState) -> Result<(), ManagerError> {
        if !state.loaded {
            return Ok(());
        }
        let target = self.target();
        // `bootout` fails while a stop takes a while, so only the result of `print` counts.
        let output = self.run(&["bootout", &target]).await?;
        let until = Instant::now() + COMMAND_TIMEOUT;
        while self.run(&["print", &target]).await?.status.success() {
            if Instant::now() >= until {
                return Err(self.failed(&["bootout", &target], &output));
            }
            tokio::time::sleep(UNLOAD_POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Checks that the manager answers at all.
    async fn check_available(&self) -> Result<(), ManagerError> {
        let domain = self.domain();
        let arguments: &[&str] = match self.platform {
            Platform::MacOs => &["print", &domain],
            Platform::Xdg => &["--user", "show", "--property=Version"],
        };
        let output = self.run(arguments).await?;
        match output.status.success() {
            true => Ok(()),
            false => Err(ManagerError::Absent(last_line(&output))),
        }
    }

    /// Runs the program; an exit status other than 0 is an error.
    async fn run_checked(&self, arguments: &[&str]) -> Result<Output, ManagerError> {
        let output = self.run(arguments).await?;
        if output.status.success() { Ok(output) } else { Err(self.failed(arguments, &output)) }
    }

    /// Runs the program and returns its output, whatever its exit status.
    async fn run(&self, arguments: &[&str]) -> Result<Output, ManagerError> {
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        let name = self.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match tokio::time::timeout(COMMAND_TIMEOUT, command.output()).await {
            Ok(Ok(output)) => Ok(output),
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                Err(ManagerError::Absent(format!("there is no {name} in PATH")))
            }
            Ok(Err(error)) => Err(ManagerError::Absent(format!("{name} could not be started: {error}"))),
            Err(_) => Err(ManagerError::Failed {
                command: format!("{name} {}", arguments.join(" ")),
                description: format!("did not end within {} s", COMMAND_TIMEOUT.as_secs()),
            }),
        }
    }

    fn failed(&self, arguments: &[&str], output: &Output) -> ManagerError {
        let name = self.program.file_name().unwrap_or_default().to_string_lossy();
        ManagerError::Failed {
            command: format!("{name} {}", arguments.join(" ")),
            description: last_line(output),
        }
    }

    /// The launchd domain of the user's agents while the user is logged in.
    fn domain(&self) -> String {
        format!("gui/{}", self.user)
    }

    fn target(&self) -> String {
        format!("gui/{}/{NAME}", self.user)
    }
}

/// Parses the output of `launchctl print`, which is meant for humans and may change.
fn parse_launchctl_print(text: &str) -> ServiceState {
    let value = |name: &str| {
        text.lines()
            .find_map(|line| line.trim().strip_prefix(name)?.trim_start().strip_prefix('=').map(str::trim))
    };
    let description = value("state").unwrap_or("unknown").to_owned();
    let last_exit = value("last exit code").filter(|code| !code.starts_with('('));
    let running = description == "running";
    ServiceState {
        loaded: true,
        enabled: None,
        running,
        failed: !running && last_exit.is_some_and(|code| !code.starts_with('0')),
        pid: value("pid").and_then(|pid| pid.parse().ok()),
        description,
        last_exit: last_exit.map(|code| format!("exit code {code}")),
    }
}

/// Parses the output of `systemctl show`, one `NAME=value` per line.
fn parse_systemctl_show(text: &str) -> ServiceState {
    let value = |name: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
    };
    let (active, sub) = (value("ActiveState"), value("SubState"));
    let pid = value("MainPID").parse().ok().filter(|pid| *pid != 0);
    let last_exit = match (value("Result"), value("ExecMainStatus")) {
        ("" | "success", _) => None,
        ("exit-code", code) => Some(format!("exit code {code}")),
        (result, _) => Some(result.to_owned()),
    };
    ServiceState {
        loaded: value("LoadState") == "loaded",
        enabled: Some(value("UnitFileState") == "enabled"),
        running: active == "active",
        failed: active == "failed",
        pid,
        description: format!("{active} ({sub})"),
        last_exit,
    }
}

/// The last line of stderr.
fn last_line(output: &Output) -> String {
    let stderr = lossy_text(&output.stderr);
    let line = stderr.lines().rev().map(str::trim).find(|line| !line.is_empty());
    line.map_or_else(|| format!("it ended with {}", output.status), str::to_owned)
}

fn lossy_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
