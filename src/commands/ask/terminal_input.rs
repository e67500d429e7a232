//! Reads lines from the terminal at which the user answers questions.
//!
//! A thread does the reading; it ends with the terminal. Echo can be turned off for secret answers and is restored when
//! the input is dropped, when the question ends, or when the process exits at Ctrl-C.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, stdin};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::termios::{LocalModes, OptionalActions, QueueSelector, Termios, tcflush, tcgetattr, tcsetattr};
use tokio::sync::mpsc;

/// The lines typed at the terminal.
pub(super) struct TerminalInput {
    terminal: Arc<File>,
    lines: mpsc::UnboundedReceiver<Option<String>>,
}

impl TerminalInput {
    /// Opens the terminal on stdin, or the controlling terminal if stdin is something else; `None` if there is none.
    pub(super) fn open() -> Option<Self> {
        let terminal = match stdin().is_terminal() {
            true => File::from(stdin().as_fd().try_clone_to_owned().ok()?),
            false => File::open("/dev/tty").ok()?,
        };
        let terminal = Arc::new(terminal);
        let (typed, lines) = mpsc::unbounded_channel();
        let reader = Arc::clone(&terminal);
        // A thread, because a read from a terminal cannot be cancelled.
        let read = move || {
            let mut reader = BufReader::new(&*reader);
            loop {
                let mut line = String::new();
                let count = reader.read_line(&mut line).unwrap_or(0);
                let is_over = count == 0;
                if typed.send((!is_over).then_some(line)).is_err() || is_over {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("keyboard".to_owned()).spawn(read).ok()?;
        Some(Self { terminal, lines })
    }

    /// Whether there is a terminal, without opening it for reading lines.
    pub(super) fn is_available() -> bool {
        stdin().is_terminal() || File::open("/dev/tty").is_ok()
    }

    /// The next line, `None` at end of file.
    pub(super) async fn next_line(&mut self) -> Option<String> {
        self.lines.recv().await.flatten()
    }

    /// Discards everything typed so far.
    pub(super) fn discard_pending(&mut self) {
        // Input that cannot be discarded is at worst taken for an invalid answer.
        let _ = tcflush(&*self.terminal, QueueSelector::IFlush);
        while let Ok(Some(_)) = self.lines.try_recv() {}
    }

    /// Turns echo off until [`restore_echo`]; returns `false` if the terminal cannot.
    pub(super) fn disable_echo(&self) -> bool {
        if saved_echo().is_some() {
            return true;
        }
        let Ok(before) = tcgetattr(&*self.terminal) else { return false };
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        hidden.local_modes.insert(LocalModes::ECHONL);
        *saved_echo() = Some((Arc::clone(&self.terminal), before));
        tcsetattr(&*self.terminal, OptionalActions::Now, &hidden).is_ok()
    }
}

impl Drop for TerminalInput {
    fn drop(&mut self) {
        restore_echo();
    }
}

/// The terminal whose echo is off, and its previous settings.
///
/// Process-wide, because the process may exit during a question, and the terminal outlives it.
static SAVED_ECHO: Mutex<Option<(Arc<File>, Termios)>> = Mutex::new(None);

fn saved_echo() -> MutexGuard<'static, Option<(Arc<File>, Termios)>> {
    SAVED_ECHO.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Turns echo on again if it was turned off.
pub(super) fn restore_echo() {
    if let Some((terminal, before)) = saved_echo().take() {
        let _ = tcsetattr(&*terminal, OptionalActions::Now, &before);
    }
}
