//! The demo app-server: prepared answers for `codexd start --demo` and `codexd smoke`, without Codex, account or network.
//!
//! It is a child process of the daemon and speaks JSON-RPC on stdin and stdout, in the shapes of `codex app-server` 0.171.0.
//! It owns its threads and, in a store, one file for each of them (see [`threads`]).
//! Invariant: it starts no process and writes no file outside the store; the commands and patches that it reports are
//! invented. The prompt selects the answer: `hello` a short one, `long` one of half a minute, everything else the tour
//! (see [`turn`]).

mod objects;
mod server;
mod shared;
mod threads;
mod turn;

use std::io::{self, BufReader};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

/// Serves the protocol on stdin and stdout until stdin ends; `store` is the directory of the thread files.
#[must_use]
pub fn run(store: Option<PathBuf>) -> ExitCode {
    // A copy of the file descriptor: `Stdout` buffers lines, but each message must be written with one call.
    let Ok(output) = io::stdout().as_fd().try_clone_to_owned() else { return ExitCode::FAILURE };
    server::serve(BufReader::new(io::stdin()), Box::new(std::fs::File::from(output)), store);
    ExitCode::SUCCESS
}
