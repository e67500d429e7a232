//! The app-server as a child process.
//!
//! Starts it in a process group, waits for it, and ends it in steps: close stdin, SIGTERM, SIGKILL. The supervisor's
//! generations own a [`Process`]. This is the only file that starts an app-server.

use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::filter::INSTANCE_VARIABLE;
use super::identity::Identity;
use super::info::{KnownProcess, PROGRAM_VARIABLE, pid_of};
use super::reaper::ChildRegistry;
use super::stop_pace::{StopPace, wait_for_hurry};

/// How long each step of a requested stop waits before the next: after stdin is closed, and after SIGTERM.
///
/// The real app-server exits 8 to 31 ms after its stdin ended, also in the middle of a turn (measured on 0.169.0), so only
/// an unresponsive one uses this time up.
pub(crate) const STOP_STEP_TIMEOUT: Duration = Duration::from_secs(4);
/// The same for an app-server that is known to be unresponsive and is about to be replaced.
pub(crate) const FAILED_STEP_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a process may take to exit after SIGKILL.
const SIGKILL_TIMEOUT: Duration = Duration::from_secs(2);

/// Finds the program at each start, so that an upgrade takes effect; the error is a sentence for the user.
pub type FindProgram = Arc<dyn Fn() -> Result<PathBuf, String> + Send + Sync>;

/// Writes the identity of the running app-server to disk before the first message to it, and removes it (`None`) after
/// the process has ended; may block.
pub type RecordChild = Arc<dyn Fn(Option<&ChildRecord>) + Send + Sync>;

/// The running app-server: what a later daemon needs to end it if this daemon is killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildRecord {
    /// The process.
    pub identity: Identity,
    /// The generation that it serves.
    pub generation: u64,
    /// The value of [`INSTANCE_VARIABLE`] in its environment and in those of its descendants.
    pub instance: String,
    /// Its descendants, on systems where they could not be found after its end.
    pub descendants: Vec<KnownProcess>,
}

/// What to start.
#[derive(Clone)]
pub struct Program {
    /// Finds the executable.
    pub find: FindProgram,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// The directory it starts in.
    pub directory: PathBuf,
    /// Environment variables on top of the daemon's.
    pub environment: Vec<(String, String)>,
    /// Environment variables of the daemon that it does not get.
    pub removed_environment: Vec<String>,
    /// The ID of this daemon instance, which marks every process that is started.
    pub instance: String,
    /// The executable of codexd, for the guard; without it there is no guard.
    pub guard: Option<PathBuf>,
    /// Records which process runs.
    pub record: RecordChild,
}

/// Our ends of the child's pipes.
#[derive(Debug)]
pub(crate) struct Pipes {
    pub(crate) stdin: ChildStdin,
    pub(crate) stdout: ChildStdout,
    pub(crate) stderr: ChildStderr,
}

/// A running child, which leads its own process group.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    group: Option<Pid>,
    children: ChildRegistry,
}

/// Why the end of a process could not be observed.
#[derive(Debug)]
pub(crate) enum EndFailure {
    /// A signal could not be sent.
    Signal(io::Error),
    /// Waiting failed.
    Wait(io::Error),
}

/// Starts the program; the error is a sentence for the user.
pub(crate) async fn spawn(program: &Program, children: &ChildRegistry) -> Result<(Process, Pipes), String> {
    let started = {
        let program = program.clone();
        children.run(move |children| start(&program, children)).await
    };
    started.unwrap_or_else(|unanswered| {
        Err(format!(
            "The app-server could not be started: its program, or the directory {} that it starts in, {unanswered}.",
            program.directory.display()
        ))
    })
}

/// [`spawn`] on a thread that may hang.
fn start(program: &Program, children: &ChildRegistry) -> Result<(Process, Pipes), String> {
    let path = (program.find)()?;
    let failed = |error: io::Error| format!("{} could not be started: {error}.", path.display());
    let mut command = Command::new(&path);
    for name in &program.removed_environment {
        command.env_remove(name);
    }
    command
        .args(&program.arguments)
        .envs(program.environment.iter().map(|(name, value)| (name, value)))
        .env(INSTANCE_VARIABLE, &program.instance)
        .env_remove(PROGRAM_VARIABLE)
        .current_dir(&program.directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A separate group: a signal to the daemon's group must not end the child before the daemon has closed the child's
        // stdin, which makes it clean up what it started.
        .process_group(0)
        .kill_on_drop(true);
    let mut child = children.start(&mut command).map_err(failed)?;
    let (Some(stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(format!("{} was started without pipes.", path.display()));
    };
    let group = child.id().and_then(pid_of);
    Ok((Process { child, group, children: children.clone() }, Pipes { stdin, stdout, stderr }))
}

impl Process {
    /// Its PID, until its exit status was collected.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for its exit; may be dropped and called again.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        if let Some(pid) = self.group.take() {
            self.children.release(pid);
        }
        Ok(status)
    }

    /// Waits for its exit for at most `timeout`.
    pub(crate) async fn wait_at_most(&mut self, timeout: Duration) -> Option<io::Result<ExitStatus>> {
        tokio::time::timeout(timeout, self.wait()).await.ok()
    }

    /// Ends it: closes stdin, then sends SIGTERM to its group, then SIGKILL.
    ///
    /// `stdin` is the token that closes its stdin, `step_timeout` the wait after each step. A pace of [`StopPace::Hurry`] skips
    /// the waits.
    pub(crate) async fn end(
        &mut self,
        stdin: &CancellationToken,
        pace: &mut watch::Receiver<StopPace>,
        step_timeout: Duration,
    ) -> Result<ExitStatus, EndFailure> {
        stdin.cancel();
        for signal in [Signal::TERM, Signal::KILL] {
            let step = tokio::time::sleep(step_timeout);
            tokio::select! {
                status = self.wait() => return status.map_err(EndFailure::Wait),
                () = step => {}
                () = wait_for_hurry(pace) => {}
            }
            tracing::warn!(
                pid = self.id(),
                ?signal,
                "the app-server has not exited; sending a signal to its group"
            );
            self.signal_group(signal).map_err(EndFailure::Signal)?;
        }
        // A process that waits for a file system that does not respond does not exit on SIGKILL.
        match self.wait_at_most(SIGKILL_TIMEOUT).await {
            Some(status) => status.map_err(EndFailure::Wait),
            None => {
                let reason = format!("it did not end within {} s after SIGKILL", SIGKILL_TIMEOUT.as_secs());
                Err(EndFailure::Wait(io::Error::other(reason)))
            }
        }
    }

    /// Signals the group while the leader's exit status is not collected: until then its PID is not reused.
    fn signal_group(&self, signal: Signal) -> io::Result<()> {
        let (Some(group), Some(_)) = (self.group, self.id()) else { return Ok(()) };
        match kill_process_group(group, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Process {
    /// tokio kills and reaps a dropped child, so its PID is no longer reserved here.
    fn drop(&mut self) {
        if let Some(pid) = self.group.take() {
            self.children.release(pid);
        }
    }
}
