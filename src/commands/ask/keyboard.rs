//! The terminal on which a person answers.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, stdin};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::termios::{LocalModes, OptionalActions, QueueSelector, Termios, tcflush, tcgetattr, tcsetattr};
use tokio::sync::mpsc;

/// The lines that a person types.
pub(super) struct Keyboard {
    terminal: Arc<File>,
    lines: mpsc::UnboundedReceiver<Option<String>>,
}

impl Keyboard {
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
    pub(super) fn is_there() -> bool {
        stdin().is_terminal() || File::open("/dev/tty").is_ok()
    }

    /// The next line, `None` at the end of the terminal.
    pub(super) async fn line(&mut self) -> Option<String> {
        self.lines.recv().await.flatten()
    }

    /// Drops what was typed so far.
    pub(super) fn forget(&mut self) {
        // What cannot be dropped is at worst taken for a wrong answer.
        let _ = tcflush(&*self.terminal, QueueSelector::IFlush);
        while let Ok(Some(_)) = self.lines.try_recv() {}
    }

    /// Does not show what is typed from now on, until [`show_typing`]; `false` when the terminal cannot.
    pub(super) fn hide_typing(&self) -> bool {
        if seen().is_some() {
            return true;
        }
        let Ok(before) = tcgetattr(&*self.terminal) else { return false };
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        hidden.local_modes.insert(LocalModes::ECHONL);
        *seen() = Some((Arc::clone(&self.terminal), before));
        tcsetattr(&*self.terminal, OptionalActions::Now, &hidden).is_ok()
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        show_typing();
    }
}

/// A terminal that hides what is typed, and how it was before.
///
/// For the whole process, because it can end in the middle of a question, and the terminal stays.
static SEEN: Mutex<Option<(Arc<File>, Termios)>> = Mutex::new(None);

fn seen() -> MutexGuard<'static, Option<(Arc<File>, Termios)>> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shows again what is typed, where it was hidden.
pub(super) fn show_typing() {
    if let Some((terminal, before)) = seen().take() {
        let _ = tcsetattr(&*terminal, OptionalActions::Now, &before);
    }
}
