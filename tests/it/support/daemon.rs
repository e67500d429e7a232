//! The daemon under test: the real program with new directories and a clean environment.
//!
//! Each daemon and its processes carry a random mark in their environment. When a [`Daemon`] is dropped, it is stopped
//! and every process with its mark is killed.

mod builder;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) use self::builder::DaemonBuilder;
use super::http::Target;
use super::wait::wait_until;

/// The environment variable that marks a daemon and its processes.
const MARK: &str = "CODEXD_TEST_MARK";

/// How long a dropped daemon may take to stop after SIGTERM.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// The `codexd` program with a clean environment: `PATH`, this `HOME`, and a `TMPDIR` under the target directory.
pub(crate) fn codexd(home: &Path) -> Command {
    clean_command(Path::new(env!("CARGO_BIN_EXE_codexd")), home)
}

/// A running daemon; dropping it ends it and all processes that it started.
pub(crate) struct Daemon {
    process: Child,
    #[cfg(target_os = "linux")]
    mark: String,
    root: Arc<TempDir>,
    stdout: Arc<Mutex<Vec<u8>>>,
    stdout_reader: JoinHandle<()>,
    stderr_path: PathBuf,
    base_url: String,
    /// The name of its state directory and its logs directory in those of the repository.
    directory: &'static str,
}

/// The exit of a daemon after SIGTERM.
#[derive(Debug)]
pub(crate) struct Stopped {
    pub(crate) status: ExitStatus,
    /// From the signal to the exit.
    pub(crate) took: Duration,
}

/// The exit status and output of a daemon that did not start.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Daemon {
    /// A daemon with the fake app-server and fresh directories.
    pub(crate) fn builder() -> DaemonBuilder {
        DaemonBuilder::new()
    }

    /// The PID of the daemon.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The state directory.
    pub(crate) fn state_dir(&self) -> PathBuf {
        repo_root(self.root.path()).join("state").join(self.directory)
    }

    /// The logs directory.
    pub(crate) fn logs_dir(&self) -> PathBuf {
        repo_root(self.root.path()).join("logs").join(self.directory)
    }

    /// All JSON documents that the daemon has printed so far: one when it is ready, one when it has stopped.
    pub(crate) fn documents(&self) -> Vec<Value> {
        let stdout = self.stdout.lock().unwrap();
        serde_json::Deserializer::from_slice(&stdout).into_iter().map_while(Result::ok).collect()
    }

    /// The stdout of the daemon so far.
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout.lock().unwrap()).into_owned()
    }

    /// The stderr of the daemon so far.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr_path).unwrap_or_default()).into_owned()
    }

    /// Sends a signal to the daemon only.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Sends SIGTERM and waits for the exit of the daemon.
    pub(crate) async fn stop(&mut self) -> Stopped {
        let signaled = Instant::now();
        self.signal(Signal::TERM);
        let status = self.exited().await;
        Stopped { status, took: signaled.elapsed() }
    }

    /// Sends SIGKILL and waits for the exit of the daemon; processes that it started may still run.
    pub(crate) async fn kill(&mut self) -> ExitStatus {
        self.signal(Signal::KILL);
        self.exited().await
    }

    /// Waits until the daemon has exited and all its output has been read.
    pub(crate) async fn exited(&mut self) -> ExitStatus {
        let status = wait_until("the end of the daemon", || self.process.try_wait().unwrap()).await;
        wait_until("the end of its output", || self.stdout_reader.is_finished().then_some(())).await;
        status
    }

    /// Reads all events of the log, in order, from all its segments.
    ///
    /// A last line without a newline, which a kill may leave, is not an event.
    pub(crate) fn events_on_disk(&self) -> Vec<Value> {
        let files = fs::read_dir(self.logs_dir()).unwrap().map(|entry| entry.unwrap().path());
        let mut segments: Vec<Vec<Value>> =
            files.filter(|path| is_event_log(path)).map(|path| lines(&path)).collect();
        segments.retain(|segment| !segment.is_empty());
        segments.sort_by_key(|segment| segment.first().map(seq));
        let events = segments.concat();
        for pair in events.windows(2) {
            assert!(
                seq(&pair[0]) < seq(&pair[1]),
                "the sequence numbers do not increase: {} then {}",
                pair[0],
                pair[1]
            );
        }
        events
    }

    /// PID and command line of every process that carries the mark of this daemon, itself included.
    #[cfg(target_os = "linux")]
    pub(crate) fn survivors(&self) -> Vec<(u32, String)> {
        let mark = format!("{MARK}={}", self.mark);
        let marked = |pid: u32| {
            // A process may end meanwhile, and those of other users cannot be read; neither belongs to this daemon.
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        };
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| marked(*pid)).map(|pid| (pid, command_line(pid))).collect()
    }

    /// Waits for the first document that the daemon prints; the error is its exit status.
    async fn first_document(&mut self) -> Result<Value, ExitStatus> {
        let first = wait_until("the first document of the daemon", || {
            let ended = self.process.try_wait().unwrap();
            // In this order, because the daemon may print the document between the two checks.
            self.documents().into_iter().next().map(Ok).or(ended.map(Err))
        });
        match first.await {
            Ok(document) => Ok(document),
            Err(_) => {
                let status = self.exited().await;
                // The daemon may have printed the document after the check and before the end of the pipe.
                self.documents().into_iter().next().ok_or(status)
            }
        }
    }

    fn ended_within(&mut self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while Instant::now() < end {
            if matches!(self.process.try_wait(), Ok(Some(_)) | Err(_)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Target for Daemon {
    fn base_url(&self) -> &str {
        &self.base_url
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
            if !self.ended_within(STOP_GRACE) {
                let _ = self.process.kill();
                let _ = self.process.wait();
            }
        }
        // A killed daemon cannot end its own processes.
        #[cfg(target_os = "linux")]
        for (pid, _) in self.survivors() {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        if std::thread::panicking() {
            self.print_output();
        }
    }
}

impl Daemon {
    #[expect(clippy::print_stderr, reason = "the test runner shows this with the failure of the test")]
    fn print_output(&self) {
        eprintln!(
            "--- stdout of the daemon\n{}--- stderr of the daemon\n{}---",
            self.stdout(),
            self.stderr()
        );
    }
}

pub(crate) fn clean_command(program: &Path, home: &Path) -> Command {
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tmp");
    fs::create_dir_all(&temporary).unwrap();
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .env("TMPDIR", temporary);
    command
}

fn repo_root(root: &Path) -> PathBuf {
    root.join("repo")
}

fn is_event_log(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("events") && name.ends_with(".jsonl")
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole
        .map(|line| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{}: {error}: {line}", path.display()))
        })
        .collect()
}

fn seq(event: &Value) -> u64 {
    event["seq"].as_u64().unwrap_or_else(|| panic!("an event without a sequence number: {event}"))
}

#[cfg(target_os = "linux")]
fn command_line(pid: u32) -> String {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&arguments).trim_end_matches('\0').replace('\0', " ")
}
