//! `fake_codex app-server [--store DIRECTORY] [--startup DIRECTIVES]...`: a scripted app-server for tests. It can cause
//! every fault that Codex may have.
//!
//! It is an example target: `cargo test` builds it, and nothing installs it.
//! `program.rs` finds the program for the tests and the benchmarks; `app_server/mod.rs` lists the directives.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the program has no async runtime: it may block, and starts threads"
)]

mod app_server;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use app_server::Options;

#[derive(Debug, Parser)]
#[command(name = "fake_codex")]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the protocol on stdin and stdout
    AppServer {
        /// The directory in which threads are stored
        #[arg(long)]
        store: Option<PathBuf>,
        /// Startup directives; app_server/mod.rs lists them
        #[arg(long)]
        startup: Vec<String>,
    },
}

fn main() -> ExitCode {
    match CommandLine::try_parse() {
        Ok(CommandLine { command: Command::AppServer { store, startup } }) => {
            app_server::run(Options { store, startup })
        }
        Err(error) => {
            // Without stderr nothing can be reported.
            let _ = write!(std::io::stderr(), "{error}");
            ExitCode::from(2)
        }
    }
}
