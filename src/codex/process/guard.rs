//! The guard: a second, tiny process that ends what a daemon leaves behind when it is killed itself.
//!
//! The daemon holds the other end of its stdin. Whatever happens to the daemon, that pipe ends with it; when it ends
//! without a goodbye, the guard ends everything that carries the mark of that daemon's life.
//!
//! On Linux it also holds the stdin of the app-server open, until the daemon wants it to end. The app-server ends its
//! commands with SIGKILL as soon as its stdin ends, and with them the helper of a sandbox that has to remove what it made
//! in the user's directories; so when the daemon was killed, the guard ends the sandboxes first and lets go then.

use std::io::{self, BufRead};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use rustix::process::Pid;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;

use super::filter::{INSTANCE, Ours};
use super::info::pid_of;
use super::platform;
use super::reaper::Wards;
use super::sandbox::Sandboxes;
use super::sweep::sweep;

/// What the daemon says before it ends in order.
const GOODBYE: &str = "goodbye";
/// What it says, with a PID, when the stdin of this process shall stay open without the daemon.
const HOLD: &str = "hold ";
/// What it says before it closes that stdin itself.
const RELEASE: &str = "release";
/// How long the app-server may take to end by itself; the real one needs 8 to 31 ms (measured on 0.169.0).
const GRACE: Duration = Duration::from_secs(1);
/// How long the guard goes on when there is always something left.
const SWEEP: Duration = Duration::from_secs(5);
/// How long the daemon waits for the guard at the end.
const FAREWELL: Duration = Duration::from_secs(1);

/// Is the guard, on stdin, for the life of a daemon called `instance`; blocks.
#[expect(clippy::disallowed_methods, reason = "the guard is a process of its own")]
pub fn run(instance: &str) -> ExitCode {
    let mut held: Option<OwnedFd> = None;
    // A pipe that fails is one whose other end is gone.
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        if line == GOODBYE {
            return ExitCode::SUCCESS;
        } else if line == RELEASE {
            held = None;
        } else if let Some(pid) = line.strip_prefix(HOLD).and_then(|pid| pid.parse().ok()) {
            held = platform::hold_stdin(pid, &format!("{INSTANCE}={instance}"));
        }
    }
    let ours = Ours::marked(instance);
    // Seen now, because whose child has dropped the mark is known only as long as its parent lives.
    let seen = ours.running().unwrap_or_default();
    Sandboxes::all(ours.clone()).end_blocking();
    drop(held);
    std::thread::sleep(GRACE);
    match sweep(&ours, &seen, SWEEP, || false) {
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
    orders: Orders,
}

/// What the daemon has to say to its guard; cheap to clone, and silent where there is none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Orders(Option<mpsc::UnboundedSender<String>>);

impl Orders {
    /// The stdin of this process shall stay open when the daemon is gone.
    pub(crate) fn hold(&self, pid: u32) {
        self.say(format!("{HOLD}{pid}"));
    }

    /// It shall end with that of the daemon.
    pub(crate) fn release(&self) {
        self.say(RELEASE.to_owned());
    }

    fn say(&self, mut line: String) {
        line.push('\n');
        if let Some(lines) = &self.0 {
            // One that has ended hears nothing; the next generation starts another.
            let _ = lines.send(line);
        }
    }
}

/// Writes what is said to the guard until nobody says anything any more, then closes its stdin.
async fn write(mut stdin: ChildStdin, mut lines: mpsc::UnboundedReceiver<String>) {
    while let Some(line) = lines.recv().await {
        let _ = stdin.write_all(line.as_bytes()).await;
    }
}

impl Guard {
    /// One that is not started yet; `program` is this very program.
    pub(crate) fn new(program: PathBuf, instance: String, wards: Wards) -> Self {
        Self { program, instance, wards, running: None }
    }

    /// Starts it, or starts it again when it has ended; returns how to speak to it.
    pub(crate) async fn ensure(&mut self) -> Orders {
        if let Some(running) = &mut self.running {
            match running.child.try_wait() {
                Ok(None) => return running.orders.clone(),
                ended => tracing::warn!(?ended, "the guard is gone, starting another"),
            }
            self.release();
        }
        let (program, instance) = (self.program.clone(), self.instance.clone());
        match self.wards.run(move |wards| start(&program, &instance, wards)).await {
            Ok(Ok(running)) => return self.running.insert(running).orders.clone(),
            // It is a safety net: work goes on without it.
            Ok(Err(error)) => tracing::warn!(%error, "the guard cannot be started"),
            Err(unanswered) => {
                tracing::warn!(program = %self.program.display(), %unanswered, "no guard was started")
            }
        }
        Orders::default()
    }

    /// Says goodbye and waits for its end.
    pub(crate) async fn dismiss(&mut self) {
        let Some(Running { mut child, pid, orders }) = self.running.take() else { return };
        orders.say(GOODBYE.to_owned());
        drop(orders);
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
    let (orders, lines) = mpsc::unbounded_channel();
    tokio::spawn(write(stdin, lines));
    Ok(Running { child, pid, orders: Orders(Some(orders)) })
}
