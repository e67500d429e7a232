//! The app-server as a process of ours: the only place that starts one.

use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::filter::INSTANCE;
use super::identity::Identity;
use super::info::pid_of;
use super::reaper::Wards;
use super::stop_pace::{StopPace, hurry};

/// How long each rung of the ladder waits before the next one, after the end of stdin and after SIGTERM, when the end
/// is wanted.
///
/// The real app-server is gone 8 to 31 ms after its stdin ended, in the middle of a turn too (measured on
/// 0.169.0), so this is patience with a sick one.
pub(crate) const PATIENCE: Duration = Duration::from_secs(4);
/// The same for one that is known to be sick, and in whose place another one shall work soon.
pub(crate) const LITTLE_PATIENCE: Duration = Duration::from_secs(1);

/// How long a process may take to end after SIGKILL.
const KILLED: Duration = Duration::from_secs(2);

/// Finds the program at each start, so that an upgrade is found too; the error is a sentence for a person.
pub type FindProgram = Arc<dyn Fn() -> Result<PathBuf, String> + Send + Sync>;

/// Brings to disk which app-server runs, before it is spoken to, and that none does (`None`), when it has ended; may
/// block.
pub type RecordChild = Arc<dyn Fn(Option<&ChildRecord>) + Send + Sync>;

/// Which app-server runs: what a later life of the daemon needs to end it, should this one be killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildRecord {
    /// The process.
    pub identity: Identity,
    /// Which connection it carries.
    pub generation: u64,
    /// The value of the variable [`INSTANCE`] that it and everything it starts carries.
    pub instance: String,
}

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
    /// What of the daemon's environment it does not get.
    pub withheld: Vec<String>,
    /// The name of the daemon's life, which marks everything that is started.
    pub instance: String,
    /// This very program, for the guard; none goes without one.
    pub guard: Option<PathBuf>,
    /// Keeps in mind which process runs.
    pub record: RecordChild,
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
    wards: Wards,
}

/// Why it is not known that a process has ended.
#[derive(Debug)]
pub(crate) enum EndFailure {
    /// A signal could not be sent to it.
    Signal(io::Error),
    /// Its end could not be waited for.
    Wait(io::Error),
}

/// Starts the program; the error is a sentence for a person.
pub(crate) async fn spawn(program: &Program, wards: &Wards) -> Result<(Process, Pipes), String> {
    let started = {
        let program = program.clone();
        wards.run(move |wards| start(&program, wards)).await
    };
    started.unwrap_or_else(|unanswered| {
        Err(format!(
            "The app-server could not be started: its program, or the directory {} that it starts in, {unanswered}.",
            program.folder.display()
        ))
    })
}

/// [`spawn`] on a thread that may hang.
fn start(program: &Program, wards: &Wards) -> Result<(Process, Pipes), String> {
    let path = (program.find)()?;
    let failed = |error: io::Error| format!("{} could not be started: {error}.", path.display());
    let mut command = Command::new(&path);
    for name in &program.withheld {
        command.env_remove(name);
    }
    command
        .args(&program.arguments)
        .envs(program.environment.iter().map(|(name, value)| (name, value)))
        .env(INSTANCE, &program.instance)
        .current_dir(&program.folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own: a signal to the daemon's group must not end the child before the daemon had a
        // chance to close its stdin, which is how it cleans up what it started itself.
        .process_group(0)
        .kill_on_drop(true);
    let mut child = wards.start(&mut command).map_err(failed)?;
    let (Some(stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(format!("{} was started without pipes.", path.display()));
    };
    let group = child.id().and_then(pid_of);
    Ok((Process { child, group, wards: wards.clone() }, Pipes { stdin, stdout, stderr }))
}

impl Process {
    /// Its process id, until it was waited for.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for its end; may be dropped and called again.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        if let Some(pid) = self.group.take() {
            self.wards.release(pid);
        }
        Ok(status)
    }

    /// Waits for its end, `patience` at most.
    pub(crate) async fn wait_at_most(&mut self, patience: Duration) -> Option<io::Result<ExitStatus>> {
        tokio::time::timeout(patience, self.wait()).await.ok()
    }

    /// Ends it: stdin first, then SIGTERM to its group, then SIGKILL.
    ///
    /// `stdin` is the switch that closes its stdin, `patience` what each rung waits; a pace of [`StopPace::Hurry`] goes
    /// straight to the next one.
    pub(crate) async fn end(
        &mut self,
        stdin: &CancellationToken,
        pace: &mut watch::Receiver<StopPace>,
        patience: Duration,
    ) -> Result<ExitStatus, EndFailure> {
        stdin.cancel();
        for signal in [Signal::TERM, Signal::KILL] {
            let rung = tokio::time::sleep(patience);
            tokio::select! {
                status = self.wait() => return status.map_err(EndFailure::Wait),
                () = rung => {}
                () = hurry(pace) => {}
            }
            tracing::warn!(pid = self.id(), ?signal, "the app-server does not end, sending a signal");
            self.signal_group(signal).map_err(EndFailure::Signal)?;
        }
        // A process that waits for a file system that does not answer does not even end by SIGKILL.
        match self.wait_at_most(KILLED).await {
            Some(status) => status.map_err(EndFailure::Wait),
            None => {
                let reason = format!("it did not end within {} s after SIGKILL", KILLED.as_secs());
                Err(EndFailure::Wait(io::Error::other(reason)))
            }
        }
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

impl Drop for Process {
    /// One that nobody waits for any more is ended by tokio, and its number is not ours to spare.
    fn drop(&mut self) {
        if let Some(pid) = self.group.take() {
            self.wards.release(pid);
        }
    }
}
