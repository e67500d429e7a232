//! Runs Chromium with a new profile; it resolves only the host names that the test gives it.

use std::env;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::scratch;
use crate::support::skip::skip;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};
use tempfile::TempDir;

/// The names of the program.
const PROGRAMS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];

/// The time between SIGTERM and SIGKILL.
const SIGTERM_GRACE: Duration = Duration::from_secs(5);

/// The flags of every start, so that the browser connects to the test only.
///
/// Chromium can block requests of pages to servers on the same machine.
/// This is off, because the daemon cannot rely on it: other browsers lack it, and a user can allow a page with a click.
const FLAGS: [&str; 18] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-background-timer-throttling",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-popup-blocking",
    "--disable-renderer-backgrounding",
    "--disable-sync",
    "--password-store=basic",
    "--disable-features=LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets,BlockInsecurePrivateNetworkRequests,\
     HttpsUpgrades,HttpsFirstBalancedModeAutoEnable,OptimizationHints,MediaRouter",
];

/// A running browser; dropping it ends all of its processes.
pub(super) struct Chromium {
    process: Child,
    home: TempDir,
}

/// The path of the browser, or `None` after printing what is skipped.
///
/// Panics instead where `CODEXD_TEST_BROWSER` is `required`.
pub(super) fn find_or_skip(what: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let programs = env::split_paths(&path).flat_map(|directory| PROGRAMS.map(|name| directory.join(name)));
    let found = programs.into_iter().find(|program| program.is_file());
    if found.is_none() {
        skip("CODEXD_TEST_BROWSER", what, &format!("none of {} is installed", PROGRAMS.join(", ")));
    }
    found
}

impl Chromium {
    /// Opens this URL; each name, with or without a port, resolves to an address with a port.
    pub(super) fn open(program: &Path, url: &str, names: &[(String, String)]) -> Self {
        let home = scratch::directory("browser");
        let names = names.iter().map(|(name, address)| format!("MAP {name} {address}"));
        let rules: Vec<_> =
            names.chain(["MAP * ~NOTFOUND".to_owned(), "EXCLUDE 127.0.0.1".to_owned()]).collect();
        let process = Command::new(program)
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .env("HOME", home.path())
            .env("TMPDIR", home.path())
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", home.path().join("profile").display()))
            .arg(format!("--host-resolver-rules={}", rules.join(", ")))
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(home.path().join("stderr.log")).unwrap())
            .process_group(0)
            .spawn()
            .unwrap();
        Self { process, home }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.process);
        let _ = kill_process(pid, Signal::TERM);
        let end = Instant::now() + SIGTERM_GRACE;
        // The process is not reaped yet, so that no other process or group can get its PID, which is also its group ID.
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        while Instant::now() < end && matches!(waitid(WaitId::Pid(pid), ended), Ok(None)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = kill_process_group(pid, Signal::KILL);
        let _ = self.process.wait();
        if std::thread::panicking() {
            self.print_stderr();
        }
        // A killed process may still write a file; what cannot be removed in time stays in the temporary directory.
        while Instant::now() < end && fs::remove_dir_all(self.home.path()).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Chromium {
    #[expect(clippy::print_stderr, reason = "the test runner shows this with the failure of the test")]
    fn print_stderr(&self) {
        let stderr = fs::read(self.home.path().join("stderr.log")).unwrap_or_default();
        eprintln!("--- stderr of the browser\n{}---", String::from_utf8_lossy(&stderr));
    }
}
