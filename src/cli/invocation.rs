//! What a command line asks for: the output of the parser and the input of `commands`.

use std::path::PathBuf;

use clap::ValueEnum;
use clap_complete::Shell;

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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AskOptions {
    /// The prompt; `-` is replaced by stdin, and an empty list means stdin.
    pub words: Vec<String>,
    /// The session ID or `last`; a new session if it is `None`.
    pub session: Option<String>,
    /// The working directory.
    pub cwd: Option<String>,
    /// The model.
    pub model: Option<String>,
    /// The sandbox of a new session.
    pub sandbox: Option<String>,
    /// The approval policy.
    pub approval_policy: Option<String>,
    /// What to do if a turn is running already.
    pub when_busy: Option<String>,
    /// Whether Codex may use the `.codex` of the directory; asked at a terminal if it is `None`.
    pub trust: Option<bool>,
    /// After how many seconds without network to interrupt the turn; 0 for never.
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
