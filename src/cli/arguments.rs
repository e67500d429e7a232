//! The arguments of the program, as clap parses them. The doc comments are the help texts.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::client::{
    AppServerArguments, ApproveArguments, AskArguments, CallArguments, ClientArguments, CloseArguments,
    CompactArguments, DeclineArguments, FollowArguments, GoalArguments, HooksArguments, InterruptArguments,
    ListArguments, OneSessionArguments, OpenArguments, RenameArguments, ResumeQueueArguments,
    RevertArguments, ReviewArguments, ShowArguments, ThreadsArguments,
};
use crate::config::{AuthConfig, LONG_VERSION, PathSettings, Settings, Sources, count};

/// Local daemon that supervises `codex app-server` and exposes it over HTTP, SSE and WebSocket
#[derive(Debug, Parser)]
#[command(name = "codexd", bin_name = "codexd", version = LONG_VERSION, after_help = AFTER_HELP,
          override_usage = "codexd [COMMAND] [OPTIONS]")]
pub(super) struct CommandLine {
    #[command(subcommand)]
    pub(super) command: Command,
}

const AFTER_HELP: &str = "Without a command, codexd runs \"start\" with the flags given. \"codexd help COMMAND\" \
                          explains the flags of a command.";

const AFTER_SETTINGS: &str = "A flag overrides its environment variable, which overrides the default.\n\
                              BAA_CODEXD_LOG: Filter of codexd's log on stderr [default: info]";

/// For the commands whose help leaves out the settings that they take.
pub(super) const AFTER_HIDDEN_SETTINGS: &str =
    "It also takes the other settings of \"codexd start\", which \"codexd help start\" lists.";

/// A subcommand and its arguments.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon (default)
    Start(StartArguments),
    /// Stop the daemon
    Stop(FileArguments),
    /// Show the end of the daemon's log
    Logs(LogsArguments),
    /// Show the status of the running daemon
    Status(DaemonArguments),
    /// Submit a prompt to Codex and stream the answer
    #[command(visible_alias = "run")]
    Ask(AskArguments),
    /// The same, with --json as "codex exec" has it: --jsonl
    Exec(AskArguments),
    /// List sessions
    #[command(visible_aliases = ["ls", "ps"])]
    Sessions(ListArguments),
    /// Show the conversation of a session
    #[command(visible_alias = "log")]
    Show(ShowArguments),
    /// Continue a session in the terminal of Codex; needs --server-strategy shared
    Resume(OneSessionArguments),
    /// Copy the thread of a session for a new session
    Fork(OneSessionArguments),
    /// Open the page in the browser
    Open(OpenArguments),
    /// List the models that Codex offers
    Models(ClientArguments),
    /// List the threads of Codex on this machine, those of the terminal included
    Threads(ThreadsArguments),
    /// Follow the conversations of all sessions, or the events
    Follow(FollowArguments),
    /// List pending requests of Codex
    Requests(ListArguments),
    /// Approve a request of Codex
    Approve(ApproveArguments),
    /// Decline a request of Codex
    #[command(visible_alias = "deny")]
    Decline(DeclineArguments),
    /// Interrupt the running turn of a session
    Interrupt(InterruptArguments),
    /// Resume the held queue of a session
    ResumeQueue(ResumeQueueArguments),
    /// Close a session
    #[command(visible_alias = "rm")]
    Close(CloseArguments),
    /// Restart the app-server, for example after an upgrade of Codex; sessions and queues continue
    AppServer(AppServerArguments),
    /// Name a session and its thread, for Codex in a terminal too
    Rename(RenameArguments),
    /// Archive the thread of a session; it is kept, and cannot be opened until it is unarchived
    Archive(OneSessionArguments),
    /// Make an archived thread of a session one that can be opened
    Unarchive(OneSessionArguments),
    /// Compact the history of a session's thread
    Compact(CompactArguments),
    /// Have Codex review changes
    Review(ReviewArguments),
    /// Remove the last turns from a session's thread; files stay as they are
    Revert(RevertArguments),
    /// Show, set or remove the goal of a session's thread
    Goal(GoalArguments),
    /// Show who is logged in, the limits of the account and its usage
    Account(ClientArguments),
    /// Log Codex in with a code that you enter on any device
    Login(ClientArguments),
    /// Log Codex out
    Logout(ClientArguments),
    /// Run programs or call URLs when something happens
    Hooks(HooksArguments),
    /// Call a method of the app-server
    Call(CallArguments),
    /// Serve the tools of Codex to a client of the Model Context Protocol, on stdin and stdout
    Mcp(ClientArguments),
    /// Print a shell completion script
    Completions {
        /// Shell to generate completions for
        shell: Shell,
    },
    /// Print every setting, its value and its source
    Config(DaemonArguments),
    /// Copy the state and the event log to a new directory, whether codexd runs or not
    Backup(BackupArguments),
    /// Put a backup in the place of the state and the event log, which are kept; codexd must not run
    Restore(BackupArguments),
    /// Create the token file that --auth-token-file names
    Token(TokenArguments),
    /// Test the daemon against a built-in offline app-server
    Smoke(DaemonArguments),
    /// Install, remove, start, stop or inspect codexd as a service (launchd agent or systemd user unit)
    Service(ServiceArguments),
    /// Tell what is outdated, and change nothing
    Upgrade(UpgradeArguments),
    /// Check everything that codexd needs and suggest fixes
    Doctor(DaemonArguments),
    /// Print the version
    Version,
    /// Run the guard of a daemon: end the processes that a killed daemon leaves behind
    #[command(hide = true)]
    Guard {
        /// Instance name of the daemon, which marks its processes
        #[arg(long, value_name = "NAME")]
        instance: String,
    },
    /// Run a program in a session of its own, so that it outlives codexd
    #[command(hide = true)]
    Detach {
        /// Program to run
        program: OsString,
        /// Its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run the demo app-server on stdin and stdout
    #[command(hide = true)]
    DemoAppServer {
        /// Directory in which threads are stored
        #[arg(long, value_name = "DIR")]
        store: Option<PathBuf>,
    },
}

/// The flags that choose an app-server.
pub(super) const APP_SERVER_FLAGS: [&str; 4] =
    ["server_endpoint", "server_strategy", "server_command", "server_arg"];

/// The arguments of `codexd start`.
#[derive(Debug, Args)]
pub struct StartArguments {
    /// Start, print the status, and stop
    #[arg(long)]
    pub run_once: bool,
    /// Print the log on a terminal, too, instead of writing it to codexd.log in the directory of logs
    #[arg(short, long)]
    pub verbose: bool,
    /// Start a demo with prepared answers instead of Codex, without an account or a network
    #[arg(long, conflicts_with_all = APP_SERVER_FLAGS)]
    pub demo: bool,
    /// Start the demo if Codex is not installed, cannot be used or has no account
    #[arg(long, conflicts_with = "demo")]
    pub or_demo: bool,
    /// The settings and the output format.
    #[command(flatten)]
    pub daemon: DaemonArguments,
}

/// The arguments of the commands that need all settings of a daemon.
#[derive(Debug, Args)]
#[command(after_help = AFTER_SETTINGS)]
pub struct DaemonArguments {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The settings.
    #[command(flatten)]
    pub settings: Settings,
}

/// The arguments of `codexd upgrade`.
#[derive(Debug, Args)]
pub struct UpgradeArguments {
    /// Compare the versions; codexd does not replace itself
    #[arg(long)]
    pub check: bool,
    /// The settings and the output format.
    #[command(flatten)]
    pub daemon: DaemonArguments,
}

/// The arguments of `codexd service`.
#[derive(Debug, Args)]
pub struct ServiceArguments {
    /// Action
    #[arg(value_enum, value_name = "install|uninstall|start|stop|restart|status|logs|print")]
    pub action: ServiceAction,
    /// With install: give the service this environment variable with its value in this shell; may be repeated
    ///
    /// For proxies, CA files, locales and the keys of model providers, such as HTTPS_PROXY. The values are stored in a file
    /// that only you can read, and stay at the next install.
    #[arg(long, value_name = "NAME")]
    pub service_env: Vec<String>,
    /// With install: no longer give the service this environment variable; may be repeated
    #[arg(long, value_name = "NAME")]
    pub no_service_env: Vec<String>,
    /// The settings and the output format.
    #[command(flatten)]
    pub daemon: DaemonArguments,
}

/// What to do with the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ServiceAction {
    /// Write the service file for the current settings, and start the service
    Install,
    /// Stop the service and remove its file; state and logs are kept
    Uninstall,
    /// Start the installed service
    Start,
    /// Stop the service until the next login
    Stop,
    /// Restart the service, for example after an upgrade
    Restart,
    /// Show the state of the service
    Status,
    /// Show the end of the log of the service
    Logs,
    /// Print the file that install would write
    Print,
}

/// The arguments of the commands that work on the files of a daemon.
#[derive(Debug, Args)]
pub struct FileArguments {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The source of each setting. Must be before them, see [`Settings`].
    #[command(flatten)]
    pub sources: Sources,
    /// The directories.
    #[command(flatten)]
    pub paths: PathSettings,
    /// The token file.
    #[command(flatten)]
    pub auth: AuthConfig,
}

/// The arguments of `codexd logs`.
#[derive(Debug, Args)]
pub struct LogsArguments {
    /// Continue to print as the log grows
    #[arg(short, long)]
    pub follow: bool,
    /// How many lines to print
    #[arg(short = 'n', long, value_name = "COUNT", default_value = "100", value_parser = count::<u64>(0..=1_000_000))]
    pub lines: u64,
    /// The source of each setting. Must be before them, see [`Settings`].
    #[command(flatten)]
    pub sources: Sources,
    /// The directories.
    #[command(flatten)]
    pub paths: PathSettings,
}

/// The arguments of `codexd backup` and `codexd restore`.
#[derive(Debug, Args)]
pub struct BackupArguments {
    /// Directory of the copy; backup creates it, and it may exist if it is empty
    pub directory: PathBuf,
    /// The files of the daemon and the output format.
    #[command(flatten)]
    pub files: FileArguments,
}

/// The arguments of `codexd token`.
#[derive(Debug, Args)]
pub struct TokenArguments {
    /// Replace the existing token
    #[arg(long)]
    pub replace: bool,
    /// The files of the daemon and the output format.
    #[command(flatten)]
    pub files: FileArguments,
}
