//! Processes that scripts start, so that codexd has something to find and end.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

use super::control::Turn;
use super::script::SpawnKind;
use super::wire::locked;

/// The processes that this app-server has started and is the parent of.
#[derive(Default)]
pub(super) struct Processes {
    running: Mutex<Vec<Arc<Running>>>,
}

/// A process that was started; after a double fork only its PID is known.
pub(super) struct Running {
    pub(super) pid: u32,
    thread_id: String,
    exit_code: Mutex<Option<i32>>,
}

impl Running {
    /// The exit code after the process has ended; −1 when a signal ended it.
    pub(super) fn exit_code(&self) -> Option<i32> {
        *locked(&self.exit_code)
    }

    fn kill(&self) {
        // The lock also guards the exit code, so the PID cannot be reused between the check and the signal.
        let exit_code = locked(&self.exit_code);
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let (None, Some(pid)) = (*exit_code, pid) {
            // The process may have ended just now.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

impl Processes {
    /// Starts `sleep SECONDS` in a new process session; wakes `turn` when it ends.
    ///
    /// # Errors
    ///
    /// The process cannot be started.
    pub(super) fn start(
        &self,
        seconds: &str,
        how: SpawnKind,
        thread_id: &str,
        turn: &Arc<Turn>,
    ) -> io::Result<Arc<Running>> {
        let running =
            |pid| Arc::new(Running { pid, thread_id: thread_id.to_owned(), exit_code: Mutex::default() });
        if how == SpawnKind::Double {
            return Ok(running(start_double(seconds)?));
        }
        let mut child = start_detached(seconds)?;
        let process = running(child.id());
        locked(&self.running).push(Arc::clone(&process));
        let (reaped, turn) = (Arc::clone(&process), Arc::clone(turn));
        std::thread::spawn(move || {
            let code = child.wait().ok().and_then(|status| status.code()).unwrap_or(-1);
            *reaped.exit_code.lock().unwrap_or_else(PoisonError::into_inner) = Some(code);
            turn.wake();
        });
        Ok(process)
    }

    /// Ends the processes of a thread, or of all threads.
    pub(super) fn kill(&self, thread_id: Option<&str>) {
        locked(&self.running).retain(|process| {
            let matches = thread_id.is_none_or(|id| id == process.thread_id);
            if matches {
                process.kill();
            }
            !matches
        });
    }
}

/// Codex runs every command in a new process session. Without a `setsid` program a new process group is the closest.
fn start_detached(seconds: &str) -> io::Result<Child> {
    let spawn = |command: &mut Command| {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    };
    match spawn(Command::new("setsid").args(["sleep", seconds])) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            spawn(Command::new("sleep").arg(seconds).process_group(0))
        }
        other => other,
    }
}

/// The shell exits after it has started the process and printed its PID, so the process loses its parent.
fn start_double(seconds: &str) -> io::Result<u32> {
    let script = format!(
        "if command -v setsid >/dev/null; then setsid sleep {seconds} >/dev/null 2>&1 & \
         else set -m; sleep {seconds} >/dev/null 2>&1 & fi; echo $!"
    );
    let output = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|_| io::Error::other(format!("the shell printed no PID: {text:?}")))
}
