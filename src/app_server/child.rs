//! The app-server as a process of ours: the only place that starts one.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::listener::Exit;

/// How long each rung of the ladder waits before the next one: after the end of stdin, and after SIGTERM.
///
/// The real app-server is gone 8 to 31 ms after its stdin ended, in the middle of a turn too (measured on
/// 0.169.0), so this is patience with a sick one.
const PATIENCE: Duration = Duration::from_secs(4);

/// Finds the program at each start, so that an upgrade is found too; the error is a sentence for a person.
pub type FindProgram = Arc<dyn Fn() -> Result<PathBuf, String> + Send + Sync>;

/// What to start.
#[derive(Clone)]
pub struct Program {
    /// Finds it.
    pub find: FindProgram,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// The folder it starts in.
    pub folder: PathBuf,
    /// What it gets on top of the daemon's environment.
    pub environment: Vec<(String, String)>,
}

/// How fast an end is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StopPace {
    /// No end is wanted.
    Run,
    /// End in order.
    Stop,
    /// End without waiting for anything.
    Hurry,
}

/// The ends of the child's pipes.
#[derive(Debug)]
pub(crate) struct Pipes {
    pub(crate) stdin: ChildStdin,
    pub(crate) stdout: ChildStdout,
    pub(crate) stderr: ChildStderr,
}

/// A running child in a process group of its own.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    group: Option<Pid>,
}

/// Starts the program; the error is a sentence for a person.
pub(crate) fn spawn(program: &Program) -> Result<(Process, Pipes), String> {
    let path = (program.find)()?;
    let failed = |error: io::Error| format!("{} could not be started: {error}.", path.display());
    let mut child = Command::new(&path)
        .args(&program.arguments)
        .envs(program.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(&program.folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own: a signal to the daemon's group must not end the child before the daemon had a
        // chance to close its stdin, which is how it cleans up what it started itself.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let (Some(stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(format!("{} was started without pipes.", path.display()));
    };
    let group = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    Ok((Process { child, group }, Pipes { stdin, stdout, stderr }))
}

impl Process {
    /// Its process id, until it was waited for.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for its end; may be dropped and called again.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Waits for its end, `patience` at most.
    pub(crate) async fn wait_at_most(&mut self, patience: Duration) -> Option<io::Result<ExitStatus>> {
        tokio::time::timeout(patience, self.wait()).await.ok()
    }

    /// Ends it: stdin first, then SIGTERM to its group, then SIGKILL.
    ///
    /// `stdin` is the switch that closes its stdin; a pace of [`StopPace::Hurry`] goes straight to the next rung.
    pub(crate) async fn end(
        &mut self,
        stdin: &CancellationToken,
        pace: &mut watch::Receiver<StopPace>,
    ) -> io::Result<ExitStatus> {
        stdin.cancel();
        for signal in [Signal::TERM, Signal::KILL] {
            let rung = tokio::time::sleep(PATIENCE);
            tokio::select! {
                status = self.wait() => return status,
                () = rung => {}
                () = hurry(pace) => {}
            }
            tracing::warn!(pid = self.id(), ?signal, "the app-server does not end, sending a signal");
            self.signal_group(signal)?;
        }
        self.wait().await
    }

    /// Signals the whole group, as long as its leader was not waited for: until then its number is not reused.
    fn signal_group(&self, signal: Signal) -> io::Result<()> {
        let (Some(group), Some(_)) = (self.group, self.id()) else { return Ok(()) };
        match kill_process_group(group, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Waits until nobody wants to wait any more; for ever when nobody is left to say so.
pub(crate) async fn hurry(pace: &mut watch::Receiver<StopPace>) {
    if pace.wait_for(|&pace| pace == StopPace::Hurry).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Describes how a process ended.
pub(crate) fn exit_of(status: ExitStatus, expected: bool) -> Exit {
    Exit { code: status.code(), signal: status.signal().map(signal_name), expected }
}

fn signal_name(number: i32) -> String {
    let name = match Signal::from_named_raw(number) {
        Some(Signal::HUP) => "SIGHUP",
        Some(Signal::INT) => "SIGINT",
        Some(Signal::QUIT) => "SIGQUIT",
        Some(Signal::ILL) => "SIGILL",
        Some(Signal::TRAP) => "SIGTRAP",
        Some(Signal::ABORT) => "SIGABRT",
        Some(Signal::BUS) => "SIGBUS",
        Some(Signal::FPE) => "SIGFPE",
        Some(Signal::KILL) => "SIGKILL",
        Some(Signal::USR1) => "SIGUSR1",
        Some(Signal::SEGV) => "SIGSEGV",
        Some(Signal::USR2) => "SIGUSR2",
        Some(Signal::PIPE) => "SIGPIPE",
        Some(Signal::ALARM) => "SIGALRM",
        Some(Signal::TERM) => "SIGTERM",
        Some(Signal::XCPU) => "SIGXCPU",
        Some(Signal::XFSZ) => "SIGXFSZ",
        Some(Signal::SYS) => "SIGSYS",
        _ => return format!("signal {number}"),
    };
    name.to_owned()
}
