//! A program beside the app-server that runs once: it gets an input, has a time limit, and ends with everything that it
//! started.
//!
//! The hooks run one for each event, and one keeps the machine awake while turns run. Nothing of a program outlives its run: its processes carry a mark of the run, by which
//! they are found and ended, and a mark of the daemon's state directory, by which the next daemon finds them if this one is
//! killed.

use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rustix::process::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::exit::exit_of;
use super::filter::{INSTANCE_VARIABLE, ProcessFilter};
use super::info::{PROGRAM_VARIABLE, pid_of};
use super::reaper::ChildRegistry;
use super::stderr_tail::StderrTail;
use super::sweep::{SWEEP_LIMIT, sweep};
use crate::blocking::Pool;

/// Threads for starting and ending programs; separate from those of the app-server, so that no program delays it.
static POOL: Pool = Pool::new("programs", 4, 12);
/// How long ending the processes of a program may take, and the listing of processes before it.
const END_TIMEOUT: Duration = Duration::from_secs(4);
/// How long the exit status may take once the processes have ended.
const EXIT_STATUS_TIMEOUT: Duration = Duration::from_secs(1);
/// How long output may be read after the processes have ended.
const OUTPUT_TIMEOUT: Duration = Duration::from_millis(200);

/// Finds the executable, or says in a clause why it cannot be run; may block.
pub(crate) type FindExecutable = Box<dyn FnOnce() -> Result<PathBuf, String> + Send>;

/// A program to run.
pub struct OneProgram {
    /// Finds the executable.
    pub find: FindExecutable,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// The directory it starts in.
    pub directory: PathBuf,
    /// Environment variables of the daemon that it does not get.
    pub removed_environment: Vec<String>,
    /// The value of [`PROGRAM_VARIABLE`].
    pub owner: String,
    /// How long it may run.
    pub limit: Duration,
}

/// Runs programs; cheap to clone.
#[derive(Debug, Clone)]
pub struct ProgramRunner(pub(crate) ChildRegistry);

/// A child that is started; dropping it kills it.
struct Started {
    child: Child,
    pid: Option<Pid>,
    children: ChildRegistry,
}

impl ProgramRunner {
    /// Runs a program with this input on stdin, until it exits, its time is over, or `cancelled`; then ends what it started.
    ///
    /// The error is a clause that says why it did not exit with 0, with the end of its output.
    pub async fn run(
        &self,
        program: OneProgram,
        input: Bytes,
        cancelled: &CancellationToken,
    ) -> Result<(), String> {
        self.run_with(program, Some(input), cancelled).await
    }

    /// [`ProgramRunner::run`] without an input: stdin ends when the program is ended, or with this process.
    pub async fn hold(&self, program: OneProgram, cancelled: &CancellationToken) -> Result<(), String> {
        self.run_with(program, None, cancelled).await
    }

    async fn run_with(
        &self,
        program: OneProgram,
        input: Option<Bytes>,
        cancelled: &CancellationToken,
    ) -> Result<(), String> {
        let (limit, run) = (program.limit, uuid::Uuid::new_v4().to_string());
        let mark = run.clone();
        let start = move |children: &ChildRegistry| start(program, &mark, children);
        let mut started = match self.0.run_on(&POOL, start).await {
            Ok(started) => started?,
            Err(unanswered) => {
                // It may be a process that hangs.
                end(run).await;
                return Err(format!("it could not be started: its file {unanswered}"));
            }
        };
        // The child would close it when it is waited for.
        let mut stdin = started.child.stdin.take();
        let input = input.and_then(|input| {
            let mut stdin = stdin.take()?;
            // A program may exit without reading its input.
            Some(spawn(async move { drop(stdin.write_all(&input).await) }))
        });
        let mut outputs = [None, None];
        let (stderr, stdout) = (started.child.stderr.take(), started.child.stdout.take());
        let mut readers =
            [stderr.map(|pipe| read(pipe, &mut outputs[0])), stdout.map(|pipe| read(pipe, &mut outputs[1]))];
        let status = tokio::select! {
            status = started.child.wait() => Some(status),
            () = tokio::time::sleep(limit) => None,
            () = cancelled.cancelled() => None,
        };
        drop((input, stdin));
        end(run).await;
        if status.is_none() {
            let _ = tokio::time::timeout(EXIT_STATUS_TIMEOUT, started.child.wait()).await;
        }
        for reader in readers.iter_mut().flatten() {
            // A process that cannot be ended may keep the pipe open.
            let _ = tokio::time::timeout(OUTPUT_TIMEOUT, reader).await;
        }
        let failure = match status {
            Some(Ok(status)) if status.success() => return Ok(()),
            Some(Ok(status)) => describe(status),
            Some(Err(error)) => format!("its exit status could not be read: {error}"),
            None => format!("it did not exit within {} s", limit.as_secs_f32()),
        };
        let lines = outputs.iter().flatten().map(|tail| lock(tail).lines()).find(|lines| !lines.is_empty());
        Err(match lines.and_then(|mut lines| lines.pop()) {
            Some(line) => format!("{failure}: {line}"),
            None => failure,
        })
    }
}

/// Starts a program; blocks.
fn start(program: OneProgram, run: &str, children: &ChildRegistry) -> Result<Started, String> {
    let path = (program.find)()?;
    let failed = |error: io::Error| format!("{} could not be started: {error}", path.display());
    check_answers(&path).map_err(failed)?;
    let mut command = Command::new(&path);
    for name in &program.removed_environment {
        command.env_remove(name);
    }
    command
        .args(&program.arguments)
        .env(INSTANCE_VARIABLE, run)
        .env(PROGRAM_VARIABLE, &program.owner)
        .current_dir(&program.directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A signal to the daemon's group, such as by Ctrl-C, must not reach it.
        .process_group(0)
        .kill_on_drop(true);
    let child = children.start(&mut command).map_err(failed)?;
    let pid = child.id().and_then(pid_of);
    Ok(Started { child, pid, children: children.clone() })
}

/// Reads the beginning of the file: one on a file system that does not respond must hang here, and not while the registry
/// of children is locked.
#[expect(clippy::disallowed_methods, reason = "it runs on a thread of the pool")]
fn check_answers(path: &std::path::Path) -> io::Result<()> {
    match std::fs::File::open(path) {
        // A program need not be readable.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(error),
        Ok(mut file) => file.read(&mut [0; 4]).map(drop),
    }
}

/// Ends the processes of a run.
async fn end(run: String) {
    let swept = move || sweep(&ProcessFilter::marked(&run), &[], SWEEP_LIMIT, || false);
    match POOL.run(END_TIMEOUT, swept).await {
        Ok(Ok((_, 0))) => {}
        Ok(Ok((_, left))) => tracing::error!(left, "failed to end all processes of a program"),
        Ok(Err(error)) => tracing::error!(%error, "failed to list the processes of a program"),
        Err(unanswered) => {
            tracing::error!("failed to end the processes of a program: the system {unanswered}")
        }
    }
}

/// Reads an output to its end and keeps its last lines in `tail`.
fn read(
    mut pipe: impl AsyncRead + Unpin + Send + 'static,
    tail: &mut Option<Arc<Mutex<StderrTail>>>,
) -> AbortOnDropHandle<()> {
    let shared = Arc::clone(tail.insert(Arc::default()));
    spawn(async move {
        let mut bytes = vec![0; 8 * 1024];
        while let Ok(count @ 1..) = pipe.read(&mut bytes).await {
            lock(&shared).take(&bytes[..count]);
        }
    })
}

fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(task))
}

fn lock(tail: &Mutex<StderrTail>) -> std::sync::MutexGuard<'_, StderrTail> {
    tail.lock().unwrap_or_else(PoisonError::into_inner)
}

fn describe(status: ExitStatus) -> String {
    let exit = exit_of(status, false);
    match (exit.code, exit.signal) {
        (Some(code), _) => format!("it exited with code {code}"),
        (None, Some(signal)) => format!("{signal} ended it"),
        (None, None) => "it ended without an exit status".to_owned(),
    }
}

impl Drop for Started {
    /// tokio kills and reaps a dropped child that still runs.
    fn drop(&mut self) {
        if let Some(pid) = self.pid.take() {
            self.children.release(pid);
        }
    }
}
