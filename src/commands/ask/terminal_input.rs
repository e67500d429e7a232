//! The terminal on which a person answers.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, stdin};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::termios::{LocalModes, OptionalActions, QueueSelector, Termios, tcflush, tcgetattr, tcsetattr};
use tokio::sync::mpsc;

/// The lines that a person types.
pub(super) struct TerminalInput {
    terminal: Arc<File>,
    lines: mpsc::UnboundedReceiver<Option<String>>,
}

impl TerminalInput {
    /// The terminal on stdin, or that of the process where stdin is something else; `None` where there is none.
    pub(super) fn open() -> Option<Self> {
        let terminal = match stdin().is_terminal() {
            true => File::from(stdin().as_fd().try_clone_to_owned().ok()?),
            false => File::open("/dev/tty").ok()?,
        };
        let terminal = Arc::new(terminal);
        let (typed, lines) = mpsc::unbounded_channel();
        let reader = Arc::clone(&terminal);
        // A thread, because a read from a terminal cannot be called off.
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

    /// Whether there is a terminal to type at, without opening it for reading lines.
    pub(super) fn is_available() -> bool {
        stdin().is_terminal() || File::open("/dev/tty").is_ok()
    }

    /// The next line, `None` at the end of the terminal.
    pub(super) async fn next_line(&mut self) -> Option<String> {
        self.lines.recv().await.flatten()
    }

    /// Drops what was typed so far.
    pub(super) fn discard_pending(&mut self) {
        // What cannot be dropped is at worst taken for a wrong answer.
        let _ = tcflush(&*self.terminal, QueueSelector::IFlush);
        while let Ok(Some(_)) = self.lines.try_recv() {}
    }

    /// Does not show what is typed from now on, until [`restore_echo`]; `false` when the terminal cannot.
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

/// A terminal that hides what is typed, and how it was before.
///
/// For the whole process, because it can end in the middle of a question, and the terminal stays.
static SAVED_ECHO: Mutex<Option<(Arc<File>, Termios)>> = Mutex::new(None);

fn saved_echo() -> MutexGuard<'static, Option<(Arc<File>, Termios)>> {
    SAVED_ECHO.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shows again what is typed, where it was hidden.
pub(super) fn restore_echo() {
    if let Some((terminal, before)) = saved_echo().take() {
        let _ = tcsetattr(&*terminal, OptionalActions::Now, &before);
    }
}
