//! A real app-server that codexd did not start, which listens on a TCP port or a Unix socket.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::codex::{CodexHome, codex};
use crate::support::wait::wait_until;

/// A running app-server; it is ended when dropped.
pub(super) struct AppServer {
    pub(super) process: Child,
    /// The URL on which it listens.
    pub(super) endpoint: String,
    /// The directory of the socket if the path in the home would be too long; held for its `Drop`.
    _short: Option<TempDir>,
}

/// How long an app-server may take to end its turns when a test is over.
const DRAIN: Duration = Duration::from_secs(2);

/// The longest path of a Unix socket, in bytes: macOS has 104 with the final zero, Linux 108.
const LONGEST_SOCKET_PATH: usize = 103;

/// Returns a path for a socket: in the home, or in a new directory in `/tmp` if the path of the home is too long.
fn socket_path(home: &CodexHome) -> (PathBuf, Option<TempDir>) {
    let path = home.path().join("app-server.sock");
    if path.as_os_str().len() <= LONGEST_SOCKET_PATH {
        return (path, None);
    }
    let short = tempfile::Builder::new().prefix("codexd-").tempdir_in("/tmp").unwrap();
    (short.path().join("s"), Some(short))
}

impl AppServer {
    /// Starts an app-server on a free TCP port.
    pub(super) async fn on_tcp(home: &CodexHome) -> Self {
        let (process, output) = start(home, "ws://127.0.0.1:0");
        let mut server = Self { process, endpoint: String::new(), _short: None };
        server.endpoint = wait_until("the address of the app-server", || {
            server.assert_alive();
            let printed = fs::read_to_string(&output).unwrap();
            // An incomplete line may contain a part of the port.
            let line =
                printed.split_inclusive('\n').find(|line| line.contains("ws://") && line.ends_with('\n'))?;
            line.split_whitespace().find(|word| word.starts_with("ws://")).map(ToOwned::to_owned)
        })
        .await;
        server
    }

    /// Starts an app-server on a Unix socket.
    pub(super) async fn on_socket(home: &CodexHome) -> Self {
        let (path, _short) = socket_path(home);
        let endpoint = format!("unix://{}", path.display());
        let (process, _) = start(home, &endpoint);
        let mut server = Self { process, endpoint, _short };
        wait_until("the socket of the app-server", || {
            server.assert_alive();
            UnixStream::connect(&path).ok()
        })
        .await;
        server
    }

    /// Starts an app-server on the control socket of its home.
    #[cfg(target_os = "linux")]
    pub(super) async fn on_control_socket(home: &CodexHome) -> Self {
        let endpoint = "unix://".to_owned();
        let (process, _) = start(home, &endpoint);
        let mut server = Self { process, endpoint, _short: None };
        let link = home.path().join("app-server-control/app-server-control.sock");
        wait_until("the control socket", || {
            server.assert_alive();
            UnixStream::connect(fs::read_link(&link).ok()?).ok()
        })
        .await;
        server
    }

    /// Asserts that its process still runs.
    pub(super) fn assert_alive(&mut self) {
        assert_eq!(self.process.try_wait().unwrap(), None, "the app-server has ended");
    }

    /// Sends it a signal.
    pub(super) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Waits until it has ended.
    #[cfg(target_os = "linux")]
    pub(super) async fn wait_for_end(&mut self) {
        wait_until("the end of the app-server", || self.process.try_wait().unwrap()).await;
    }

    /// Kills it and waits for its end.
    pub(super) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for AppServer {
    fn drop(&mut self) {
        // SIGTERM instead of SIGKILL, so that it ends its own children; at the second it does not wait for its turns.
        for _ in 0..2 {
            if let Ok(None) = self.process.try_wait() {
                let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
            }
            let end = Instant::now() + DRAIN;
            while let (Ok(None), true) = (self.process.try_wait(), Instant::now() < end) {
                std::thread::sleep(DRAIN / 200);
            }
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn start(home: &CodexHome, listen: &str) -> (Child, PathBuf) {
    let output = home.user_home().join("app-server.output");
    let file = File::create(&output).unwrap();
    let process = Command::new(&codex().native)
        .args(["app-server", "--listen", listen])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home.user_home())
        .env("CODEX_HOME", home.path())
        .env("TMPDIR", home.temporary())
        .current_dir(home.workspace())
        .stdin(Stdio::null())
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .spawn()
        .unwrap();
    (process, output)
}
