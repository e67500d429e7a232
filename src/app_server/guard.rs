//! The guard: a second, tiny process that ends what a daemon leaves behind when it is killed itself.
//!
//! The daemon holds the other end of its stdin. Whatever happens to the daemon, that pipe ends with it; when it ends
//! without a goodbye, the guard ends everything that carries the mark of that daemon's life.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use rustix::process::Pid;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};

use super::processes::{self, Ours, pid_of};
use super::wards::Wards;

/// What the daemon says before it ends in order.
const GOODBYE: &[u8] = b"goodbye\n";
/// How long the app-server may take to end by itself; the real one needs 8 to 31 ms (measured on 0.169.0).
const GRACE: Duration = Duration::from_secs(1);
/// How long the guard goes on when there is always something left.
const SWEEP: Duration = Duration::from_secs(5);
/// How long the daemon waits for the guard at the end.
const FAREWELL: Duration = Duration::from_secs(1);

/// Is the guard, on stdin, for the life of a daemon called `instance`; blocks.
#[expect(clippy::disallowed_methods, reason = "the guard is a process of its own")]
pub fn run(instance: &str) -> ExitCode {
    let mut said = Vec::new();
    // A pipe that fails is one whose other end is gone.
    let _ = io::stdin().read_to_end(&mut said);
    if said.ends_with(GOODBYE) {
        return ExitCode::SUCCESS;
    }
    let ours = Ours::marked(instance);
    // Seen now, because whose child has dropped the mark is known only as long as its parent lives.
    let seen = ours.running().unwrap_or_default();
    std::thread::sleep(GRACE);
    processes::end_all(&seen);
    match processes::sweep(&ours, SWEEP) {
        Ok((_, 0)) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// The daemon's end of it.
#[derive(Debug)]
pub(crate) struct Guard {
    program: PathBuf,
    instance: String,
    wards: Wards,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    pid: Option<Pid>,
    stdin: ChildStdin,
}

impl Guard {
    /// One that is not started yet; `program` is this very program.
    pub(crate) fn new(program: PathBuf, instance: String, wards: Wards) -> Self {
        Self { program, instance, wards, running: None }
    }

    /// Starts it, or starts it again when it has ended.
    pub(crate) async fn ensure(&mut self) {
        if let Some(running) = &mut self.running {
            match running.child.try_wait() {
                Ok(None) => return,
                ended => tracing::warn!(?ended, "the guard is gone, starting another"),
            }
            self.release();
        }
        let (program, instance) = (self.program.clone(), self.instance.clone());
        match self.wards.run(move |wards| start(&program, &instance, wards)).await {
            Ok(Ok(running)) => self.running = Some(running),
            // It is a safety net: work goes on without it.
            Ok(Err(error)) => tracing::warn!(%error, "the guard cannot be started"),
            Err(unanswered) => {
                tracing::warn!(program = %self.program.display(), %unanswered, "no guard was started")
            }
        }
    }

    /// Says goodbye and waits for its end.
    pub(crate) async fn dismiss(&mut self) {
        let Some(Running { mut child, pid, mut stdin }) = self.running.take() else { return };
        let _ = stdin.write_all(GOODBYE).await;
        drop(stdin);
        if tokio::time::timeout(FAREWELL, child.wait()).await.is_err() {
            tracing::warn!("the guard does not go");
            let _ = child.start_kill();
        }
        if let Some(pid) = pid {
            self.wards.release(pid);
        }
    }

    fn release(&mut self) {
        if let Some(pid) = self.running.take().and_then(|running| running.pid) {
            self.wards.release(pid);
        }
    }
}

/// Starts the guard; blocks.
fn start(program: &Path, instance: &str, wards: &Wards) -> io::Result<Running> {
    let mut command = Command::new(program);
    command
        .args(["guard", "--instance", instance])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        // What is sent to the daemon's group, such as by Ctrl-C, must not reach it.
        .process_group(0);
    let mut child = wards.start(&mut command)?;
    let pid = child.id().and_then(pid_of);
    let stdin = child.stdin.take().ok_or_else(|| io::Error::other("it has no stdin"))?;
    Ok(Running { child, pid, stdin })
}
