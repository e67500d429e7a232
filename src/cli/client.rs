//! The arguments of the commands that talk to a running daemon.

use std::path::PathBuf;

use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser};
use clap::{Args, ValueEnum};

use crate::codex::protocol::{decisions, values};
use crate::config::{PathSettings, ServiceConfig, Sources, count};

/// The settings that select the daemon, and the output format.
#[derive(Debug, Clone, Args)]
pub struct ClientArguments {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The source of each setting. Must be before them, see [`Settings`](crate::config::Settings).
    #[command(flatten)]
    pub sources: Sources,
    /// How to reach the daemon.
    #[command(flatten)]
    pub service: ServiceConfig,
}

/// The arguments of `codexd ask`.
#[derive(Debug, Args)]
pub struct AskArguments {
    /// Prompt; "-" is replaced by stdin, and without TEXT the prompt is read from stdin
    #[arg(value_name = "TEXT")]
    pub words: Vec<String>,
    /// Send this image with the prompt (PNG, JPEG, GIF or WebP); may be repeated
    #[arg(short, long, value_name = "FILE")]
    pub image: Vec<PathBuf>,
    /// Continue this session: an ID, the beginning of one, a title, or "last"
    ///
    /// "last" is the most recently used session in this directory.
    #[arg(long, value_name = "ID", group = "existing_session", value_parser = NonEmptyStringValueParser::new())]
    pub session: Option<String>,
    /// Continue the most recently used session in this directory
    #[arg(long = "continue", visible_alias = "last", group = "existing_session")]
    pub continues: bool,
    /// Working directory [default: the current directory for a new session]
    #[arg(short = 'C', long, visible_alias = "cd", value_name = "PATH")]
    pub cwd: Option<String>,
    /// Model to use, for this turn and those after it in the session
    #[arg(short, long, value_name = "NAME")]
    pub model: Option<String>,
    /// Sandbox of the commands that Codex runs; only for a new session
    #[arg(short, long, value_name = "SANDBOX", conflicts_with = "existing_session",
          value_parser = PossibleValuesParser::new(values::SANDBOX_MODES))]
    pub sandbox: Option<String>,
    /// When Codex asks for approval, from this turn on, as Codex names it: untrusted, on-request or never
    #[arg(short, long, visible_alias = "ask-for-approval", value_name = "POLICY")]
    pub approval_policy: Option<String>,
    /// Override a value of Codex's configuration, such as model_reasoning_effort=high; only for a new session
    ///
    /// The key may have dots, and the value is TOML, or else a string. May be repeated.
    #[arg(short, long, value_name = "KEY=VALUE", conflicts_with = "existing_session")]
    pub config: Vec<String>,
    /// Use the profile of Codex in NAME.config.toml in CODEX_HOME; only for a new session
    #[arg(short, long, value_name = "NAME", conflicts_with = "existing_session",
          value_parser = NonEmptyStringValueParser::new())]
    pub profile: Option<String>,
    /// Keep the thread in no file of Codex; only for a new session
    #[arg(long, conflicts_with = "existing_session")]
    pub ephemeral: bool,
    /// File with a JSON Schema that the answer has to match
    #[arg(long, value_name = "FILE")]
    pub output_schema: Option<PathBuf>,
    /// Write the last message of Codex to this file, too
    #[arg(short, long, value_name = "FILE", conflicts_with = "detach")]
    pub output_last_message: Option<PathBuf>,
    /// Print a JSON document in a line for each thing that happens, like "codex exec --json"
    #[arg(long, conflicts_with_all = ["json", "detach"])]
    pub jsonl: bool,
    /// What to do if a turn of the session is running [default: refuse]
    #[arg(long, value_name = "HOW", requires = "existing_session",
          value_parser = PossibleValuesParser::new(["refuse", "steer", "queue"]))]
    pub when_busy: Option<String>,
    /// Queue the turn and start it at this time at the earliest, such as 2026-11-20T05:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub not_before: Option<String>,
    /// What follows if the turn reaches the usage limit [default: hold]
    #[arg(long, value_name = "WHAT", value_parser = PossibleValuesParser::new(["hold", "continue", "fail"]))]
    pub on_usage_limit: Option<String>,
    /// Exit when codexd has accepted or queued the turn, instead of waiting for its end
    #[arg(long)]
    pub detach: bool,
    /// Let Codex use the .codex of the directory (--trust=false: do not); only for a new session
    ///
    /// Its commands run outside the sandbox. Without this option, the question is asked once per directory at a
    /// terminal.
    #[arg(long, value_name = "BOOL", conflicts_with = "existing_session", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    pub trust: Option<bool>,
    /// Interrupt the turn if Codex reaches no network for this many seconds; 0 for no limit
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = count::<u64>(0..=86_400))]
    pub network_timeout: u64,
    /// The daemon and the output format.
    #[command(flatten)]
    pub client: ClientArguments,
}

/// The arguments of `codexd sessions` and `codexd requests`.
#[derive(Debug, Args)]
pub struct ListArguments {
    /// Include finished and archived ones
    #[arg(long)]
    pub all: bool,
    /// The daemon and the output format.
    #[command(flatten)]
    pub client: ClientArguments,
}

/// The arguments of `codexd show`.
#[derive(Debug, Args)]
pub struct ShowArguments {
    /// Session: its ID, the beginning of it, its title, or "last"
    #[arg(default_value = "last", value_parser = NonEmptyStringValueParser::new())]
    pub session: String,
    /// Print Markdown, with the whole output of commands
    #[arg(long, conflicts_with = "json")]
    pub markdown: bool,
    /// The daemon and the output format.
    #[command(flatten)]
    pub client: ClientArguments,
}

/// The arguments of `codexd open`.
#[derive(Debug, Args)]
pub struct OpenArguments {
    /// Session to open: its ID, the beginning of it, its title, or "last"
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub session: Option<String>,
    /// The daemon and the output format.
    #[command(flatten)]
    pub client: ClientArguments,
}

/// The arguments of `codexd follow`.
#[derive(Debug, Args)]
pub struct FollowArguments {
    /// Print events of this session only; "last" is the most recently used one in this directory
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub session: Option<String>,
    /// Print events instead of the conversation, also on a terminal; they are printed with --type and --json, too
    #[arg(long)]
    pub events: bool,
    /// Print only events whose type starts with TYPE; may be repeated
    #[arg(long = "type", value_name = "TYPE")]
    pub types: Vec<String>,
    /// Start after this cursor; 0 starts with the oldest event [default: new events only]
    #[arg(long, value_name = "CURSOR")]
    pub after: Option<String>,
    /// The daemon and the output format.
    #[command(flatten)]
    pub client: ClientArguments,
}

/// The arguments of `codexd approve`.
#[derive(Debug, Args)]
pub struct ApproveArguments {
    /// Request ID, or the beginning of it; optional if exactly one request is pending
    #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub request: Option<String>,
    /// Decision to send, such as acceptForSession, by name or as JSON; must be one of those offered
    #[arg(long, value_name = "DECISION", default_value = decisions::ACCEPT)]
    pub decision: String,
    /// Answer to a question: the number of an option, or text; once per question
    #[arg(long = "answer", value_name = "TEXT", conflicts_with = "decision")]
    pub answers: Vec<String>,
    /// Complete result as JSON, in the format of the app-server, instead of a decision
    #[arg(long, value_name = "JSON", conflicts_with_all = ["decision", "answers"])]
    pub result: Option<String>,
    /// The daemon and the output format.
    #[command(flatten)]
    pub client: ClientArguments,
}

/// The arguments of `codexd decline`.
#[derive(Debug, Args)]
pub struct DeclineArguments {
    /// Request ID, or the beginning of it; optional if exactly one request is pending
    #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub request: Option<String>,
    /// End the turn as well
    #[arg(long)]
    pub cancel: bool,
    /// The daemon and the output format.
    #[command(flatten)]
    pub client: ClientArguments,
}

/// The arguments of `codexd interrupt`.
#[derive(Debug, Args)]
pub struct InterruptArguments {
    /// Session: its ID, the beginning of it, its title, or "last"; optional if exactly one session has a running turn
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub session: Option<String>,
    /// The daemon and the output format.
    #[command(flatten)]
    pub client: ClientArguments,
}

/// The arguments of `codexd app-server`.
#[derive(Debug, Args)]
pub struct AppServerArguments {
    /// Action
    #[arg(value_enum, value_name = "restart")]
    pub action: AppServerAction,
    /// Accept new turns until none is in progress, however long that takes
    #[arg(long)]
    pub when_idle: bool,
    /// Cut off what is in progress
    #[arg(long, conflicts_with = "when_idle")]
    pub force: bool,
    /// The daemon and the output format.
    #[command(flatten)]
    pub client: ClientArguments,
}

/// What to do with the app-server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AppServerAction {
    /// End it when no turn is in progress, and start it again
    Restart,
}

/// The arguments of `codexd threads`.
#[derive(Debug, Args)]
pub struct ThreadsArguments {
    /// Only threads whose title contains TEXT
    #[arg(value_name = "TEXT")]
    pub search: Option<String>,
    /// Only threads of this working directory
    #[arg(long, value_name = "PATH")]
    pub cwd: Option<String>,
    /// List archived threads instead
    #[arg(long)]
    pub archived: bool,
    /// Open this thread as a session, and print the session
    #[arg(long, value_name = "THREAD", conflicts_with_all = ["search", "cwd", "archived", "limit"],
          value_parser = NonEmptyStringValueParser::new())]
    pub open: Option<String>,
    /// Maximum number of threads
    #[arg(long, value_name = "COUNT", default_value = "20", value_parser = count::<u64>(1..=1_000))]
    pub limit: u64,
    /// The daemon and the output format.
    #[command(flatten)]
    pub client: ClientArguments,
}

/// The arguments of `codexd call`.
#[derive(Debug, Args)]
pub struct CallArguments {
    /// Method, such as thread/list; --app-server-calls of the daemon determines which are allowed
    #[arg(value_name = "METHOD")]
    pub method: String,
    /// Parameters as a JSON object; "-" is replaced by stdin [default: none]
    #[arg(value_name = "JSON")]
    pub params: Option<String>,
    /// Session ID or "last": its thread is named in the parameters, and a turn that the call begins is the session's
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub session: Option<String>,
    /// The daemon and the output format.
    #[command(flatten)]
    pub client: ClientArguments,
}

/// The arguments of `codexd rename`.
#[derive(Debug, Args)]
pub struct RenameArguments {
    /// Session: its ID, the beginning of it, its title, or "last"
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub session: String,
    /// New title
    #[arg(value_name = "TITLE", required = true, value_parser = NonEmptyStringValueParser::new())]
    pub words: Vec<String>,
    /// The daemon and the output format.
    #[command(flatten)]
    pub client: ClientArguments,
}

/// The arguments of `codexd archive` and `codexd unarchive`.
#[derive(Debug, Args)]
pub struct OneSessionArguments {
    /// Session: its ID, the beginning of it, its title, or "last"
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub session: String,
    /// The daemon and the output format.
    #[command(flatten)]
    pub client: ClientArguments,
}

/// The arguments of `codexd compact`.
#[derive(Debug, Args)]
pub struct CompactArguments {
    /// Session: its ID, the beginning of it, its title, or "last"
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub session: String,
    /// The daemon and the output format.
    #[command(flatten)]
    pub client: ClientArguments,
}

/// The arguments of `codexd review`.
#[derive(Debug, Args)]
pub struct ReviewArguments {
    /// Session: its ID, the beginning of it, its title, or "last"
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub session: String,
    /// What to review, in words [default: the changes that are not committed]
    #[arg(value_name = "TEXT")]
    pub words: Vec<String>,
    /// Review the changes since this branch
    #[arg(long, value_name = "BRANCH", conflicts_with = "words")]
    pub base: Option<String>,
    /// Review this commit
    #[arg(long, value_name = "SHA", conflicts_with_all = ["words", "base"])]
    pub commit: Option<String>,
    /// The daemon and the output format.
    #[command(flatten)]
    pub client: ClientArguments,
}

/// The arguments of `codexd revert`.
#[derive(Debug, Args)]
pub struct RevertArguments {
    /// Session: its ID, the beginning of it, its title, or "last"
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub session: String,
    /// First turn to remove [default: the last one]
    #[arg(value_name = "TURN_ID")]
    pub turn: Option<String>,
    /// The daemon and the output format.
    #[command(flatten)]
    pub client: ClientArguments,
}

/// The arguments of `codexd goal`.
#[derive(Debug, Args)]
pub struct GoalArguments {
    /// Session: its ID, the beginning of it, its title, or "last"
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub session: String,
    /// New goal; without it the goal is shown
    #[arg(value_name = "TEXT")]
    pub words: Vec<String>,
    /// Remove the goal
    #[arg(long, conflicts_with = "words")]
    pub clear: bool,
    /// The daemon and the output format.
    #[command(flatten)]
    pub client: ClientArguments,
}

/// The arguments of `codexd resume-queue`.
#[derive(Debug, Args)]
pub struct ResumeQueueArguments {
    /// Session: its ID, the beginning of it, its title, or "last"
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub session: String,
    /// Queued turn that waits for a time: let it start now
    #[arg(long, value_name = "QUEUE_ID")]
    pub turn: Option<String>,
    /// The daemon and the output format.
    #[command(flatten)]
    pub client: ClientArguments,
}

/// The arguments of `codexd hooks`.
#[derive(Debug, Args)]
pub struct HooksArguments {
    /// Action
    #[arg(
        value_enum,
        value_name = "list|add|test|remove",
        default_value = "list",
        hide_default_value = true
    )]
    pub action: HookAction,
    /// Name of the hook [default for add: the name of the program or the host]
    #[arg(value_name = "NAME")]
    pub hook: Option<String>,
    /// Type of the events, or a prefix of it, such as request.opened; may be repeated
    #[arg(long, value_name = "TYPE", value_delimiter = ',', required_if_eq("action", "add"))]
    pub on: Vec<String>,
    /// Only events of this session
    #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub session: Option<String>,
    /// Post events to this URL: https, or http to this machine
    #[arg(long, value_name = "URL", conflicts_with = "command")]
    pub url: Option<String>,
    /// File with the secret that signs deliveries to the URL; "-" is stdin
    #[arg(long, value_name = "PATH", requires = "url")]
    pub secret_file: Option<PathBuf>,
    /// How long a delivery may take [default: 30]
    #[arg(long, value_name = "SECONDS", value_parser = count::<u64>(1..=600))]
    pub timeout: Option<u64>,
    /// Deliver prompts, answers and outputs too
    #[arg(long)]
    pub detail: bool,
    /// Run this program with these arguments, with one event as JSON on stdin; must be the last option
    #[arg(long, value_name = "PROGRAM", num_args = 1.., allow_hyphen_values = true)]
    pub command: Vec<String>,
    /// The daemon and the output format.
    #[command(flatten)]
    pub client: ClientArguments,
    /// The directories of the daemon.
    #[command(flatten)]
    pub paths: PathSettings,
}

/// What to do with hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HookAction {
    /// List the hooks
    List,
    /// Add a hook, which gets the events from now on
    Add,
    /// Deliver a test now
    Test,
    /// Remove a hook
    Remove,
}

/// The arguments of `codexd close`.
#[derive(Debug, Args)]
pub struct CloseArguments {
    /// Session: its ID, the beginning of it, its title, or "last"
    #[arg(value_parser = NonEmptyStringValueParser::new(), required_unless_present = "all")]
    pub session: Option<String>,
    /// Close all active sessions
    #[arg(long, conflicts_with = "session")]
    pub all: bool,
    /// Interrupt the running turn first
    #[arg(long)]
    pub interrupt: bool,
    /// The daemon and the output format.
    #[command(flatten)]
    pub client: ClientArguments,
}

/// Checks a time; the daemon reads it again.
fn time(text: &str) -> Result<String, String> {
    let is_time = text.parse::<jiff::Timestamp>().is_ok();
    let example = "it must be a time such as 2026-11-20T05:00:00Z or 2026-11-20T05:00:00+01:00";
    if is_time { Ok(text.to_owned()) } else { Err(example.to_owned()) }
}
