//! The embedded app-server: an offline stand-in for `codex app-server` that speaks its protocol over stdin
//! and stdout.
//!
//! `codexd smoke` and the tests start it instead of the real one. Its messages have the fields, the order
//! and the error texts of the real one; what happens in a turn is written in the prompt, as words between
//! spaces. A word that is none of these is ordinary text, so any prompt is a turn of three deltas.
//!
//! | words of a prompt | what they do |
//! | --- | --- |
//! | `deltas=N` `chars=N` | number of deltas (3) and characters of each (12); the item keeps the first MiB of their text |
//! | `delay=MS` | pause after each delta |
//! | `text=WORD` | one delta, exactly `WORD` |
//! | `retry` | an `error` with `willRetry: true` first |
//! | `reasoning` `plan` `diff` | a reasoning item, `turn/plan/updated`, `turn/diff/updated` |
//! | `command[=TEXT]` | a command item; nothing is run |
//! | `spawn=SECONDS` | a command item that really runs `sleep`, in its own session; the turn waits for it; `processId` is its pid |
//! | `spawn-background=SECONDS` | the same, and the turn goes on |
//! | `spawn-double=SECONDS` | the same, and the process has no parent; it survives the app-server |
//! | `ask=command\|file\|permissions\|input\|questions\|leave\|form\|unknown` | a request to the client; several ask one after the other |
//! | `garbage` | after half of the deltas: five lines that are not messages |
//! | `long-line=BYTES` | after half of the deltas: a `warning` of this size |
//! | `fail` | status `systemError`, `error` with `willRetry: false`, `turn/completed` as `failed`; deltas only if `deltas=` is there |
//! | `crash[=CODE]` `abort` `kill` | after half of the deltas the process exits (101), aborts, or sends itself SIGKILL |
//! | `half-line` | half a message comes before that end (`crash` if no other is named) |
//! | `hang` | nothing after the user's item, until an interrupt or a steer |
//! | `hang-deltas` | nothing after the deltas, until an interrupt or a steer |
//! | `lose-completion` | status `idle` comes, `turn/completed` does not |
//! | `lose-everything-after-deltas` | nothing is sent after the deltas, although the turn has ended |
//! | `close-stdout` | after the deltas stdout is closed; the process runs on silently until its stdin ends |
//! | `close-stdin` | after the deltas stdin is closed; the process runs on silently for at most ten minutes |
//! | `stop-reading` | stdin is read no further, not even to its end |
//! | `answer-late=MS` `answer-never` `answer-twice` | about the answer to `turn/start`; the turn goes on |
//! | `answer-foreign` | a response to an unused id comes before the right one |
//! | `overload=N` | the next N `turn/start` get −32001 |
//! | `stderr=WORD` `stderr-flood=BYTES` | written to stderr at the beginning |
//!
//! First come the answer, then stderr, `retry`, `reasoning`, `plan`, `diff`, then the tools in the order of
//! their words, then the deltas, then the end. A steer takes effect after the tools or between two deltas;
//! then the turn goes on with the words of the steer.
//!
//! | startup words | what they do |
//! | --- | --- |
//! | `exit=CODE` `abort` | at once |
//! | `hang-initialize` `refuse-initialize` | no response, or an error |
//! | `exit-after-initialize=CODE` | exits after that response |
//! | `flood` | deltas of an unknown thread from that response on, without end |
//! | `stop-reading` | reads nothing after `initialize` |
//! | `foreign-thread` | after `initialized`: a thread nobody created, and a turn on it |
//! | `late-start=MS` | the answer to `thread/start` comes that much later, and whatever follows it too |
//! | `version=VERSION` | the version of Codex that it says it is (0.169.0); before 0.140.0 it does not keep a `clientUserMessageId` |
//! | `without=METHOD` | it does not know this method, as an older one |
//! | `answer-late=MS` | every answer comes that much later |
//! | `stderr=WORD` `stdout=WORD` | a line before anything else |
//! | `ignore-eof` | lives on when stdin ends |
//! | `ignore-term` | starts itself again with SIGTERM ignored; the word has to be in the command line |

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

/// What the process is started with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// The directory in which threads survive the process; it is created with the first thread.
    pub(crate) store: Option<PathBuf>,
    /// Startup words, as in the table above; one string may hold several.
    pub(crate) startup: Vec<String>,
}

/// Serves the protocol on stdin and stdout until stdin ends, and gives back the exit code: 0, or 2 when
/// the startup words are not understood, or what they say.
#[must_use]
pub(crate) fn run(options: Options) -> ExitCode {
    let mut log = io::stderr();
    let startup = match Startup::parse(&options.startup) {
        Ok(startup) => startup,
        Err(word) => {
            // Nobody is left to hear that stderr is gone.
            let _ = writeln!(log, "embedded app-server: {word:?} is no startup word");
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
    // Copies of the descriptors: `Stdout` would cut every block into lines, `Stdin` would read ahead where
    // the process is replaced.
    let copy = |fd: io::Result<std::os::fd::OwnedFd>| fd.map(File::from);
    let input = copy(io::stdin().as_fd().try_clone_to_owned());
    let output = copy(io::stdout().as_fd().try_clone_to_owned());
    match (input, output) {
        (Ok(input), Ok(output)) => {
            let (log, end) = (Box::new(log), Box::new(end_process));
            let lives_on = startup.ignore_eof;
            let shared = Shared::new(Box::new(output), log, options.store, startup, end);
            if serve(&Arc::new(shared), BufReader::new(input)) == Stopped::StopReading || lives_on {
                loop {
                    std::thread::park();
                }
            }
            ExitCode::SUCCESS
        }
        (Err(error), _) | (_, Err(error)) => {
            let _ = writeln!(log, "embedded app-server: no stdin or stdout: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The part of [`run`] that needs no process of its own.
fn serve(shared: &Arc<Shared>, input: impl BufRead) -> Stopped {
    shared.log("embedded app-server ready");
    for word in &shared.startup.stderr {
        shared.log(word);
    }
    for word in &shared.startup.stdout {
        shared.wire.bytes(format!("{word}\n").as_bytes());
    }
    let stopped = Server::new(shared).serve(input);
    // Like the real one: at the end of stdin the commands go too.
    if stopped == Stopped::EndOfInput && !shared.startup.ignore_eof {
        shared.processes.kill(None);
    }
    stopped
}

/// Carries out the end that a script asks for.
fn end_process(ending: Ending) {
    // A program that keeps the pid and does nothing takes the place of this one, and the copies of the
    // descriptors go with it: only in this way can a standard stream be closed safely.
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
    let _ = writeln!(io::stderr(), "embedded app-server: {ending:?} could not be done: {error}");
}

/// A shell that ignores SIGTERM hands that on to the program it becomes. The word in the arguments is
/// changed into one that does nothing, else this would go on for ever.
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
    let _ = writeln!(io::stderr(), "embedded app-server: ignore-term could not be done");
}
