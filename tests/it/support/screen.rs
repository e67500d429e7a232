//! A terminal with a screen, for programs that draw on all of it: it emulates a terminal and answers its queries.

use std::num::NonZeroU16;
use std::process::Command;
use std::sync::{Arc, Mutex};

use vt100::Parser;

use super::terminal::Terminal;
use super::wait::wait_until;

const ROWS: NonZeroU16 = NonZeroU16::new(50).unwrap();
const COLUMNS: NonZeroU16 = NonZeroU16::new(140).unwrap();

/// What a program asks its terminal, and what the terminal answers: its type, its keyboard protocol and its colours.
const QUERIES: [(&[u8], &[u8]); 4] = [
    (b"\x1b[c", b"\x1b[?1;2c"),
    (b"\x1b[?u", b"\x1b[?0u"),
    (b"\x1b]10;?", b"\x1b]10;rgb:ffff/ffff/ffff\x1b\\"),
    (b"\x1b]11;?", b"\x1b]11;rgb:0000/0000/0000\x1b\\"),
];
/// The query for the position of the cursor.
const POSITION: &[u8] = b"\x1b[6n";
/// The length of the longest query.
const LONGEST_QUERY: usize = 6;

/// A program on a new screen; dropping it ends the program.
pub(crate) struct Screen {
    terminal: Terminal,
    parser: Arc<Mutex<Parser>>,
}

impl Screen {
    /// Starts a program on a screen.
    pub(crate) fn start(mut command: Command) -> Self {
        command.env("TERM", "xterm-256color");
        let parser = Arc::new(Mutex::new(Parser::new(ROWS, COLUMNS, 0)));
        let emulator = Arc::clone(&parser);
        let mut newest = Vec::new();
        let respond = move |output: &[u8]| {
            let mut answers = Vec::new();
            let mut parser = emulator.lock().unwrap();
            for byte in output {
                parser.process(&[*byte]);
                newest.push(*byte);
                if newest.ends_with(POSITION) {
                    let (row, column) = parser.screen().cursor_position();
                    answers.extend(format!("\x1b[{};{}R", row + 1, column + 1).bytes());
                }
                let asked = QUERIES.iter().find(|(query, _)| newest.ends_with(query));
                answers.extend(asked.into_iter().flat_map(|(_, answer)| *answer));
                if newest.len() > LONGEST_QUERY {
                    newest.remove(0);
                }
            }
            answers
        };
        Self { terminal: Terminal::start_with(command, (ROWS.get(), COLUMNS.get()), respond), parser }
    }

    /// What is on the screen.
    pub(crate) fn text(&self) -> String {
        self.parser.lock().unwrap().screen().contents()
    }

    /// Waits until the screen shows this text.
    pub(crate) async fn shows(&self, text: &str) {
        self.wait_for(&format!("{text:?} on the screen"), |shown| shown.contains(text)).await;
    }

    /// Waits until the screen no longer shows this text.
    pub(crate) async fn shows_no_more(&self, text: &str) {
        self.wait_for(&format!("the end of {text:?} on the screen"), |shown| !shown.contains(text)).await;
    }

    async fn wait_for(&self, what: &str, is_shown: impl Fn(&str) -> bool) {
        let _shown = PrintOnPanic(self);
        wait_until(what, || is_shown(&self.text()).then_some(())).await;
    }

    /// Presses keys.
    pub(crate) fn press(&mut self, keys: &str) {
        self.terminal.type_in(keys);
    }

    /// Pastes a text, as a terminal that supports it marks it, so that it is never taken for keys.
    pub(crate) fn paste(&mut self, text: &str) {
        self.terminal.type_in(&format!("\x1b[200~{text}\x1b[201~"));
    }
}

/// Prints the screen when a wait fails.
struct PrintOnPanic<'a>(&'a Screen);

impl Drop for PrintOnPanic<'_> {
    #[expect(clippy::print_stderr, reason = "the test runner shows this with the failure of the test")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the screen\n{}\n---", self.0.text());
        }
    }
}
