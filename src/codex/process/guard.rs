//! The guard: a second, small process that cleans up when the daemon is killed.
//!
//! The daemon holds the write end of the guard's stdin and sends commands on it. When that pipe ends without
//! [`EXIT_COMMAND`], the daemon was killed, and the guard ends every process with the mark of that daemon instance.
//!
//! On Linux the guard also holds the app-server's stdin open until the daemon releases it. The app-server sends SIGKILL to
//! its commands as soon as its stdin ends, including the sandbox helpers that have to remove what they made in the user's
//! directories. So after the daemon was killed, the guard ends the sandboxes first and then closes that stdin.

use std::io::{self, BufRead};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use rustix::process::Pid;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;

use super::filter::{INSTANCE_VARIABLE, ProcessFilter};
use super::info::{KnownProcess, pid_of};
use super::platform;
use super::reaper::ChildRegistry;
use super::sandbox::Sandboxes;
use super::sweep::sweep;

// A daemon may start the guard from a newer executable, so the text of these commands must not change.
/// Sent by the daemon before it exits in order.
const EXIT_COMMAND: &str = "goodbye";
/// Sent with a PID: keep the stdin of this process open when the daemon is gone.
const HOLD_COMMAND: &str = "hold ";
/// Sent before the daemon closes that stdin itself.
const RELEASE_COMMAND: &str = "release";
/// How often the guard tries to hold the stdin of an app-server, and the pause between two attempts.
const HOLD_ATTEMPTS: u32 = 10;
const HOLD_INTERVAL: Duration = Duration::from_millis(10);
/// How long the app-server may take to exit by itself; the real one needs 8 to 31 ms (measured on 0.169.0).
const APP_SERVER_EXIT_GRACE: Duration = Duration::from_secs(1);
/// How long the guard's sweep runs when processes remain.
const GUARD_SWEEP_LIMIT: Duration = Duration::from_secs(5);
/// How long the daemon waits for the guard to exit.
const GUARD_EXIT_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs the guard of the daemon instance `instance`, with commands from stdin; blocks.
#[expect(clippy::disallowed_methods, reason = "the guard is a separate process")]
pub fn run(instance: &str) -> ExitCode {
    let mut held: Option<OwnedFd> = None;
    // A read error also means that the other end is gone.
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        if line == EXIT_COMMAND {
            return ExitCode::SUCCESS;
        } else if line == RELEASE_COMMAND {
            held = None;
        } else if let Some(pid) = line.strip_prefix(HOLD_COMMAND).and_then(|pid| pid.parse().ok()) {
            held = hold_stdin(pid, &format!("{INSTANCE_VARIABLE}={instance}"));
        }
    }
    let filter = ProcessFilter::marked(instance);
    // Listed now: the parent of a process without the mark is known only while that parent runs.
    let known: Vec<_> = filter.running().unwrap_or_default().iter().map(KnownProcess::of).collect();
    Sandboxes::all(filter.clone()).end_blocking();
    drop(held);
    std::thread::sleep(APP_SERVER_EXIT_GRACE);
    match sweep(&filter, &known, GUARD_SWEEP_LIMIT, || false) {
        Ok((_, 0)) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Holds the stdin of a process that was just started and carries `mark`.
///
/// exec lets the parent continue before the new environment can be read, so the first attempt may not find the mark.
#[expect(clippy::disallowed_methods, reason = "the guard is a separate process")]
fn hold_stdin(pid: u32, mark: &str) -> Option<OwnedFd> {
    (0..HOLD_ATTEMPTS).find_map(|attempt| {
        std::thread::sleep(HOLD_INTERVAL * attempt.min(1));
        platform::hold_stdin(pid, mark)
    })
}

/// The daemon's side of the guard.
#[derive(Debug)]
pub(crate) struct Guard {
    program: PathBuf,
    instance: String,
    children: ChildRegistry,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    pid: Option<Pid>,
    handle: GuardHandle,
}

/// Sends commands to the guard; cheap to clone. Does nothing when there is no guard.
#[derive(Debug, Clone, Default)]
pub(crate) struct GuardHandle(Option<mpsc::UnboundedSender<String>>);

impl GuardHandle {
    /// Keeps the stdin of this process open when the daemon is gone.
    pub(crate) fn hold(&self, pid: u32) {
        self.send(format!("{HOLD_COMMAND}{pid}"));
    }

    /// Lets that stdin end with the daemon's end of it.
    pub(crate) fn release(&self) {
        self.send(RELEASE_COMMAND.to_owned());
    }

    fn send(&self, mut line: String) {
        line.push('\n');
        if let Some(lines) = &self.0 {
            // A guard that has exited receives nothing; the next generation starts another one.
            let _ = lines.send(line);
        }
    }
}

/// Writes commands to the guard until all senders are dropped, then closes its stdin.
async fn write(mut stdin: ChildStdin, mut lines: mpsc::UnboundedReceiver<String>) {
    while let Some(line) = lines.recv().await {
        let _ = stdin.write_all(line.as_bytes()).await;
    }
}

impl Guard {
    /// A guard that is not started yet; `program` is the executable of codexd.
    pub(crate) fn new(program: PathBuf, instance: String, children: ChildRegistry) -> Self {
        Self { program, instance, children, running: None }
    }

    /// Starts the guard if it does not run; returns a handle to it.
    pub(crate) async fn ensure_running(&mut self) -> GuardHandle {
        if let Some(running) = &mut self.running {
            match running.child.try_wait() {
                Ok(None) => return running.handle.clone(),
                ended => tracing::warn!(?ended, "the guard is gone, starting another"),
            }
            self.release();
        }
        let (program, instance) = (self.program.clone(), self.instance.clone());
        match self.children.run(move |children| start(&program, &instance, children)).await {
            Ok(Ok(running)) => return self.running.insert(running).handle.clone(),
            // The daemon continues without the guard, which is only a safety net.
            Ok(Err(error)) => tracing::warn!(%error, "the guard cannot be started"),
            Err(unanswered) => {
                tracing::warn!(program = %self.program.display(), %unanswered, "no guard was started")
            }
        }
        GuardHandle::default()
    }

    /// Sends the guard the exit command and waits for it.
    pub(crate) async fn stop(&mut self) {
        let Some(Running { mut child, pid, handle }) = self.running.take() else { return };
        handle.send(EXIT_COMMAND.to_owned());
        drop(handle);
        if tokio::time::timeout(GUARD_EXIT_TIMEOUT, child.wait()).await.is_err() {
            tracing::warn!("the guard does not go");
            let _ = child.start_kill();
        }
        if let Some(pid) = pid {
            self.children.release(pid);
        }
    }

    fn release(&mut self) {
        if let Some(pid) = self.running.take().and_then(|running| running.pid) {
            self.children.release(pid);
        }
    }
}

/// Starts the guard; blocks.
fn start(program: &Path, instance: &str, children: &ChildRegistry) -> io::Result<Running> {
    let mut command = Command::new(program);
    command
        .args(["guard", "--instance", instance])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        // A signal to the daemon's group, such as by Ctrl-C, must not reach it.
        .process_group(0);
    let mut child = children.start(&mut command)?;
    let pid = child.id().and_then(pid_of);
    let stdin = child.stdin.take().ok_or_else(|| io::Error::other("it has no stdin"))?;
    let (handle, lines) = mpsc::unbounded_channel();
    tokio::spawn(write(stdin, lines));
    Ok(Running { child, pid, handle: GuardHandle(Some(handle)) })
}
