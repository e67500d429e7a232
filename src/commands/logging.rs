//! What the daemon says about itself, on stderr.
//!
//! A thread of its own writes: whoever reads stderr may stop reading, and a full pipe must not stop the daemon.
//! Lines that it cannot take any more are dropped, counted, and the count is written when it goes on.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::time::{Duration, Instant};

use tracing::Level;
use tracing::field::Field;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::{Targets, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::failure::Failure;
use super::terminal::sanitize_for_terminal;
use crate::daemon;

/// What the targets of codexd's own words begin with.
const CODEXD_TARGET: &str = "codexd";
/// How many lines may wait to be written.
const MAX_QUEUED_LINES: usize = 1024;
/// How long what still waits may take to be written at the end of the process.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// Begins to log what `filter` lets through, such as `info` or `codexd=debug,hyper=warn`; what waits at the end is
/// written when the result is dropped.
///
/// A panic is logged too, and ends the process unless it is that of a single request.
pub(crate) fn start(filter: &str) -> Result<FlushedLog, Failure> {
    let filter: Targets = filter.parse().map_err(|error| {
        Failure::usage(format!("BAA_CODEXD_LOG: {error}; write it like info or codexd=debug."))
    })?;
    let log = Log::start(io::stderr())
        .map_err(|error| Failure::new(format!("The thread of the log could not be started: {error}.")))?;
    let lines = tracing_subscriber::fmt::layer()
        .fmt_fields(debug_fn(write_field).delimited(" "))
        .with_writer(log.clone())
        .with_ansi(io::stderr().is_terminal());
    // What the libraries below would say of themselves at these levels are headers, frames and texts.
    let is_allowed = filter_fn(|metadata| {
        *metadata.level() <= Level::INFO || metadata.target().starts_with(CODEXD_TARGET)
    });
    tracing_subscriber::registry()
        .with(filter)
        .with(is_allowed)
        .with(lines)
        .try_init()
        .map_err(|error| Failure::new(format!("The log could not be started: {error}.")))?;
    let last = log.clone();
    std::panic::set_hook(Box::new(move |panic| {
        // Words that were put together at the time may quote what was said in a turn.
        let words = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(words left out)");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let is_panic_caught = daemon::is_panic_caught();
        tracing::error!(place, words, is_panic_caught, "codexd met a fault of its own");
        if !is_panic_caught {
            last.flush();
            // Something that everything else needs has ended; to go on without it would be to be half dead.
            std::process::abort();
        }
    }));
    Ok(FlushedLog(log))
}

/// A log whose last lines are written when this is dropped.
#[derive(Debug)]
pub(crate) struct FlushedLog(Log);

impl FlushedLog {
    /// The log itself.
    pub(crate) fn log(&self) -> Log {
        self.0.clone()
    }
}

impl Drop for FlushedLog {
    fn drop(&mut self) {
        self.0.flush();
    }
}

/// The way to the thread that writes; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    lines: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Entry {
    Line(Vec<u8>),
    /// The sender is told when everything before was written.
    Flush(SyncSender<()>),
}

impl Log {
    fn start(output: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, entries) = mpsc::sync_channel(MAX_QUEUED_LINES);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&dropped);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write(output, &entries, &counted))?;
        Ok(Self { lines, dropped })
    }

    /// Waits until everything that was said is written, [`FLUSH_TIMEOUT`] at most.
    #[expect(
        clippy::disallowed_methods,
        reason = "the process ends, and nothing else runs that could be kept"
    )]
    pub(crate) fn flush(&self) {
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        let (written, done) = mpsc::sync_channel(1);
        let mut entry = Entry::Flush(written);
        loop {
            match self.lines.try_send(entry) {
                Ok(()) => break,
                Err(TrySendError::Full(back)) if Instant::now() < deadline => entry = back,
                Err(_) => return,
            }
            std::thread::sleep(FLUSH_TIMEOUT / 50);
        }
        let _ = done.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

#[expect(clippy::disallowed_methods, reason = "the thread of the log does nothing else")]
fn write(mut output: impl Write, entries: &Receiver<Entry>, dropped: &AtomicU64) {
    while let Ok(entry) = entries.recv() {
        // A stderr that is gone is no reason to end: there is nobody left to tell.
        match entry {
            Entry::Line(line) => {
                let _ = output.write_all(&line);
            }
            Entry::Flush(done) => drop(done.try_send(())),
        }
        let lost = dropped.swap(0, Ordering::AcqRel);
        if lost > 0 {
            let _ = writeln!(output, "{lost} lines of this log were dropped, because nothing read it.");
        }
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        LineWriter { log: self, line: Vec::new() }
    }
}

/// Collects one line and hands it over when it is dropped.
#[derive(Debug)]
pub(crate) struct LineWriter<'a> {
    log: &'a Log,
    line: Vec<u8>,
}

impl Write for LineWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LineWriter<'_> {
    fn drop(&mut self) {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() && self.log.lines.try_send(Entry::Line(line)).is_err() {
            self.log.dropped.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// Writes one field of a line: whatever is logged, by whomever, passes here, and nothing of it reaches a terminal or a
/// pager that such a program would obey, or that begins a line of its own.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let text = format!("{value:?}");
    match field.name() {
        "message" => writer.write_str(&sanitize_for_terminal(&text)),
        name => write!(writer, "{name}={}", sanitize_for_terminal(&text)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// An output that takes nothing until the lock is free.
    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_output_that_takes_nothing_keeps_nobody_and_is_told_how_much_it_missed() {
        let output = Output::default();
        let log = Log::start(output.clone()).unwrap();
        let say = |text: &str| log.make_writer().write_all(text.as_bytes()).unwrap();
        let stuck = output.0.lock().unwrap();
        (0..2 * MAX_QUEUED_LINES).for_each(|number| say(&format!("line {number}\n")));
        drop(stuck);
        log.flush();
        let written = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = written.lines().collect();
        assert_eq!(lines.first(), Some(&"line 0"));
        let lost = 2 * MAX_QUEUED_LINES - (lines.len() - 1);
        assert!((MAX_QUEUED_LINES - 1..=MAX_QUEUED_LINES).contains(&lost), "{lost}");
        assert!(written.contains(&format!("{lost} lines of this log were dropped")), "{lost}");
        say("and on\n");
        log.flush();
        assert!(output.0.lock().unwrap().ends_with(b"and on\n"));
    }

    #[test]
    fn nothing_that_is_logged_controls_a_terminal_or_begins_a_line() {
        let output = Output::default();
        let log = Log::start(output.clone()).unwrap();
        let lines = tracing_subscriber::fmt::layer()
            .fmt_fields(debug_fn(write_field).delimited(" "))
            .with_ansi(false)
            .with_writer(log.clone());
        let error = "\u{1b}]52;c;cm0gLXJm\u{7}\r\nERROR all is well \u{202e}\u{9b}31m\u{2028}";
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            tracing::warn!(error = %error, quoted = error, debug = ?error, number = 7, "a turn failed: {error}");
        });
        log.flush();
        let text = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        let line = text.strip_suffix('\n').unwrap();
        let obeyed = |c: &char| c.is_control() || ['\u{202e}', '\u{2028}'].contains(c);
        assert_eq!(line.chars().find(obeyed), None, "{line:?}");
        assert!(line.contains("ERROR all is well") && line.ends_with("number=7"), "{line}");
        assert!(line.contains("a turn failed: ␛]52;c;cm0gLXJm␇"), "{line}");
    }
}
