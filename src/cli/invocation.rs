//! What a command line asks for: the output of the parser and the input of `commands`.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use clap_complete::Shell;

use crate::codex::protocol::values;
use crate::config::Settings;

/// A parsed command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invocation {
    /// Run the daemon.
    Start {
        /// The flags given.
        settings: Settings,
        /// Answer in JSON.
        json: bool,
        /// Start, print the status, and stop.
        run_once: bool,
        /// Start the demo instead of Codex.
        demo: bool,
    },
    /// Query the running daemon.
    Status {
        /// The flags given.
        settings: Settings,
        /// Answer in JSON.
        json: bool,
    },
    /// Print every setting and its source.
    Config {
        /// The flags given.
        settings: Settings,
        /// Answer in JSON.
        json: bool,
    },
    /// Copy the state and the event log.
    Backup {
        /// The flags given.
        settings: Settings,
        /// Answer in JSON.
        json: bool,
        /// The directory to create for the copy.
        directory: PathBuf,
    },
    /// Create the token file.
    Token {
        /// The flags given.
        settings: Settings,
        /// Answer in JSON.
        json: bool,
        /// Replace an existing token.
        replace: bool,
    },
    /// Test the daemon against the built-in app-server.
    Smoke {
        /// The flags given.
        settings: Settings,
        /// Answer in JSON.
        json: bool,
    },
    /// Manage codexd as a service of the user.
    Service {
        /// What to do.
        action: ServiceAction,
        /// The flags given.
        settings: Settings,
        /// Answer in JSON.
        json: bool,
    },
    /// Check everything that codexd needs.
    Doctor {
        /// The flags given.
        settings: Settings,
        /// Answer in JSON.
        json: bool,
    },
    /// Run a command that talks to the running daemon.
    Client {
        /// The flags given.
        settings: Settings,
        /// Answer in JSON.
        json: bool,
        /// The command.
        command: ClientCommand,
    },
    /// Print a shell completion script.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Run the guard of a daemon, on stdin.
    Guard {
        /// The instance name of the daemon.
        instance: String,
    },
    /// Run the demo app-server on stdin and stdout.
    DemoAppServer {
        /// The directory where its threads are stored; `None` keeps them in memory.
        store: Option<PathBuf>,
    },
}

/// A command that talks to the running daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCommand {
    /// Submits a turn and prints the answer.
    Ask(AskOptions),
    /// Lists the sessions.
    Sessions {
        /// Include closed sessions.
        all: bool,
    },
    /// Prints events as they occur.
    Follow {
        /// Only events of this session.
        session: Option<String>,
        /// Only events whose type starts with one of these.
        types: Vec<String>,
        /// The cursor to start after; new events only if it is `None`.
        after: Option<String>,
    },
    /// Lists the requests of Codex.
    Requests {
        /// Include resolved requests.
        all: bool,
    },
    /// Answers a request of Codex.
    Answer {
        /// The request ID; the only pending one if it is `None`.
        request: Option<String>,
        /// The answer.
        answer: Answer,
    },
    /// Interrupts the running turn.
    Interrupt {
        /// The session; the only one with a running turn if it is `None`.
        session: Option<String>,
    },
    /// Resumes a held queue.
    ResumeQueue {
        /// The session.
        session: String,
    },
    /// Closes a session.
    Close {
        /// The session.
        session: String,
        /// Interrupt the running turn first.
        interrupt: bool,
    },
}

/// The arguments of `codexd ask`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct AskOptions {
    /// Prompt; "-" is replaced by stdin, and without TEXT the prompt is read from stdin
    #[arg(value_name = "TEXT")]
    pub words: Vec<String>,
    /// Continue this session; "last" is the most recently used one in this directory
    #[arg(long, value_name = "ID")]
    pub session: Option<String>,
    /// Working directory [default: the current directory for a new session]
    #[arg(long, value_name = "PATH")]
    pub cwd: Option<String>,
    /// Model to use
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Sandbox of the commands that Codex runs; only for a new session
    #[arg(long, value_name = "SANDBOX", conflicts_with = "session",
          value_parser = PossibleValuesParser::new(values::SANDBOX_MODES))]
    pub sandbox: Option<String>,
    /// When Codex asks for approval, as Codex names it: untrusted, on-request or never
    #[arg(long, value_name = "POLICY")]
    pub approval_policy: Option<String>,
    /// What to do if a turn of the session is running [default: refuse]
    #[arg(long, value_name = "HOW", requires = "session",
          value_parser = PossibleValuesParser::new(["refuse", "steer", "queue"]))]
    pub when_busy: Option<String>,
    /// Let Codex use the .codex of the directory, whose commands run outside the sandbox (--trust=false: do not); only
    /// for a new session; without this option, the question is asked once per directory at a terminal
    #[arg(long, value_name = "BOOL", conflicts_with = "session", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    pub trust: Option<bool>,
    /// Interrupt the turn if Codex reaches no network for this many seconds; 0 for no limit
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub network_timeout: u64,
}

/// An answer to a request of Codex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// One of the decisions offered: its name or its JSON text.
    Decision(String),
    /// One answer per question.
    Words(Vec<String>),
    /// The whole result in the format of the app-server, as JSON.
    Result(String),
}

/// What to do with the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ServiceAction {
    /// Write the service file for the current settings, and start the service
    Install,
    /// Stop the service and remove its file; state and logs are kept
    Uninstall,
    /// Show the state of the service
    Status,
    /// Print the file that install would write
    Print,
}
