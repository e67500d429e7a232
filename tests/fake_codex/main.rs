//! `fake_codex app-server [--store DIRECTORY] [--startup DIRECTIVES]...`: a scripted app-server for tests. It can cause
//! every fault that Codex may have. `fake_codex record FILE` records what a test sends to it.
//!
//! It is an example target: `cargo test` builds it, and nothing installs it.
//! `program.rs` finds the program for the tests and the benchmarks; `app_server/mod.rs` lists the directives.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the program has no async runtime: it may block, and starts threads"
)]

mod app_server;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
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
    /// Copy stdin to the end of a file and then to stdout
    ///
    /// tee may write to stdout first: what is answered would then not be in the file yet.
    Record {
        /// The file
        file: PathBuf,
    },
}

/// Copies stdin until it ends.
fn record(file: &Path) -> io::Result<()> {
    let mut file = File::options().append(true).create(true).open(file)?;
    // `Stdout` would split every block into lines.
    let mut output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let (mut input, mut block) = (io::stdin().lock(), vec![0; 64 * 1024]);
    loop {
        let count = input.read(&mut block)?;
        let Some(text) = block.get(..count).filter(|text| !text.is_empty()) else { return Ok(()) };
        file.write_all(text)?;
        output.write_all(text)?;
    }
}

fn main() -> ExitCode {
    match CommandLine::try_parse() {
        Ok(CommandLine { command: Command::AppServer { store, startup } }) => {
            app_server::run(Options { store, startup })
        }
        Ok(CommandLine { command: Command::Record { file } }) => match record(&file) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => {
            // Without stderr nothing can be reported.
            let _ = write!(std::io::stderr(), "{error}");
            ExitCode::from(2)
        }
    }
}
