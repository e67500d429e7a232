//! The daemon's log on stderr.
//!
//! A separate thread writes the lines, because a full pipe must not block the daemon. Lines that do not fit into the
//! queue are dropped and counted, and the count is logged once the reader continues. Every field is sanitized for
//! terminals.

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::time::{Duration, Instant};

use tracing::Level;
use tracing::field::Field;
use tracing_subscriber::Layer;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::{LevelFilter, Targets, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::failure::Failure;
use super::terminal::sanitize_for_terminal;
use crate::config::no_color;
use crate::daemon;

/// The prefix of the targets of codexd's own log lines.
const CODEXD_TARGET: &str = "codexd";
/// How many lines may wait to be written.
const MAX_QUEUED_LINES: usize = 1024;
/// How long to wait for queued lines at the end of the process.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// Starts logging with a filter such as `info` or `codexd=debug,hyper=warn`, to stderr. With a `file`, the log is there, and
/// stderr gets warnings in short. Queued lines are written when the result is dropped.
///
/// A panic is logged too, and ends the process unless `daemon` catches it.
pub(crate) fn start(filter: &str, file: Option<File>) -> Result<FlushedLog, Failure> {
    let filter: Targets = filter.parse().map_err(|error| {
        Failure::usage(format!("BAA_CODEXD_LOG: {error}; write it like info or codexd=debug."))
    })?;
    let failed = |error| Failure::new(format!("Failed to start the log thread: {error}."));
    let is_terminal = io::stderr().is_terminal();
    let stderr = Log::start(io::stderr()).map_err(failed)?;
    let (log, warnings, has_colors) = match file {
        Some(file) => (Log::start(file).map_err(failed)?, Some(stderr), false),
        None => (stderr, None, is_terminal),
    };
    let logs = [Some(log.clone()), warnings.clone()].into_iter().flatten().collect();
    let warnings = warnings.map(|log| {
        let lines = tracing_subscriber::fmt::layer()
            .fmt_fields(debug_fn(write_field).delimited(" "))
            .without_time()
            .with_target(false)
            .with_writer(log)
            .with_ansi(is_terminal && !no_color());
        lines.with_filter(LevelFilter::WARN)
    });
    let lines = tracing_subscriber::fmt::layer()
        .fmt_fields(debug_fn(write_field).delimited(" "))
        .with_writer(log.clone())
        .with_ansi(has_colors);
    // At these levels the libraries log headers, frames and texts, and that of MCP every session.
    let is_allowed = filter_fn(|metadata| {
        let least = if metadata.target().starts_with("rmcp") { Level::WARN } else { Level::INFO };
        *metadata.level() <= least || metadata.target().starts_with(CODEXD_TARGET)
    });
    tracing_subscriber::registry()
        .with(filter)
        .with(is_allowed)
        .with(lines)
        .with(warnings)
        .try_init()
        .map_err(|error| Failure::new(format!("Failed to start the log: {error}.")))?;
    let last = log.clone();
    std::panic::set_hook(Box::new(move |panic| {
        // A message that was formatted at run time may quote the text of a turn.
        let message = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(message omitted)");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let is_panic_caught = daemon::is_panic_caught();
        tracing::error!(place, words = message, is_panic_caught, "internal error (panic)");
        if !is_panic_caught {
            last.flush();
            // A task that everything depends on has ended; the daemon cannot continue without it.
            std::process::abort();
        }
    }));
    Ok(FlushedLog(logs))
}

/// The log, and stderr where the log is a file; dropping it writes the queued lines.
#[derive(Debug)]
pub(crate) struct FlushedLog(Vec<Log>);

impl FlushedLog {
    /// The log itself.
    pub(crate) fn log(&self) -> Option<Log> {
        self.0.first().cloned()
    }
}

impl Drop for FlushedLog {
    fn drop(&mut self) {
        self.0.iter().for_each(Log::flush);
    }
}

/// A handle of the writer thread; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    lines: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Entry {
    Line(Vec<u8>),
    /// Reports on this channel once everything before it is written.
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

    /// Waits until everything queued is written, [`FLUSH_TIMEOUT`] at most.
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
        // A failed write to stderr is no reason to stop, and there is no place to report it.
        match entry {
            Entry::Line(line) => {
                let _ = output.write_all(&line);
            }
            Entry::Flush(done) => drop(done.try_send(())),
        }
        let lost = dropped.swap(0, Ordering::AcqRel);
        if lost > 0 {
            let _ = writeln!(output, "{lost} log lines were dropped because stderr was not read.");
        }
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        LineWriter { log: self, line: Vec::new() }
    }
}

/// Collects one line and queues it when dropped.
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

/// Formats one field of a log line. Every logged value passes through here, so nothing in a log line controls a
/// terminal or pager, or starts a new line.
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

    /// An output that blocks while the lock is held.
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
    fn log_drops_and_counts_lines_when_output_blocks() {
        let output = Output::default();
        let log = Log::start(output.clone()).unwrap();
        let write = |text: &str| log.make_writer().write_all(text.as_bytes()).unwrap();
        let stuck = output.0.lock().unwrap();
        (0..2 * MAX_QUEUED_LINES).for_each(|number| write(&format!("line {number}\n")));
        drop(stuck);
        log.flush();
        let written = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = written.lines().collect();
        assert_eq!(lines.first(), Some(&"line 0"));
        let lost = 2 * MAX_QUEUED_LINES - (lines.len() - 1);
        assert!((MAX_QUEUED_LINES - 1..=MAX_QUEUED_LINES).contains(&lost), "{lost}");
        assert!(written.contains(&format!("{lost} log lines were dropped")), "{lost}");
        write("and on\n");
        log.flush();
        assert!(output.0.lock().unwrap().ends_with(b"and on\n"));
    }

    #[test]
    fn log_sanitizes_fields() {
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
