//! The commands for every day, which ask the running daemon for something.

use clap::builder::PossibleValuesParser;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Subcommand};
use clap_complete::Shell;

use super::{CommandLine, StartArguments, add_flags, merge, read_flags, usage};
use crate::cli::{CliExit, Invocation};
use crate::codex::protocol::{decisions, values};
use crate::config::Settings;
use crate::config::settings::{AUTH_TOKEN_FILE, EVENT_STREAM_PATH, LOCAL_API_BASE, Setting};

/// What the running daemon is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCommand {
    /// A turn, whose answer is shown.
    Ask(AskOptions),
    /// The sessions.
    Sessions {
        /// The closed ones too.
        all: bool,
    },
    /// The events, as they come.
    Follow {
        /// Only those about this session.
        session: Option<String>,
        /// Only those whose types begin with one of these.
        types: Vec<String>,
        /// The cursor after which they begin; now without one.
        after: Option<String>,
    },
    /// What Codex asks.
    Requests {
        /// Those that are over too.
        all: bool,
    },
    /// Answers what Codex asks.
    Answer {
        /// Which request; the only one that waits without it.
        request: Option<String>,
        /// What it is answered with.
        answer: Answer,
    },
    /// Interrupts the running turn.
    Interrupt {
        /// Of this session; of the only one at work without it.
        session: Option<String>,
    },
    /// Goes on with a held queue.
    ResumeQueue {
        /// Of this session.
        session: String,
    },
    /// Closes a session.
    Close {
        /// Which.
        session: String,
        /// Interrupt the running turn first.
        interrupt: bool,
    },
}

/// A turn that somebody wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AskOptions {
    /// The words; `-` stands for what is on stdin, and so does nothing.
    pub words: Vec<String>,
    /// The session, or `last`; a new one without it.
    pub session: Option<String>,
    /// The folder.
    pub cwd: Option<String>,
    /// The model.
    pub model: Option<String>,
    /// The sandbox of a new session.
    pub sandbox: Option<String>,
    /// When Codex asks before it does something.
    pub approval_policy: Option<String>,
    /// What happens when a turn runs already.
    pub when_busy: Option<String>,
    /// Whether Codex may use the `.codex` of the directory; a terminal is asked without it.
    pub trust: Option<bool>,
    /// After how many seconds without a network the turn is given up; 0 for never.
    pub network_timeout: u64,
}

/// An answer to what Codex asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// One of the decisions that are offered: its word, or all of it in JSON.
    Decision(String),
    /// Words, one answer for each question.
    Words(Vec<String>),
    /// The whole answer in the app-server's words, in JSON.
    Result(String),
}

#[derive(Debug, Subcommand)]
pub(super) enum ClientSubcommand {
    /// Ask Codex something and show its answer
    Ask(AskArguments),
    /// List the sessions
    Sessions(ListArguments),
    /// Show the events as they come
    Follow(FollowArguments),
    /// List what Codex asks and nobody has answered
    Requests(ListArguments),
    /// Allow what Codex asks for
    Approve(ApproveArguments),
    /// Refuse what Codex asks for
    Decline(DeclineArguments),
    /// Interrupt the running turn of a session
    Interrupt(InterruptArguments),
    /// Go on with the held queue of a session now
    ResumeQueue(ResumeQueueArguments),
    /// Close a session
    Close(CloseArguments),
    /// Write the completions for a shell
    Completions {
        /// The shell
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
}

/// What every client needs to find the daemon and to be let in.
#[derive(Debug, Args)]
pub(super) struct ClientArguments {
    #[command(flatten)]
    settings: ClientSettings,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

const CLIENT_SETTINGS: [&Setting; 3] = [&LOCAL_API_BASE, &EVENT_STREAM_PATH, &AUTH_TOKEN_FILE];

#[derive(Debug, Default)]
struct ClientSettings(Settings);

impl Args for ClientSettings {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.defer(|command| add_flags(command, &CLIENT_SETTINGS))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ClientSettings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut settings = Self::default();
        settings.update_from_arg_matches(matches)?;
        Ok(settings)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        read_flags(&mut self.0, matches, &CLIENT_SETTINGS);
        Ok(())
    }
}

#[derive(Debug, Args)]
pub(super) struct AskArguments {
    /// What to ask; "-" stands for what is on stdin, which is also asked when nothing is said
    #[arg(value_name = "TEXT")]
    words: Vec<String>,
    /// Go on in this session; "last" is the one of this folder that was used last
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Folder to work in; this one for a new session
    #[arg(long, value_name = "PATH")]
    cwd: Option<String>,
    /// Model to ask
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// What commands may touch; only for a new session
    #[arg(long, value_name = "SANDBOX", conflicts_with = "session",
          value_parser = PossibleValuesParser::new(values::SANDBOX_MODES))]
    sandbox: Option<String>,
    /// When Codex asks before it does something, in its own words: untrusted, on-request or never
    #[arg(long, value_name = "POLICY")]
    approval_policy: Option<String>,
    /// What to do when a turn of the session runs; refuse unless said otherwise
    #[arg(long, value_name = "HOW", requires = "session",
          value_parser = PossibleValuesParser::new(["refuse", "steer", "queue"]))]
    when_busy: Option<String>,
    /// Let Codex use the .codex of the directory, whose commands run outside of the sandbox, or not (--trust=false); only
    /// for a new session; without it a terminal is asked once for each directory
    #[arg(long, value_name = "BOOL", conflicts_with = "session", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    trust: Option<bool>,
    /// Interrupt the turn when Codex has reached no network for so many seconds; 0 waits on
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(..=86_400))]
    network_timeout: u64,
    #[command(flatten)]
    client: ClientArguments,
}

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    /// Those that are over too
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    client: ClientArguments,
}

#[derive(Debug, Args)]
pub(super) struct FollowArguments {
    /// Only events about this session; "last" is the one of this folder that was used last
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Only events whose type begins with this, once for each
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Begin after this cursor; 0 is the oldest event, and without it only new ones are shown
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    #[command(flatten)]
    client: ClientArguments,
}

#[derive(Debug, Args)]
pub(super) struct ApproveArguments {
    /// The request; may be left out when exactly one waits
    #[arg(value_name = "ID")]
    request: Option<String>,
    /// Another one of the decisions that are offered, such as acceptForSession; its word, or all of it in JSON
    #[arg(long, value_name = "DECISION", default_value = decisions::ACCEPT)]
    decision: String,
    /// The answer to a question, the number of an option or words; once for each question
    #[arg(long = "answer", value_name = "TEXT", conflicts_with = "decision")]
    answers: Vec<String>,
    /// The whole answer in the app-server's words, in JSON, in the place of a decision
    #[arg(long, value_name = "JSON", conflicts_with_all = ["decision", "answers"])]
    result: Option<String>,
    #[command(flatten)]
    client: ClientArguments,
}

#[derive(Debug, Args)]
pub(super) struct DeclineArguments {
    /// The request; may be left out when exactly one waits
    #[arg(value_name = "ID")]
    request: Option<String>,
    /// End the turn as well
    #[arg(long)]
    cancel: bool,
    #[command(flatten)]
    client: ClientArguments,
}

#[derive(Debug, Args)]
pub(super) struct InterruptArguments {
    /// The session, or "last"; may be left out when a turn runs in exactly one
    #[arg(value_name = "SESSION")]
    session: Option<String>,
    #[command(flatten)]
    client: ClientArguments,
}

#[derive(Debug, Args)]
pub(super) struct ResumeQueueArguments {
    /// The session, or "last"
    #[arg(value_name = "SESSION")]
    session: String,
    #[command(flatten)]
    client: ClientArguments,
}

#[derive(Debug, Args)]
pub(super) struct CloseArguments {
    /// The session, or "last"
    #[arg(value_name = "SESSION")]
    session: String,
    /// Interrupt the running turn first
    #[arg(long)]
    interrupt: bool,
    #[command(flatten)]
    client: ClientArguments,
}

/// Puts what stood before the command and what stands after it together.
pub(super) fn request(before: StartArguments, command: ClientSubcommand) -> Result<Invocation, CliExit> {
    let (name, client, command) = match command {
        ClientSubcommand::Completions { shell } => {
            let nothing = before.settings.first().is_none() && !before.json && !before.run_once;
            return match nothing {
                true => Ok(Invocation::Completions { shell }),
                false => Err(usage("\"completions\" has no flags")),
            };
        }
        ClientSubcommand::Ask(AskArguments {
            words,
            session,
            cwd,
            model,
            sandbox,
            approval_policy,
            when_busy,
            trust,
            network_timeout,
            client,
        }) => {
            let ask = AskOptions {
                words,
                session,
                cwd,
                model,
                sandbox,
                approval_policy,
                when_busy,
                trust,
                network_timeout,
            };
            ("ask", client, ClientCommand::Ask(ask))
        }
        ClientSubcommand::Sessions(ListArguments { all, client }) => {
            ("sessions", client, ClientCommand::Sessions { all })
        }
        ClientSubcommand::Follow(FollowArguments { session, types, after, client }) => {
            ("follow", client, ClientCommand::Follow { session, types, after })
        }
        ClientSubcommand::Requests(ListArguments { all, client }) => {
            ("requests", client, ClientCommand::Requests { all })
        }
        ClientSubcommand::Approve(ApproveArguments { request, decision, answers, result, client }) => {
            let answer = match result {
                Some(result) => Answer::Result(result),
                None if !answers.is_empty() => Answer::Words(answers),
                None => Answer::Decision(decision),
            };
            ("approve", client, ClientCommand::Answer { request, answer })
        }
        ClientSubcommand::Decline(DeclineArguments { request, cancel, client }) => {
            let word = if cancel { decisions::CANCEL } else { decisions::DECLINE };
            ("decline", client, ClientCommand::Answer { request, answer: Answer::Decision(word.to_owned()) })
        }
        ClientSubcommand::Interrupt(InterruptArguments { session, client }) => {
            ("interrupt", client, ClientCommand::Interrupt { session })
        }
        ClientSubcommand::ResumeQueue(ResumeQueueArguments { session, client }) => {
            ("resume-queue", client, ClientCommand::ResumeQueue { session })
        }
        ClientSubcommand::Close(CloseArguments { session, interrupt, client }) => {
            ("close", client, ClientCommand::Close { session, interrupt })
        }
    };
    if before.run_once {
        return Err(usage(&format!("--run-once means nothing to \"{name}\"")));
    }
    let settings = merge(before.settings, client.settings.0)?;
    Ok(Invocation::Client { settings, json: before.json || client.json, command })
}

/// The completions for a shell, as a script of it.
pub fn completions(shell: Shell) -> Vec<u8> {
    let whole = CommandLine::command();
    // What is hidden is for codexd itself, and clap would complete it all the same.
    let shown = whole.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let shown = clap::Command::default().args(whole.get_arguments().cloned()).subcommands(shown);
    // The flags that are added when a command is read, and no part of it before.
    let shown = Settings::augment_args(shown);
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut shown.name("codexd"), "codexd", &mut script);
    script
}
