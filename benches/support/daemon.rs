//! Starts the release binary as a child process and measures it; `CODEXD_BENCH_PROGRAM` names another one to compare with.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::fake_codex::fake_codex;

pub(crate) struct Daemon {
    process: Child,
    pub(crate) authority: String,
    pub(crate) directory: Option<tempfile::TempDir>,
}

impl Daemon {
    /// Starts the daemon on a free port. The port is chosen here, so that the start time can be measured from outside.
    pub(crate) fn start_in(directory: tempfile::TempDir) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let program = std::env::var_os("CODEXD_BENCH_PROGRAM");
        let process = Command::new(program.unwrap_or_else(|| env!("CARGO_BIN_EXE_codexd").into()))
            .args(["start", "--local-api-base", &format!("http://{free}")])
            .args(["--repo-root", directory.path().to_str().unwrap()])
            .args(["--server-command", fake_codex()])
            // At least the largest number of clients in the benchmarks.
            .args(["--websocket-limit", "128"])
            .args(["--server-arg", "app-server"])
            .env("BAA_CODEXD_LOG", "error")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, authority: free.to_string(), directory: Some(directory) }
    }

    pub(crate) fn wait_healthy(&self) {
        while !self.healthz().is_some_and(|response| response.starts_with("HTTP/1.1 200")) {
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    pub(crate) fn wait_ready(&self) {
        while !self.healthz().is_some_and(|response| response.contains("\"ready\": true")) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until the daemon uses almost no CPU time.
    pub(crate) fn wait_idle(&self) {
        loop {
            let before = self.cpu();
            std::thread::sleep(Duration::from_millis(200));
            if self.cpu().saturating_sub(before) < Duration::from_millis(20) {
                return;
            }
        }
    }

    /// Returns the CPU time of all present threads so far; that of a thread which ends is lost.
    pub(crate) fn cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        let nanos = tasks.filter_map(|task| {
            // A thread may have ended meanwhile.
            let text = std::fs::read_to_string(task.unwrap().path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }

    /// Returns a field of `/proc/PID/status`, such as `VmHWM`, in KiB.
    pub(crate) fn kib(&self, name: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    fn healthz(&self) -> Option<String> {
        let mut stream = TcpStream::connect(&self.authority).ok()?;
        write!(stream, "GET /healthz HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.authority)
            .ok()?;
        let mut response = String::new();
        stream.read_to_string(&mut response).ok()?;
        Some(response)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status();
        let _ = self.process.wait();
        drop(self.directory.take());
    }
}
