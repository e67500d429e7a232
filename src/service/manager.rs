//! Calls `launchctl` or `systemctl` for the service of the user.
//!
//! Each call is one process with a timeout. The manager may be missing, such as in a container:
//! [`ManagerError::is_absent`].

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use tokio::process::Command;

use super::spec::{FileChange, NAME};
use super::state::{ServiceState, parse_launchctl_print, parse_systemctl_show};
use crate::config::Platform;

/// Timeout of one call: a stop may take 30 seconds, and a start comes after it.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// How often to check whether launchd has removed the agent.
const UNLOAD_POLL_INTERVAL: Duration = Duration::from_millis(200);
/// How long `bootstrap` is tried again: for some seconds after a stop it fails although `print` no longer shows the
/// agent.
const BOOTSTRAP_TIMEOUT: Duration = Duration::from_secs(15);
const BOOTSTRAP_RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// The exit statuses of such a `bootstrap`: "Input/output error" and "Operation already in progress".
const BOOTSTRAP_BUSY: [i32; 2] = [5, 37];
/// The exit status of `print` for an agent that is not loaded. Others, such as 112 and 125, mean that launchd was not
/// asked.
const NOT_FOUND: i32 = 113;
/// The name of the systemd unit.
pub const SYSTEMD_UNIT: &str = "codexd.service";

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManagerError {
    /// There is no service manager, such as in a container; with the reason.
    #[error("no service manager answers ({0})")]
    Absent(String),
    /// The program of the service manager, with this name, is not installed.
    #[error("no service manager answers (there is no {0} in PATH)")]
    NoProgram(String),
    /// The manager reported an error.
    #[error("`{command}` failed: {description}")]
    Failed {
        /// The command line.
        command: String,
        /// The last line of its stderr.
        description: String,
    },
}

impl ManagerError {
    /// Whether there is no service manager, for whatever reason.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent(_) | Self::NoProgram(_))
    }
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
                let report = self.launchctl_print().await?;
                Ok(report.map_or_else(ServiceState::default, |report| parse_launchctl_print(&report)))
            }
            Platform::Xdg => {
                let asked =
                    "--property=LoadState,ActiveState,SubState,UnitFileState,MainPID,Result,ExecMainStatus";
                let output = self.run_checked(&["--user", "show", SYSTEMD_UNIT, asked]).await?;
                Ok(parse_systemctl_show(&lossy_text(&output.stdout)))
            }
        }
    }

    /// Makes the service start at login, and starts it, or restarts it if its file has changed.
    pub async fn install(&self, file: &Path, change: FileChange) -> Result<(), ManagerError> {
        match (self.platform, change) {
            (Platform::MacOs, FileChange::Unchanged) => self.start(file).await,
            (Platform::MacOs, _) => self.restart(file).await,
            (Platform::Xdg, _) => {
                self.check_available().await?;
                self.run_checked(&["--user", "daemon-reload"]).await?;
                self.run_checked(&["--user", "enable", SYSTEMD_UNIT]).await?;
                let verb = if change == FileChange::Unchanged { "start" } else { "restart" };
                self.run_checked(&["--user", verb, SYSTEMD_UNIT]).await.map(drop)
            }
        }
    }

    /// Starts the installed service, unless it runs.
    pub async fn start(&self, file: &Path) -> Result<(), ManagerError> {
        let state = self.state().await?;
        match self.platform {
            Platform::MacOs if state.running && !state.needs_reload => Ok(()),
            Platform::MacOs => self.load_again(&state, file).await,
            Platform::Xdg => self.run_checked(&["--user", "start", SYSTEMD_UNIT]).await.map(drop),
        }
    }

    /// Restarts the installed service, with the program that is installed now.
    pub async fn restart(&self, file: &Path) -> Result<(), ManagerError> {
        let state = self.state().await?;
        match self.platform {
            Platform::MacOs => self.load_again(&state, file).await,
            Platform::Xdg => self.run_checked(&["--user", "restart", SYSTEMD_UNIT]).await.map(drop),
        }
    }

    /// Stops the service; it starts again at the next login, or by [`ServiceManager::start`].
    pub async fn stop(&self) -> Result<(), ManagerError> {
        let state = self.state().await?;
        match self.platform {
            Platform::MacOs => self.boot_out(&state).await,
            Platform::Xdg if !state.loaded => Ok(()),
            Platform::Xdg => self.run_checked(&["--user", "stop", SYSTEMD_UNIT]).await.map(drop),
        }
    }

    /// Stops the service and keeps it from starting again; its file still exists.
    pub async fn uninstall(&self) -> Result<(), ManagerError> {
        match self.platform {
            Platform::MacOs => self.stop().await,
            Platform::Xdg if !self.state().await?.loaded => Ok(()),
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

    /// Reloads the agent. launchd reads the file, and takes the signature of the program, only when an agent is
    /// loaded: a program that was replaced since then may be killed at each start.
    async fn load_again(&self, state: &ServiceState, file: &Path) -> Result<(), ManagerError> {
        self.boot_out(state).await?;
        let target = self.target();
        self.run_checked(&["enable", &target]).await?;
        let (domain, file) = (self.domain(), file.display().to_string());
        let arguments = ["bootstrap", &domain, &file];
        let until = Instant::now() + BOOTSTRAP_TIMEOUT;
        loop {
            let output = self.run(&arguments).await?;
            if output.status.success() {
                break;
            }
            let is_busy = output.status.code().is_some_and(|code| BOOTSTRAP_BUSY.contains(&code));
            if is_busy && self.launchctl_print().await?.is_some() {
                break;
            }
            if !is_busy || Instant::now() >= until {
                return Err(self.failed(&arguments, &output));
            }
            tokio::time::sleep(BOOTSTRAP_RETRY_INTERVAL).await;
        }
        // launchd may load an agent without starting it. One that runs is not affected.
        self.run(&["kickstart", &target]).await.map(drop)
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
        while self.launchctl_print().await?.is_some() {
            if Instant::now() >= until {
                return Err(self.failed(&["bootout", &target], &output));
            }
            tokio::time::sleep(UNLOAD_POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// What launchd reports about the agent; `None` if it is not loaded.
    async fn launchctl_print(&self) -> Result<Option<String>, ManagerError> {
        let arguments = ["print", &self.target()];
        let output = self.run(&arguments).await?;
        match output.status.code() {
            Some(0) => Ok(Some(lossy_text(&output.stdout))),
            Some(NOT_FOUND) => Ok(None),
            _ => Err(self.failed(&arguments, &output)),
        }
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
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Err(ManagerError::NoProgram(name)),
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

/// The last line of stderr.
fn last_line(output: &Output) -> String {
    let stderr = lossy_text(&output.stderr);
    let line = stderr.lines().rev().map(str::trim).find(|line| !line.is_empty());
    line.map_or_else(|| format!("it ended with {}", output.status), str::to_owned)
}

fn lossy_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
