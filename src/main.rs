//! The `codexd` program: reads the command line, does what it says, and turns the outcome into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    match codexd::cli::parse(std::env::args_os()) {
        Ok(invocation) => codexd::commands::run(invocation),
        Err(exit) => codexd::commands::refuse(exit),
    }
}
