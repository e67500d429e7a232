//! The arguments of the program, as clap parses them. The doc comments are the help texts.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::client::ClientSubcommand;
use super::flags::after_help;
use super::invocation::ServiceAction;
use crate::config::{LONG_VERSION, Settings};

/// Local daemon that supervises `codex app-server` and exposes it over HTTP, SSE and WebSocket
#[derive(Debug, Parser)]
#[command(name = "codexd", bin_name = "codexd", version = LONG_VERSION, next_line_help = true, after_help = after_help())]
pub(super) struct CommandLine {
    #[command(flatten)]
    pub(super) before: StartArguments,
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the daemon (default)
    Start(StartArguments),
    /// Show the status of the running daemon
    Status(CommonArguments),
    #[command(flatten)]
    Client(ClientSubcommand),
    /// Print every setting, its value and its source
    Config(CommonArguments),
    /// Copy the state and the event log to a new directory, whether codexd runs or not
    Backup(BackupArguments),
    /// Create the token file that --auth-token-file names
    Token(TokenArguments),
    /// Test the daemon against a built-in offline app-server
    Smoke(CommonArguments),
    /// Install, remove or inspect codexd as a service (launchd agent or systemd user unit)
    Service(ServiceArguments),
    /// Check everything that codexd needs and suggest fixes
    Doctor(CommonArguments),
    /// Run the guard of a daemon: end the processes that a killed daemon leaves behind
    #[command(hide = true)]
    Guard {
        /// Instance name of the daemon, which marks its processes
        #[arg(long, value_name = "NAME")]
        instance: String,
    },
    /// Run the demo app-server on stdin and stdout
    #[command(hide = true)]
    DemoAppServer {
        /// Directory in which threads are stored
        #[arg(long, value_name = "DIR")]
        store: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(super) struct StartArguments {
    #[command(flatten)]
    pub(super) settings: Settings,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Start, print the status, and stop; only with start
    #[arg(long)]
    pub(super) run_once: bool,
    /// Start a demo with prepared answers instead of Codex, without an account or a network; only with start
    #[arg(long)]
    pub(super) demo: bool,
}

#[derive(Debug, Args)]
pub(super) struct CommonArguments {
    #[command(flatten)]
    pub(super) settings: Settings,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ServiceArguments {
    /// Action
    #[arg(value_enum, value_name = "install|uninstall|status|print")]
    pub(super) action: ServiceAction,
    #[command(flatten)]
    pub(super) common: CommonArguments,
}

#[derive(Debug, Args)]
pub(super) struct BackupArguments {
    /// Directory to create for the copy; it may exist if it is empty
    #[arg(value_name = "DIRECTORY")]
    pub(super) directory: PathBuf,
    #[command(flatten)]
    pub(super) common: CommonArguments,
}

#[derive(Debug, Args)]
pub(super) struct TokenArguments {
    #[command(flatten)]
    pub(super) common: CommonArguments,
    /// Replace the existing token
    #[arg(long)]
    pub(super) replace: bool,
}
