//! An offline implementation of `codex app-server` over stdin and stdout, for tests.
//!
//! Its messages have the fields, the order and the error texts of Codex. The prompt contains the script of its turn:
//! directives separated by white space. Everything else in a prompt is ordinary text; a prompt without directives is a
//! turn of three deltas.
//!
//! | directives of a prompt | effect |
//! | --- | --- |
//! | `deltas=N` `chars=N` | number of deltas (3) and characters of each (12); the item keeps the first MiB of their text |
//! | `delay=MS` | a pause after each delta |
//! | `text=TEXT` | one delta, exactly `TEXT` |
//! | `retry` | an `error` with `willRetry: true` before anything else |
//! | `reasoning` `plan` `diff` | a reasoning item, `turn/plan/updated`, `turn/diff/updated` |
//! | `command[=TEXT]` | a command item; no command is run |
//! | `spawn=SECONDS` | a command item that runs `sleep` in a process session; the turn waits for it; `processId` is its PID |
//! | `spawn-background=SECONDS` | the same, but the turn does not wait |
//! | `spawn-double=SECONDS` | the same, but the parent of the process has exited; the process outlives the app-server |
//! | `ask=command\|file\|permissions\|input\|questions\|leave\|form\|unknown` | a request to the client; several are sent one after the other |
//! | `garbage` | after half of the deltas: five lines that are not messages |
//! | `long-line=BYTES` | after half of the deltas: a `warning` of this size |
//! | `fail` | status `systemError`, `error` with `willRetry: false`, `turn/completed` as `failed`; deltas only if `deltas=` is given |
//! | `crash[=CODE]` `abort` `kill` | after half of the deltas the process exits (101), aborts, or sends itself SIGKILL |
//! | `half-line` | half a message is written before that end (`crash` if no other is given) |
//! | `hang` | sends nothing after the user's item, until an interrupt or a steer |
//! | `hang-deltas` | sends nothing after the deltas, until an interrupt or a steer |
//! | `lose-completion` | sends the status `idle`, but no `turn/completed` |
//! | `lose-everything-after-deltas` | sends nothing after the deltas, although the turn has ended |
//! | `close-stdout` | closes stdout after the deltas; the process runs silently until its stdin ends |
//! | `close-stdin` | closes stdin after the deltas; the process runs silently for at most ten minutes |
//! | `stop-reading` | stops reading stdin; its end is not noticed either |
//! | `answer-late=MS` `answer-never` `answer-twice` | delays, omits or repeats the response to `turn/start`; the turn continues |
//! | `answer-foreign` | sends a response to an unused ID before the right one |
//! | `overload=N` | rejects the next N `turn/start` with −32001 |
//! | `stderr=TEXT` `stderr-flood=BYTES` | writes to stderr at the beginning |
//!
//! The order is: response, stderr, `retry`, `reasoning`, `plan`, `diff`, the tools in the order of their directives,
//! the deltas, the end. A steer takes effect after the tools or between two deltas; the turn then continues with the
//! directives of the steer.
//!
//! | startup directives | effect |
//! | --- | --- |
//! | `exit=CODE` `abort` | ends at once |
//! | `hang-initialize` `refuse-initialize` | sends no response to `initialize`, or an error |
//! | `exit-after-initialize=CODE` | exits after that response |
//! | `flood` | sends deltas of an unknown thread from that response on, without end |
//! | `stop-reading` | reads nothing after `initialize` |
//! | `foreign-thread` | after `initialized`: starts a thread that no client created, and a turn on it |
//! | `late-start=MS` | delays the response to `thread/start` and everything after it |
//! | `version=VERSION` | reports this version of Codex (default 0.169.0); before 0.140.0 it does not store a `clientUserMessageId` |
//! | `without=METHOD` | rejects this method as unknown, like an older version |
//! | `answer-late=MS` | delays every response |
//! | `stderr=TEXT` `stdout=TEXT` | writes a line before anything else |
//! | `ignore-eof` | keeps running when stdin ends |
//! | `ignore-term` | executes itself again with SIGTERM ignored; the directive must be in the command line |

mod control;
mod deltas;
mod items;
mod methods;
mod params;
mod processes;
mod requests;
mod script;
mod server;
mod shared;
mod startup;
#[cfg(test)]
mod tests;
mod threads;
mod tools;
mod turn;
mod wire;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

use rustix::process::{Signal, getpid, kill_process};

use script::Startup;
use server::{Server, Stopped};
use shared::{Ending, Shared};

/// The options of the process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// The directory in which threads are stored; it is created with the first thread.
    pub(crate) store: Option<PathBuf>,
    /// Startup directives, as in the table above; one string may contain several.
    pub(crate) startup: Vec<String>,
}

/// Serves the protocol on stdin and stdout until stdin ends. Returns 0, 2 for an unknown startup directive, or the exit
/// code that a directive asks for.
#[must_use]
pub(crate) fn run(options: Options) -> ExitCode {
    let mut log = io::stderr();
    let startup = match Startup::parse(&options.startup) {
        Ok(startup) => startup,
        Err(directive) => {
            // Without stderr nothing can be reported.
            let _ = writeln!(log, "fake app-server: unknown startup directive {directive:?}");
            return ExitCode::from(2);
        }
    };
    if startup.abort {
        std::process::abort();
    }
    if let Some(code) = startup.exit {
        return ExitCode::from(code);
    }
    if startup.ignore_term {
        restart_without_term();
    }
    // Copies of the file descriptors: `Stdout` would split every block into lines, and `Stdin` would read ahead of an
    // `exec`.
    let copy = |fd: io::Result<std::os::fd::OwnedFd>| fd.map(File::from);
    let input = copy(io::stdin().as_fd().try_clone_to_owned());
    let output = copy(io::stdout().as_fd().try_clone_to_owned());
    match (input, output) {
        (Ok(input), Ok(output)) => {
            let (log, end) = (Box::new(log), Box::new(end_process));
            let ignore_eof = startup.ignore_eof;
            let shared = Shared::new(Box::new(output), log, options.store, startup, end);
            if serve(&Arc::new(shared), BufReader::new(input)) == Stopped::StopReading || ignore_eof {
                loop {
                    std::thread::park();
                }
            }
            ExitCode::SUCCESS
        }
        (Err(error), _) | (_, Err(error)) => {
            let _ = writeln!(log, "fake app-server: failed to open stdin or stdout: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The part of [`run`] that unit tests call: it ends no process and uses no standard streams.
fn serve(shared: &Arc<Shared>, input: impl BufRead) -> Stopped {
    shared.log("fake app-server ready");
    for line in &shared.startup.stderr {
        shared.log(line);
    }
    for line in &shared.startup.stdout {
        shared.wire.bytes(format!("{line}\n").as_bytes());
    }
    let stopped = Server::new(shared).serve(input);
    // Like Codex: the end of stdin ends the commands too.
    if stopped == Stopped::EndOfInput && !shared.startup.ignore_eof {
        shared.processes.kill(None);
    }
    stopped
}

/// Ends the process, or closes a standard stream, as a script asks for.
fn end_process(ending: Ending) {
    // `exec` replaces this program by one that keeps the PID and does nothing. It also closes the copies of the file
    // descriptors; there is no other safe way to close a standard stream.
    let error = match ending {
        Ending::Exit(code) => std::process::exit(code),
        Ending::Abort => std::process::abort(),
        Ending::Kill => match kill_process(getpid(), Signal::KILL) {
            Ok(()) => return,
            Err(error) => io::Error::from(error),
        },
        Ending::CloseStdout => Command::new("cat").stdout(Stdio::null()).exec(),
        Ending::CloseStdin => Command::new("sleep").arg("600").stdin(Stdio::null()).exec(),
    };
    let _ = writeln!(io::stderr(), "fake app-server: {ending:?} failed: {error}");
}

/// Executes itself again through a shell that ignores SIGTERM, which the program inherits. The directive in the
/// arguments is replaced by one without effect, so that this happens once.
fn restart_without_term() {
    let mut found = false;
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .map(|argument| {
            found |= argument.contains("ignore-term");
            argument.replace("ignore-term", "term-ignored")
        })
        .collect();
    if let (true, Ok(program)) = (found, std::env::current_exe()) {
        let _ = Command::new("sh")
            .args(["-c", "trap '' TERM; exec \"$@\"", "sh"])
            .arg(program)
            .args(arguments)
            .exec();
    }
    let _ = writeln!(io::stderr(), "fake app-server: ignore-term failed");
}
