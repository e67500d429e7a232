//! The `codexd` program: parses the command line, runs the subcommand, and exits with its code.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = codexd::commands::complete() {
        return code;
    }
    match codexd::cli::parse(std::env::args_os()) {
        Ok(command) => codexd::commands::run(command),
        Err(exit) => codexd::commands::refuse(exit),
    }
}
