//! A pseudo-terminal for a program: its output, and input as a user types it.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::wait::wait_until;

/// A program on a new terminal; dropping it ends the program.
pub(crate) struct Terminal {
    process: Child,
    master: File,
    shown: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Terminal {
    /// Starts a program whose three standard streams are a terminal with this number of columns.
    pub(crate) fn start(command: Command, columns: u16) -> Self {
        Self::start_with(command, (24, columns), |_| Vec::new())
    }

    /// Starts a program on a terminal with these rows and columns. `respond` gets all its output and returns what the
    /// terminal answers.
    pub(crate) fn start_with(
        mut command: Command,
        (rows, columns): (u16, u16),
        mut respond: impl FnMut(&[u8]) -> Vec<u8> + Send + 'static,
    ) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = File::options().read(true).write(true).open(path).unwrap();
        tcsetwinsize(&slave, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let stream = || Stdio::from(slave.try_clone().unwrap());
        command.stdin(stream()).stdout(stream()).stderr(stream());
        let process = command.spawn().unwrap();
        // Close these file descriptors, so that the terminal ends with the program.
        drop((command, slave));
        let master = File::from(master);
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (sink, mut source, mut answers) =
            (Arc::clone(&shown), master.try_clone().unwrap(), master.try_clone().unwrap());
        let reader = std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = source.read(&mut chunk) {
                sink.lock().unwrap().extend_from_slice(&chunk[..count]);
                // The program may have ended.
                let _ = answers.write_all(&respond(&chunk[..count]));
            }
        });
        Self { process, master, shown, reader }
    }

    /// The output so far.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    /// Waits until the output contains this text.
    pub(crate) async fn shows(&self, text: &str) {
        wait_until(&format!("{text:?} on the terminal"), || self.text().contains(text).then_some(())).await;
    }

    /// Waits until the output contains `text` after `behind`.
    pub(crate) async fn shows_again(&self, text: &str, behind: &str) {
        let shown = || self.text().split_once(behind)?.1.contains(text).then_some(());
        wait_until(&format!("{text:?} behind {behind:?} on the terminal"), shown).await;
    }

    /// Writes this text as input.
    pub(crate) fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Whether the terminal echoes its input.
    pub(crate) fn echoes(&self) -> bool {
        tcgetattr(&self.master).unwrap().local_modes.contains(LocalModes::ECHO)
    }

    /// Sends SIGINT, as Ctrl-C does.
    pub(crate) fn interrupt(&self) {
        kill_process(Pid::from_child(&self.process), Signal::INT).unwrap();
    }

    /// Waits for the end of the program; returns its exit code and its output.
    pub(crate) async fn ended(mut self) -> (Option<i32>, String) {
        let status = wait_until("the end of the program", || self.process.try_wait().unwrap()).await;
        wait_until("the end of the terminal", || self.reader.is_finished().then_some(())).await;
        (status.code(), self.text())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
